"""`backupd demo`, the whole cycle on a mailbox of its own: server.py, its user in mailbox.py, told by story.py."""
