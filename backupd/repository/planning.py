"""What a prune does with each pack: decided here, from values, and done elsewhere.

A pack that nobody needs anything of goes. Small packs are joined, where there are enough of them. Of packs that are
needed in part, the blocks that are needed move to new ones, the emptiest packs first, until little enough is unused, or
as much has been moved as may be.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

FEWEST: Final = 8
"""Small objects of a kind, below which merging is not worth while."""

MAX_UNUSED: Final = 0.05


class PackUse(NamedTuple):
    """A pack that is there, is good, and is marked by nobody. size: its octets; needed: those of its blocks that hold
    something that is needed. must_go: it has something that was erased, and that nobody needs."""

    number: int
    size: int
    needed: int
    must_go: bool = False

    @property
    def unused(self) -> int:
        """Octets that could be freed."""
        return self.size - self.needed


class Limits(NamedTuple):
    """fewest: small packs that are worth joining. small: octets below which a pack is small. max_unused: how much may
    stay unused: a share of what is needed (0.05), or octets (a whole number). max_repack: octets that are moved at
    most; None: as much as it takes."""

    fewest: int = FEWEST
    small: int = 16 << 20
    max_unused: float | int = MAX_UNUSED
    max_repack: int | None = None


class Plan(NamedTuple):
    """Numbers of packs. gone: of which nothing is needed. small, partly: whose needed blocks are moved, because they
    are small, or unused in part, or must go. unused: octets that stay unused in those that stay. over: whether that is
    more than may be, since no more may be moved."""

    gone: list[int]
    small: list[int]
    partly: list[int]
    unused: int
    over: bool


def plan(packs: Iterable[PackUse], limits: Limits) -> Plan:
    """Decide on each pack."""
    every = sorted(packs, key=lambda pack: (pack.size, pack.number))
    gone = [pack.number for pack in every if not pack.needed]
    used = [pack for pack in every if pack.needed]
    left = limits.max_repack if limits.max_repack is not None else sum(pack.needed for pack in used)
    small: list[PackUse] = []
    candidates = [pack for pack in used if pack.size < limits.small]
    if len(candidates) >= limits.fewest:
        for pack in candidates:
            if pack.needed > left:
                break
            left -= pack.needed
            small.append(pack)
    joined = set(small)
    staying = [pack for pack in used if pack not in joined]
    unused = sum(pack.unused for pack in staying)
    most = (
        limits.max_unused
        if isinstance(limits.max_unused, int)
        else limits.max_unused * sum(pack.needed for pack in used)
    )
    partly = [pack.number for pack in staying if pack.must_go]  # whatever else may be moved
    left = max(0, left - sum(pack.needed for pack in staying if pack.must_go))
    unused -= sum(pack.unused for pack in staying if pack.must_go)
    staying = [pack for pack in staying if not pack.must_go]
    for pack in sorted(staying, key=lambda each: (-each.unused / each.size, each.number)):
        if unused <= most:
            break
        if pack.needed <= left:
            left -= pack.needed
            unused -= pack.unused
            partly.append(pack.number)
    return Plan(gone, [pack.number for pack in small], partly, unused, unused > most)
