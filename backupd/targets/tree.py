"""The folder a restore writes to, as targets see it: found or made by its parts, and locked while it is written to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from backupd.targets.folders import Folder
from backupd.targets.paths import Parts


class Tree:
    """A folder that may not be there yet. Reading makes nothing; `begin` does, and keeps other restores out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._locked: Folder | None = None

    def begin(self) -> Folder:
        """The root, made and locked; it belongs to the tree. Raises Busy and StorageError."""
        if self._locked is None:
            root = Folder.root(self.path, create=True)
            assert root is not None  # noqa: S101 it was made
            try:
                root.lock()
            except BaseException:
                root.close()
                raise
            self._locked = root
        return self._locked

    def end(self) -> None:
        """Let others write."""
        if self._locked is not None:
            self._locked.close()
            self._locked = None

    @contextlib.contextmanager
    def find(self, parts: Parts) -> Iterator[Folder | None]:
        """A folder that may be there."""
        root = Folder.root(self.path, create=False)
        with root or contextlib.nullcontext():
            folder = root.descend(parts, create=False) if root else None
            with folder or contextlib.nullcontext():
                yield folder

    @contextlib.contextmanager
    def make(self, parts: Parts) -> Iterator[Folder]:
        """A folder, made if it is not there."""
        folder = self.begin().descend(parts, create=True)
        assert folder is not None  # noqa: S101 it was made
        with folder:
            yield folder

    def names(self, parts: Parts) -> list[str]:
        """What is in a folder; nothing if it is not there."""
        with self.find(parts) as folder:
            return folder.names() if folder else []
