"""Restoring into an IMAP account: `names` says where mail goes, `append` gets it there, `target` is the Target."""

from __future__ import annotations

from backupd.targets.imap.target import ImapTarget

__all__ = ["ImapTarget"]
