"""A directory in which objects seem older than they are; what a file system says of them cannot be set back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from backupd.storage.base import ObjectInfo
from backupd.storage.local import LocalStorage


class AgedStorage(LocalStorage):
    """ages: by the beginning of a name, how much older such objects seem."""

    ages: dict[str, timedelta]

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix):
            older = sum((age for start, age in self.ages.items() if info.name.startswith(start)), timedelta())
            assert info.modified is not None
            yield info._replace(modified=info.modified - older.total_seconds())
