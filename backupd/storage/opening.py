"""From a repository's address to its storage."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from backupd.errors import ConfigError
from backupd.storage.base import Storage
from backupd.storage.local import LocalStorage
from backupd.storage.s3_settings import S3Settings


def open_storage(url: str, s3: S3Settings | None = None) -> Storage:
    """The storage at a path, a file: address or an s3: address. Raises ConfigError for what this version does not know.

    s3: how to reach the bucket; without it, as boto3 finds it.
    """
    if url.startswith("s3://"):
        from backupd.storage.s3 import S3Storage

        return S3Storage(url, s3 or S3Settings())
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc:
        return LocalStorage(Path(unquote(parts.path)))
    if "://" in url:
        raise ConfigError(
            f"this version keeps repositories in local directories and in S3, not in {parts.scheme}:",
            subject="repository.url",
            remedy="use a path, such as /srv/backup/mail, or s3://bucket/prefix",
        )
    return LocalStorage(Path(url).expanduser())
