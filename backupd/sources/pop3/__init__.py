"""Mail from POP3 servers, which is left there unless the configuration says otherwise."""
