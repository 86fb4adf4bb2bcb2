"""One module a command: what it takes, which operation it calls, and how the result is shown."""
