"""From a repository's address to its storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from backupd.errors import ConfigError
from backupd.storage.base import Storage
from backupd.storage.local import LocalStorage


def open_storage(url: str) -> Storage:
    """The storage at a path or a file: address. Raises ConfigError for what this version does not know."""
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStorage(Path(unquote(parts.path)))
    if "://" in url:
        raise ConfigError(
            f"this version keeps repositories in local directories, not in {parts.scheme}:",
            subject="repository.url",
            remedy="use a path, such as /srv/backup/mail",
        )
    return LocalStorage(Path(url).expanduser())
