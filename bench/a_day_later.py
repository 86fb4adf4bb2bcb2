"""`python -m bench.a_day_later prune`: backupd, to which all marks of a local repository seem a day older.

How old a mark is, a prune asks the storage too, and what the file system says of when a file got its name cannot be set
back. So that a prune which comes a day later can be measured without waiting, this says so in its place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

from backupd.cli.main import main
from backupd.repository import names
from backupd.storage.base import ObjectInfo
from backupd.storage.local import LocalStorage

PERIOD: Final = timedelta(days=1, minutes=1)

Listing = Callable[[LocalStorage, str], Iterator[ObjectInfo]]


def aged(listing: Listing) -> Listing:
    """A listing in which marks are so much older."""

    def listed(storage: LocalStorage, prefix: str = "") -> Iterator[ObjectInfo]:
        for info in listing(storage, prefix):
            if info.modified is not None and names.mark_time(info.name):
                yield info._replace(modified=info.modified - PERIOD.total_seconds())
            else:
                yield info

    return listed


if __name__ == "__main__":
    LocalStorage.list = aged(LocalStorage.list)  # type: ignore[method-assign,assignment]
    sys.exit(main())
