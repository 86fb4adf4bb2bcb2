"""Mail from IMAP servers: discovery in one round trip, scans that read only what changed, FETCH at line speed.

Nothing but EXAMINE and BODY.PEEK[] is ever used, so that a backup leaves no trace on the server.
"""

from backupd.sources.imap.source import ImapSource

__all__ = ["ImapSource"]
