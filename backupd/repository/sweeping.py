"""Which of the objects that were marked a while ago may be removed now. Decided here; removed elsewhere.

A mark is not believed. A pack goes if nothing is needed from it, whoever marked it, what it has in common with others
is needed from such as nobody has marked or all know to stay, and no index object that stays tells of it: somebody who
writes may rely on whatever an index tells. An index object goes if each pack that it tells of is gone, goes too, or is
told of by an index object that nobody has marked. What a need names stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from backupd.repository import names
from backupd.repository.survey import Survey
from backupd.repository.surveyed import Pack


class Sweep(NamedTuple):
    """Names of objects. indexes, packs: to be removed, in this order. waiting: that cannot go yet, for something that
    waits itself, or is locked, stands in the way. needed: that stay, and are marked no longer."""

    indexes: list[str]
    packs: list[str]
    waiting: list[str]
    needed: list[str]


def sweep(
    survey: Survey,
    ripe: Collection[str],
    vetoed: Collection[str],
    *,
    unindexed_may_go: bool,
    is_locked: Callable[[str], bool],
    stays: Callable[[str], bool] = lambda _name: False,
) -> Sweep:
    """Decide.

    Args:
        ripe: names of objects that were marked long enough ago.
        vetoed: names of those of which somebody has said that they are needed.
        unindexed_may_go: whether a pack that no index object tells of is known to be needed by nobody.
        is_locked: whether an object cannot be removed yet.
        stays: whether a pack that is marked is known by all to stay.
    """
    needed: set[str] = set(vetoed) & set(ripe)
    locked: set[str] = set()
    packs: dict[str, Pack] = {}
    for pack in survey.packs:
        name = pack.object
        if name not in ripe or name in needed or not pack.listed:
            continue
        if survey.needed_blocks(pack) or not (pack.told or unindexed_may_go):
            needed.add(name)
        elif is_locked(name) or _is_second(survey, pack, stays):
            locked.add(name)
        else:
            packs[name] = pack
    indexes = {each.name: each for each in survey.indexes if each.name in ripe and each.name not in needed}
    for name, each in list(indexes.items()):
        if not each.readable:
            needed.add(name)
            del indexes[name]
        elif is_locked(name):
            locked.add(name)
            del indexes[name]
    told_elsewhere = {number for each in survey.indexes if not each.marked for number in each.packs}
    waiting = set(locked)
    while True:
        kept_indexes = {
            name: [survey.packs[number] for number in each.packs if _keeps(survey.packs[number], packs, told_elsewhere)]
            for name, each in indexes.items()
        }
        for name, keeping in kept_indexes.items():
            if keeping:
                (needed if any(pack.object in needed for pack in keeping) else waiting).add(name)
                del indexes[name]
        kept_packs = [
            name for name, pack in packs.items() if any(survey.indexes[each].name not in indexes for each in pack.told)
        ]
        for name in kept_packs:
            waiting.add(name)
            del packs[name]
        if not kept_packs and not any(kept_indexes.values()):
            return Sweep(sorted(indexes), sorted(packs), sorted(waiting), sorted(needed))


def _is_second(survey: Survey, pack: Pack, stays: Callable[[str], bool]) -> bool:
    """Whether the pack is superfluous only as long as one stays that is marked itself. Another prune may take that one
    for superfluous because of this one; so this one waits until it is known to all that the other one stays."""
    homes = (survey.packs[home] for home in survey.replaced.get(pack.number, ()))
    return any(home.marked and not stays(home.object) for home in homes)


def _keeps(pack: Pack, going: Collection[str], told_elsewhere: Collection[int]) -> bool:
    """Whether an index object must stay because it tells of this pack."""
    return pack.listed and pack.object not in going and pack.number not in told_elsewhere


def of_packs_and_indexes(objects: Collection[str]) -> set[str]:
    """Those of the names that are of packs and index objects."""
    return {name for name in objects if name.startswith((names.PACKS, names.INDEX))}
