"""Sets of UIDs as sorted stretches: a mailbox of a million messages without gaps costs one pair of numbers."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import ClassVar

GREATEST = 2**32 - 1
"""The greatest UID (RFC 3501, 2.3.1.1: 32 bits, never 0)."""

_SET = re.compile(rb"\d{1,10}(?::\d{1,10})?(?:,\d{1,10}(?::\d{1,10})?)*\Z")


class UidSet:
    """An immutable set of UIDs, iterated in ascending order. Set operations take time linear in the stretches."""

    __slots__ = ("_count", "_firsts", "_ranges")

    EMPTY: ClassVar[UidSet]

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        """ranges: (first, last), ascending, with a gap between each two. Others go through `from_ranges`."""
        self._ranges = tuple(ranges)
        self._firsts: list[int] | None = None
        self._count = sum(last - first + 1 for first, last in self._ranges)

    @classmethod
    def from_ranges(cls, ranges: Iterable[tuple[int, int]]) -> UidSet:
        """Stretches in any order, which may overlap. Raises ValueError for what cannot be a UID."""
        return cls(_merged(sorted(ranges)))

    @classmethod
    def from_uids(cls, uids: Iterable[int]) -> UidSet:
        """UIDs in any order, perhaps repeated. Raises ValueError for what cannot be a UID."""
        ordered = sorted(uids)
        ranges: list[tuple[int, int]] = []
        first = last = -1
        for uid in ordered:
            if uid <= last + 1 and first >= 0:
                last = uid
            else:
                if first >= 0:
                    ranges.append((first, last))
                first = last = uid
        if first >= 0:
            ranges.append((first, last))
        return cls(_checked(ranges))

    @classmethod
    def parse(cls, wire: bytes) -> UidSet:
        """A sequence-set of numbers (RFC 3501, 9), such as b"1:5,9". Raises ValueError; "*" is none it can know."""
        if not _SET.match(wire):
            raise ValueError(f"not a set of UIDs: {wire[:60]!r}")
        ranges = []
        for piece in wire.split(b","):
            first, _, last = piece.partition(b":")
            low, high = int(first), int(last or first)
            ranges.append((low, high) if low <= high else (high, low))
        return cls.from_ranges(ranges)

    @property
    def ranges(self) -> tuple[tuple[int, int], ...]:
        """(first, last) of each stretch."""
        return self._ranges

    @property
    def min(self) -> int:
        """The least UID. Raises ValueError when empty."""
        return self._ends()[0][0]

    @property
    def max(self) -> int:
        """The greatest UID. Raises ValueError when empty."""
        return self._ends()[-1][1]

    def _ends(self) -> tuple[tuple[int, int], ...]:
        if not self._ranges:
            raise ValueError("an empty set of UIDs has no least and no greatest")
        return self._ranges

    def __len__(self) -> int:
        return self._count

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __iter__(self) -> Iterator[int]:
        for first, last in self._ranges:
            yield from range(first, last + 1)

    def __contains__(self, uid: object) -> bool:
        if not isinstance(uid, int):
            return False
        if self._firsts is None:
            self._firsts = [first for first, _ in self._ranges]
        position = bisect_right(self._firsts, uid) - 1
        return position >= 0 and uid <= self._ranges[position][1]

    def __eq__(self, other: object) -> bool:
        return self._ranges == other._ranges if isinstance(other, UidSet) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._ranges)

    def __repr__(self) -> str:
        return f"UidSet({b''.join(self.to_wire(200))[:200].decode()!r})"

    def __or__(self, other: UidSet) -> UidSet:
        if not other:
            return self
        return UidSet(_merged(sorted(self._ranges + other._ranges))) if self else other

    def __and__(self, other: UidSet) -> UidSet:
        found: list[tuple[int, int]] = []
        mine, theirs = iter(self._ranges), iter(other._ranges)
        one, two = next(mine, None), next(theirs, None)
        while one and two:
            low, high = max(one[0], two[0]), min(one[1], two[1])
            if low <= high:
                found.append((low, high))
            if one[1] < two[1]:
                one = next(mine, None)
            else:
                two = next(theirs, None)
        return UidSet(found)

    def __sub__(self, other: UidSet) -> UidSet:
        if not self or not other:
            return self
        found: list[tuple[int, int]] = []
        theirs = iter(other._ranges)
        two = next(theirs, None)
        for first, last in self._ranges:
            start = first
            while two and two[1] < start:
                two = next(theirs, None)
            while two and two[0] <= last:
                if two[0] > start:
                    found.append((start, two[0] - 1))
                start = two[1] + 1
                if two[1] > last:
                    break
                two = next(theirs, None)
            if start <= last:
                found.append((start, last))
        return UidSet(found)

    def chunks(self, count: int) -> Iterator[UidSet]:
        """The set in order, cut into sets of at most `count` UIDs."""
        return self.cut(lambda: count)

    def cut(self, count: Callable[[], int]) -> Iterator[UidSet]:
        """As chunks; asked before each set how many UIDs it may have."""
        piece: list[tuple[int, int]] = []
        room = count()
        for start, last in self._ranges:
            first = start
            while first <= last:
                end = min(last, first + room - 1)
                piece.append((first, end))
                room -= end - first + 1
                first = end + 1
                if not room:
                    yield UidSet(piece)
                    piece, room = [], count()
        if piece:
            yield UidSet(piece)

    def to_wire(self, limit: int) -> Iterator[bytes]:
        """The set as sequence-sets of at most `limit` octets each (servers limit their command lines; at least 21)."""
        line: list[bytes] = []
        size = 0
        for first, last in self._ranges:
            piece = b"%d" % first if first == last else b"%d:%d" % (first, last)
            if line and size + 1 + len(piece) > limit:
                yield b",".join(line)
                line, size = [], 0
            line.append(piece)
            size += len(piece) + (len(line) > 1)
        if line:
            yield b",".join(line)


UidSet.EMPTY = UidSet(())


def _merged(ordered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for first, last in ordered:
        if first > last:
            raise ValueError(f"a stretch of UIDs ends before it begins: {first}:{last}")
        if ranges and first <= ranges[-1][1] + 1:
            if last > ranges[-1][1]:
                ranges[-1] = (ranges[-1][0], last)
        else:
            ranges.append((first, last))
    return _checked(ranges)


def _checked(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    if ranges and not (ranges[0][0] >= 1 and ranges[-1][1] <= GREATEST):
        raise ValueError(f"UIDs are from 1 to {GREATEST}")
    return ranges
