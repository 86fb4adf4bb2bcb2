"""What was erased and is still stored: where it lies, and what stands in the way of removing it.

A block is compressed and encrypted as a whole, and goes as a whole. One that holds something erased beside something
that is needed can go when the latter is stored in another place, too; that takes a key that reads mail, once. From then
on it is needed from there, whichever pack would be preferred otherwise, and the block is needed by nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from backupd.errors import Damaged
from backupd.repository import block, payload, recipe
from backupd.repository.erasures import Erasures
from backupd.repository.index_cache import cut
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.survey import Survey
from backupd.repository.surveyed import Pack


class Condemned(NamedTuple):
    """blobs: places, by number, of what was erased. blocks: that hold it. stuck: places, with ids, of what is needed
    from these blocks, and is stored nowhere else."""

    blobs: frozenset[int]
    blocks: frozenset[int]
    stuck: tuple[tuple[int, bytes], ...]

    def must_go(self, survey: Survey, pack: Pack) -> bool:
        """Whether a pack has such a block, which nobody needs any more."""
        own = range(pack.first, pack.first + pack.blocks)
        return any(at in self.blocks and not survey.is_block_needed(at) for at in own)


NOTHING = Condemned(frozenset(), frozenset(), ())


def condemn(survey: Survey, erased: Erasures, *, more: Iterable[bytes] = ()) -> Condemned:
    """Find what was erased, and need whatever stands beside it from elsewhere. What the snapshots need is known by now.

    more: ids that count as erased, too, unless something needs them.
    """
    blobs = {number for blob in _condemned(survey, [*erased.messages, *erased.replaced(), *more]) for number, _ in blob}
    blocks = {survey.block_of(number) for number in blobs}
    stuck = []
    for each in sorted(blocks):
        for number, blob in survey.ids(each) if survey.is_block_needed(each) else ():
            if survey.is_needed(number) and not _find_a_home(survey, blob, blocks):
                stuck.append((number, blob))
    return Condemned(frozenset(blobs), frozenset(blocks), tuple(stuck))


def _condemned(survey: Survey, ids: Iterable[bytes]) -> Iterable[list[tuple[int, bytes | None]]]:
    """Places of what is erased and needed by nobody, with all that it was joined from."""
    seen: set[bytes] = set()
    left = list(dict.fromkeys(ids))
    while left:
        blob = left.pop()
        if blob in seen:
            continue
        seen.add(blob)
        places = survey.places(blob)
        if any(survey.is_needed(number) for number, _ in places):
            continue  # a part of another message is the same, or the run that should stand in its place is lost
        left += [part for _, parts in places for part in cut(parts)]
        yield places


def _find_a_home(survey: Survey, blob: bytes, blocks: set[int]) -> bool:
    """Need a blob from a place where nothing erased is, if there is one."""
    places = survey.places(blob)
    fit = [number for number, _ in places if survey.block_of(number) not in blocks and _stays(survey, number)]
    if not fit:
        return False
    survey.make_home([number for number, _ in places], max(fit, key=lambda number: survey.pack_of(number).rank))
    return True


def _stays(survey: Survey, number: int) -> bool:
    pack = survey.pack_of(number)
    return pack.good and not pack.marked and any(not survey.indexes[each].marked for each in pack.told)


def store_anew(
    repository: Repository, survey: Survey, condemned: Condemned, go_on: Callable[[], None] = lambda: None
) -> int:
    """Store once more, in blocks of its own, what is needed beside something erased; its octets. Durable when this
    ends. What cannot be read stays where it is. Needs the reader's role. Raises Overtaken.
    """
    octets, last, blobs = 0, -1, list[tuple[BlobKind, memoryview]]()
    for number, blob in condemned.stuck:
        go_on()
        if survey.block_of(number) != last:
            last = survey.block_of(number)
            blobs = _opened(repository, survey, number)
        place = survey.place_in_block(number)
        kind, data = blobs[place] if place < len(blobs) else (BlobKind.PLAIN, memoryview(b""))
        if place >= len(blobs) or not _is_right(repository, kind, data, blob):
            continue
        parts = recipe.parts(recipe.decode(data, "a recipe")) if kind is BlobKind.RECIPE else None
        repository.distrust(blob)
        repository.put(blob, kind, bytes(data), parts)
        octets += len(data)
    repository.flush()
    return octets


def _opened(repository: Repository, survey: Survey, number: int) -> list[tuple[BlobKind, memoryview]]:
    try:
        name, data = survey.read(number)
        return payload.parse(block.unseal(data, repository.secrets, name), name)
    except Damaged:
        return []


def _is_right(repository: Repository, kind: BlobKind, data: memoryview, blob: bytes) -> bool:
    """Whether a blob is what its id says; a recipe says that only when it is joined, so it need only make sense."""
    if kind is BlobKind.RECIPE:
        try:
            recipe.decode(data, "a recipe")
        except Damaged:
            return False
        return True
    return not kind.is_metadata and repository.secrets.content_id(data) == blob
