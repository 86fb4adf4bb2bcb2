"""Which share of the bytes an audit reads, so that all are read in turn; and how long that takes. Decisions only.

What was never proved comes first, then what was proved longest ago. So an interrupted audit goes on where it was, and
what was found damaged is read again by each audit until it is mended. """

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple


class Item(NamedTuple):
    """An object. proved: when its bytes were last proved, in seconds since 1970; None for never."""

    name: str
    size: int
    proved: float | None


def choose(items: Iterable[Item], budget: float | None) -> list[str]:
    """Names of what is to be read: all of it, or a share of the octets (0 to 1), and never less than one object."""
    ordered = sorted(items, key=lambda each: (each.proved is not None, each.proved or 0.0, each.name))
    if budget is None:
        return [each.name for each in ordered]
    left = budget * sum(each.size for each in ordered)
    chosen: list[str] = []
    for each in ordered:
        if chosen and each.size > left:
            break
        chosen.append(each.name)
        left -= each.size
    return chosen


def cycle_runs(sizes: Sequence[int], budget: float | None) -> int:
    """How many audits read everything at least once, if each reads this share, or one object where that is more."""
    if budget is None or not sizes:
        return 1
    share, runs, left = budget * sum(sizes), 0, 0.0
    for size in sizes:
        if not runs or size > left:
            runs, left = runs + 1, share
        left -= size
    return runs


def rate(times: Sequence[datetime]) -> float | None:
    """Seconds between audits, on the average of the latest; None when there was only one. times: in any order."""
    ordered = sorted(times)
    gaps = [(after - before).total_seconds() for before, after in pairwise(ordered)]
    return sum(gaps) / len(gaps) if gaps else None
