"""What a survey (survey.py) knows of each pack and each index object, as it is made. It promises nothing by itself."""

from __future__ import annotations

from backupd.repository import names
from backupd.storage.base import ObjectInfo


class Pack:
    """A pack. size: as the index says, or the listing where no index object tells of it. there: it is listed, with this
    size. marked: somebody has marked it. told: numbers of the index objects that tell of it. stored: seconds since
    1970, if known. good: nothing is known to be wrong with it."""

    __slots__ = ("blocks", "first", "good", "listed", "marked", "name", "number", "rank", "size", "stored", "told")

    def __init__(self, number: int, name: bytes, size: int, listed: ObjectInfo | None, *, marked: bool) -> None:
        self.number, self.name, self.size, self.marked = number, name, size, marked
        self.listed = listed is not None
        self.good = listed is not None and listed.size == size
        self.stored = listed.modified if listed else None
        self.told: list[int] = []
        self.first = self.blocks = 0
        self.rank = 0

    @property
    def object(self) -> str:
        """Its object's name."""
        return names.pack(self.name.hex())


class Index:
    """An index object. readable: it is what its name says; else `packs` says nothing."""

    __slots__ = ("marked", "name", "packs", "readable", "size", "unknown")

    def __init__(self, name: str, size: int, *, marked: bool) -> None:
        self.name, self.size, self.marked = name, size, marked
        self.readable = True
        self.packs: list[int] = []
        self.unknown = False
        """Whether it leaves out what some recipes need."""
