"""Targets: where mail is restored to: an IMAP account, or files."""
