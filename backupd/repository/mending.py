"""What can be mended without the mail server: the index made up for from packs, and lost blocks taken out of account.

Packs say themselves what they hold (docs/format.md, "Packs"), so a missing or damaged index object costs nothing but
time, if the key can read mail. What a pack held that is missing is gone from here; once the index leaves it out, the
next backup finds the messages missing, and stores those again that the server still has.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import NamedTuple

import msgspec

from backupd.errors import Damaged, ObjectExists, ObjectMissing, WrongKey
from backupd.repository import block, marks, names, payload, recipe
from backupd.repository.block import HEADER
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import WHOLE_PACK, Lost
from backupd.repository.keys import Role
from backupd.repository.pack_writer import PACK_MAGIC
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.storage.base import Buffer

Join = Callable[[bytes | memoryview], bytes]
"""The id of the message that a recipe describes. Raises Damaged when a part of it is missing."""


class Health(NamedTuple):
    """lost: blocks and packs that cannot be read. unindexed: names of packs that no index object describes, which a
    killed run or a lost index leaves behind."""

    lost: frozenset[Lost]
    unindexed: tuple[str, ...]


def examine(repository: Repository, *, stored_before: float | None = None) -> Health:
    """Compare the index with the packs that are there, by name and size, and leave what is lost out of account.

    stored_before: seconds since 1970. Packs that are known to have been stored later are not unindexed yet: whoever
    stores them will index them.

    Reads nothing of packs but the blocks that were found damaged before, which may have been put back, and those of
    packs that have another size than they should.
    """
    repository.refresh()
    # Others may be storing packs all the time. Those that were indexed first and are not listed then are lost; those
    # that were listed first and are neither under way nor indexed then are not indexed.
    indexed = repository.index.packs()
    sizes: dict[str, int] = {}
    young = set()
    for info in repository.storage.list(names.PACKS):
        sizes[info.name] = info.size
        if stored_before is not None and info.modified is not None and info.modified > stored_before:
            young.add(info.name)
    accounted = repository.under_way | {names.pack(pack.hex()) for pack in repository.index.packs()}
    before = repository.index.lost()
    lost: dict[Lost, int] = {}
    # What no index object tells of any more is missed by nobody.
    doubted = {each for each in before if each[1] != WHOLE_PACK and each[0] in indexed}
    for pack, size in indexed.items():
        there = sizes.get(names.pack(pack.hex()))
        if there is None:
            lost[pack, WHOLE_PACK] = size
        elif there != size:
            doubted |= {(pack, offset) for offset in repository.index.offsets(pack)}
    for pack, offset in doubted:
        if (pack, WHOLE_PACK) not in lost and not _readable(repository, pack, offset):
            lost[pack, offset] = 0
    repository.index.set_lost(lost)
    if lost.keys() != before or _counted(repository, lost):
        repository.rebuild()
        # Others may have pruned meanwhile: what no index object tells of any more is missed by nobody.
        told = repository.index.packs()
        lost = {each: size for each, size in lost.items() if each[0] in told}
        repository.index.set_lost(lost)
    unindexed = [name for name in sizes if name not in accounted and name not in young]
    if unindexed or any(offset == WHOLE_PACK for _, offset in lost):
        # What a prune removes is in others or needed by nobody, and no loss; nor is it to be taken up again.
        removed = marks.objects(marks.read(repository.storage))
        lost = {each: size for each, size in lost.items() if names.pack(each[0].hex()) not in removed}
        unindexed = [name for name in unindexed if name not in removed]
    return Health(frozenset(lost), tuple(unindexed))


def _counted(repository: Repository, lost: dict[Lost, int]) -> bool:
    """Whether the cache still has blocks that are lost, because it was filled before."""
    return any(repository.index.has_block(pack, offset) for pack, offset in lost)


def _readable(repository: Repository, pack: bytes, offset: int) -> bool:
    name = names.pack(pack.hex())
    try:
        header = block.parse_header(repository.storage.get(name, offset, HEADER.size), name)
        data = repository.storage.get(name, offset, header.total)
        if header.kind is block.Kind.CONTENT and repository.secrets.role is not Role.READER:
            return True  # it is there as a whole: a writer cannot tell more
        payload.parse(block.unseal(data, repository.secrets, name), name)
    except (Damaged, ObjectMissing):
        return False
    return True


def adopt(repository: Repository, unindexed: tuple[str, ...], join: Join, *, store: bool = True) -> int:
    """Index packs that no index object describes; how many. Without the reader role none: ids cannot be computed.

    store: write an index object; else only the local cache learns of them, until it is next brought up to date.
    """
    if repository.secrets.role is not Role.READER:
        return 0
    with repository.refreshing:
        return _adopt(repository, unindexed, join, store=store)


def _adopt(repository: Repository, unindexed: tuple[str, ...], join: Join, *, store: bool) -> int:
    walked = [entry for name in unindexed if (entry := _walk(repository, name))]
    # Recipes last: only when all parts can be found can a message be joined, and its id be known.
    plain = [_entry(pack, {}) for pack in walked]
    repository.index.add("being adopted", plain)
    recipes: dict[bytes, bytes] = {}
    for pack in walked:
        _join(recipes, pack.recipes, join)
    adopted = [_entry(pack, recipes) for pack in walked]
    if adopted and store:
        repository.add_index(adopted)
    repository.rebuild()
    if adopted and not store:
        repository.index.add("adopted", adopted)
    return len(adopted)


_Blob = tuple[BlobKind, bytes | None, int, bytes]
"""Kind, id, octets; of a recipe, whose id is known when it is joined, no id, and its bytes."""
_Block = tuple[BlockEntry, list[_Blob]]


class _Walked(NamedTuple):
    name: bytes
    size: int
    blocks: list[_Block]

    @property
    def recipes(self) -> list[bytes]:
        return [data for _, blobs in self.blocks for kind, _, _, data in blobs if kind is BlobKind.RECIPE]


def _walk(repository: Repository, name: str) -> _Walked | None:
    """The blocks of a pack that can be read; None when it is not the pack that its name promises."""
    try:
        data = repository.storage.get(name)
    except (Damaged, ObjectMissing):
        return None
    if not names.proves(name, [data]) or not data.startswith(PACK_MAGIC):
        return None
    position, blocks = len(PACK_MAGIC), []
    try:
        while position < len(data):
            header = block.parse_header(memoryview(data)[position:], name)
            sealed = data[position : position + header.total]
            blocks.append(_opened(repository, header, sealed, position, name))
            position += header.total
    except Damaged:
        return None
    return _Walked(bytes.fromhex(name.rpartition("/")[2]), len(data), blocks)


def _opened(repository: Repository, header: block.Header, sealed: Buffer, position: int, name: str) -> _Block:
    """A block, and the ids of its blobs. Raises Damaged, WrongKey."""
    secrets = repository.secrets
    blobs: list[_Blob] = []
    for kind, blob in payload.parse(block.unseal(sealed, secrets, name), name):
        if kind is BlobKind.RECIPE:
            blobs.append((kind, None, len(blob), bytes(blob)))
        else:
            identify = secrets.metadata_id if kind.is_metadata else secrets.content_id
            blobs.append((kind, identify(blob), len(blob), b""))
    return BlockEntry(position, header.total, header.kind, header.plain_length, len(blobs)), blobs


def salvage(repository: Repository, name: str, data: bytes, bad: Collection[bytes], join: Join) -> str | None:
    """Store once more what can be read of a damaged object and is in no good pack; the name of the new pack, None where
    there is nothing. An index object tells of it when this returns; the cache does when it has been rebuilt, once for
    all that was saved.

    What was erased is not worth saving; beside something that is, it comes along, and goes with the next prune.

    Raises ObjectExists where there is something, and no place for it.

    bad: the packs (by their digests) that do not count as places of what they hold, this one among them.

    Each block proves itself to whom the key lets open it, wherever it stands; so what a writer's key saves is metadata.
    """
    kept: list[tuple[_Block, bytes]] = []
    erased = repository.erased.now
    unwanted = erased.messages.keys() | erased.replaced()
    for found, sealed in _readable_blocks(repository, name, data):
        recipes: dict[bytes, bytes] = {}
        _join(recipes, (blob for _, known, _, blob in found[1] if known is None), join)
        ids = [known or recipes.get(blob) for _, known, _, blob in found[1]]
        ids = [each for each in ids if each not in unwanted]
        if any(each and all(home in bad for home, _ in repository.index.homes(each)) for each in ids):
            kept.append((found, sealed))
    if not kept:
        return None
    stored = _store(repository, name, kept)
    told = stored.name in repository.index.packs()
    # As for packs that are adopted: a message can be joined when the parts are known that are stored with it.
    repository.index.add(f"saved {stored.name.hex()}", [_entry(stored, {})])
    joined: dict[bytes, bytes] = {}
    _join(joined, stored.recipes, join)
    if not told:
        repository.add_index([_entry(stored, joined)])
    return names.pack(stored.name.hex())


def _store(repository: Repository, name: str, kept: list[tuple[_Block, bytes]]) -> _Walked:
    """A new pack of these blocks. Raises ObjectExists where its place is taken by what may be needed itself."""
    for some in (kept, [*kept[1:], kept[0]]):
        pieces: list[Buffer] = [PACK_MAGIC, *(sealed for _, sealed in some)]
        starts = itertools.accumulate((len(sealed) for _, sealed in some), initial=len(PACK_MAGIC))
        blocks = [
            (msgspec.structs.replace(entry, offset=start), blobs)
            for ((entry, blobs), _), start in zip(some, starts, strict=False)
        ]
        digest = names.sha256(pieces)
        # All that it was may still be there, in another order or with something between: then it is itself again. But
        # what stands in the place of another pack may be all that is left of a third.
        store = repository.storage.replace if names.pack(digest) == name else repository.storage.put
        try:
            store(names.pack(digest), pieces)
        except ObjectExists:
            continue
        return _Walked(bytes.fromhex(digest), sum(map(len, pieces)), blocks)
    raise ObjectExists("what can be saved of it belongs where another damaged object is", subject=name)


def readable(repository: Repository, name: str, data: bytes, join: Join) -> set[bytes]:
    """Ids of the blobs that `salvage` could store once more."""
    found: set[bytes] = set()
    for (_, blobs), _ in _readable_blocks(repository, name, data):
        recipes: dict[bytes, bytes] = {}
        _join(recipes, (blob for _, known, _, blob in blobs if known is None), join)
        found.update(known or recipes.get(blob, _NOBODYS) for _, known, _, blob in blobs)
    return found


def _readable_blocks(repository: Repository, name: str, data: bytes) -> Iterator[tuple[_Block, bytes]]:
    position = data.find(block.MAGIC)
    while position >= 0:
        try:
            header = block.parse_header(memoryview(data)[position:], name)
            sealed = data[position : position + header.total]
            yield _opened(repository, header, sealed, position, name), sealed
            position += header.total
        except (Damaged, WrongKey):
            position += 1
        position = data.find(block.MAGIC, position)


def _join(recipes: dict[bytes, bytes], some: Iterable[bytes], join: Join) -> None:
    """Add the ids of the messages that these recipes describe, as far as their parts are there."""
    for data in some:
        try:
            recipes[data] = join(data)
        except Damaged:
            continue


_NOBODYS = bytes(32)
"""In place of the id of a recipe that cannot be joined; no blob has it."""


def _entry(pack: _Walked, recipes: dict[bytes, bytes]) -> PackEntry:
    every = [blob for _, blobs in pack.blocks for blob in blobs]
    return PackEntry(
        name=pack.name,
        size=pack.size,
        blocks=[entry for entry, _ in pack.blocks],
        ids=b"".join(known or recipes.get(data, _NOBODYS) for _, known, _, data in every),
        kinds=bytes(kind for kind, *_ in every),
        lengths=[length for _, _, length, _ in every],
        parts=[
            recipe.parts(recipe.decode(data, "a recipe")) if data in recipes else b""
            for kind, _, _, data in every
            if kind is BlobKind.RECIPE
        ]
        or None,
    )
