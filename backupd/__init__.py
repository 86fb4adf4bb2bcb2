"""backupd: incremental, encrypted, provable backups of e-mail accounts."""

__version__ = "0.1.0"
