"""Index and packs: what the index says is there as it says; and, as deep as the level goes, bytes, parts and ids.

The index tells which parts each message is joined from, so a missing part is seen without reading any mail. Each pack
is read at most once, whole, by a few threads with bounded memory, while the index goes by. What a reader's key finds
damaged is noted in the index cache, as a restore or a backup would: so the next backup stores it again. A writer's key
cannot look into content blocks, so of a damaged pack it can only tell what may be concerned. """

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from backupd.errors import Damaged, Interrupted, ObjectMissing
from backupd.operations import audit_objects
from backupd.operations.audit_memory import BYTES, CONTENT, Memory
from backupd.operations.audit_objects import THREADS, Copies, Room
from backupd.operations.audit_report import Finding, Level, Severity
from backupd.operations.counting import count
from backupd.operations.events import Advance, Observer
from backupd.operations.messages import MessageStore
from backupd.repository import index, names, recipe
from backupd.repository.block import Kind
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.index_cache import cut
from backupd.repository.keys import Role
from backupd.repository.pack_writer import PACK_MAGIC
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.storage.base import ObjectInfo
from backupd.storage.parallel import in_order


@dataclass
class Damage:
    """What is known to be damaged. unjoined: ids of messages whose recipes name parts that are not there, or do not
    give them. suspects: ids of blobs that may be damaged, for all this key can tell."""

    findings: list[Finding] = field(default_factory=list)
    unjoined: set[bytes] = field(default_factory=set)
    suspects: set[bytes] = field(default_factory=set)
    objects: int = 0
    octets: int = 0
    joined: int = 0
    references: int = 0


class _Verdict(NamedTuple):
    """What became of one pack. read: octets that were. lost: offsets of blocks that cannot be read."""

    name: str
    read: int = 0
    what: str = ""
    gone: bool = False
    lost: tuple[int, ...] = ()
    unjoined: tuple[bytes, ...] = ()
    suspects: tuple[bytes, ...] = ()
    joined: int = 0


class PackAudit:
    """Looks at index and packs.

    Args:
        there: all objects, as they are listed.
        share: names of the packs that are read this time.
        level: of the audit.
        copies: whom to ask for a good object.
    """

    def __init__(
        self,
        repository: Repository,
        there: Mapping[str, ObjectInfo],
        share: Collection[str],
        level: Level,
        copies: Copies,
        memory: Memory,
        observer: Observer,
        stop: threading.Event,
    ) -> None:
        self._repository, self._storage, self._there = repository, repository.storage, there
        self._share, self._copies, self._memory = frozenset(share), copies, memory
        self._bytes, self._content = level.includes(Level.STORAGE), level.includes(Level.CONTENT)
        self._reader = repository.secrets.role is Role.READER
        self._store, self._room = MessageStore(repository), Room()
        self._observer, self._stop = observer, stop
        self._deep = self._content and self._reader
        self.damage = Damage()
        self.described: set[str] = set()
        self.missing: set[str] = set()

    def run(self) -> None:
        """One pass over the index, and over the packs of the share with it."""
        lost = self._repository.index.lost()
        for _, verdict in in_order(self._prove, self._entries(), threads=THREADS):
            self._settle(verdict)
        if self._repository.index.lost() != lost:
            # From now on the cache leaves out what was found to be lost, and knows of others that have the same.
            self._repository.rebuild()
            self.damage.unjoined = {each for each in self.damage.unjoined if not self._can_be_read(each)}
        if self.damage.suspects:
            self._suspect()

    def _suspect(self) -> None:
        """Of what may be damaged, leave what is somewhere else, too; and take in messages that are joined from it."""
        bad = {bytes.fromhex(each.subject[-64:]) for each in self.damage.findings if _is_pack(each.subject)}
        suspects = {
            blob for blob in self.damage.suspects if all(pack in bad for pack, _ in self._repository.index.homes(blob))
        }
        for entry in self.entries():
            for (blob_id, kind), parts in zip(_blobs(entry), entry.parts_of_blobs(), strict=True):
                if kind == BlobKind.RECIPE and not suspects.isdisjoint(cut(parts)):
                    suspects.add(blob_id)
        self.damage.suspects = suspects

    def _can_be_read(self, message: bytes) -> bool:
        """Whether a message can be joined, for all that this key can tell."""
        if not self._reader:
            return self._repository.index.is_whole(message)
        try:
            _, data = self._repository.read(message)
            return self._store.identify(data) == message
        except (Damaged, ObjectMissing):
            return False

    # The index

    def _entries(self) -> Iterator[PackEntry]:
        """What the index says of each pack that is looked into, once."""
        for entry in self.entries(count=True):
            name = names.pack(entry.name.hex())
            if name in self.described:
                continue
            self.described.add(name)
            self.damage.references += len(entry.blocks)
            info = self._there.get(name)
            if info is None:
                self.missing.add(name)
            elif info.size != entry.size and not (self._bytes and name in self._share):
                what = f"it has {info.size:,} octets, and the index says {entry.size:,}"
                self._bad(name, what, level=Level.METADATA)
            elif not _is_covered(entry):
                self._bad(name, "the index does not tell of all its blocks", level=Level.METADATA)
            self._look_for_parts(entry)
            if info is not None and ((self._bytes and name in self._share) or (self._reader and _is_unknown(entry))):
                yield entry

    def _look_for_parts(self, entry: PackEntry) -> None:
        """Whether the parts are there that the recipes in a pack name, as the index tells of them."""
        recipes = [
            (blob_id, cut(parts))
            for (blob_id, kind), parts in zip(_blobs(entry), entry.parts_of_blobs(), strict=True)
            if kind == BlobKind.RECIPE and parts
        ]
        lacking = self._repository.index.lacking(part for _, parts in recipes for part in parts)
        self.damage.references += sum(len(parts) for _, parts in recipes)
        for blob_id, parts in recipes if lacking else ():
            # Another pack may have the message by other parts.
            if not lacking.isdisjoint(parts) and not self._repository.index.is_whole(blob_id):
                self.damage.unjoined.add(blob_id)

    def entries(self, *, count: bool = False) -> Iterator[PackEntry]:
        """All that the index says of packs, one index object in memory at a time. count: judge the objects, too."""
        for name in [name for name in self._there if name.startswith(names.INDEX)]:
            self._go_on()
            found = audit_objects.read(self._storage, name)
            if found.gone or found.data is None or not found.good:
                if count and not found.gone:
                    self._bad(name, found.what)
                continue
            try:
                packs = index.unseal(found.data, self._repository.secrets, name)
            except Damaged as error:
                if count:
                    self._bad(name, error.what)
                continue
            if count:
                self._count(name, len(found.data))
                self._memory.prove(BYTES, name)
            yield from packs

    # Packs

    def _prove(self, entry: PackEntry) -> _Verdict:
        if self._stop.is_set():
            return _Verdict(names.pack(entry.name.hex()))
        name = names.pack(entry.name.hex())
        return self._prove_bytes(entry) if self._bytes and name in self._share else self._prove_parts(entry)

    def _prove_parts(self, entry: PackEntry) -> _Verdict:
        """Whether the parts are there of recipes that the index does not tell the parts of."""
        unknown = (
            blob_id
            for (blob_id, kind), parts in zip(_blobs(entry), entry.parts_of_blobs(), strict=True)
            if kind == BlobKind.RECIPE and parts is None
        )
        unjoined = [blob_id for blob_id in unknown if not self._has_parts(blob_id)]
        return _Verdict(names.pack(entry.name.hex()), unjoined=tuple(unjoined))

    def _has_parts(self, blob_id: bytes) -> bool:
        try:
            _, data = self._repository.read(blob_id)
            return self._are_there(data)
        except (Damaged, ObjectMissing):
            return False

    def _are_there(self, data: bytes | memoryview) -> bool:
        """Raises Damaged for what is no recipe."""
        pieces = recipe.decode(data, "a recipe")
        parts = [blob for piece in pieces if not isinstance(piece, recipe.Literal) for blob in piece.blobs]
        return all(self._repository.has(blob) for blob in parts)

    def _prove_bytes(self, entry: PackEntry) -> _Verdict:
        name = names.pack(entry.name.hex())
        with self._room.hold(entry.size):
            found = audit_objects.read(self._storage, name)
            if found.data is None:
                lost = () if found.gone else tuple(block.offset for block in entry.blocks)
                return _Verdict(name, what=found.what, gone=found.gone, lost=lost)
            verdict = _Verdict(name, len(found.data), found.what)
            if found.good and not (self._reader and (self._content or _is_unknown(entry))):
                return verdict
            return self._look_into(entry, memoryview(found.data), verdict)

    def _look_into(self, entry: PackEntry, data: memoryview, verdict: _Verdict) -> _Verdict:
        """Open the blocks as far as the key and the level go; all it can, in a pack that is damaged."""
        lost, unjoined, suspects, joined, first = [], [], [], 0, 0
        for block in entry.blocks:
            expected = list(_blobs(entry, first, first + block.blobs))
            first += block.blobs
            if not verdict.what and not self._content and all(kind != BlobKind.RECIPE for _, kind in expected):
                continue
            if block.kind == Kind.CONTENT and not self._reader:
                suspects += [blob_id for blob_id, _ in expected]
                continue
            try:
                unjoined += self._look_into_block(entry, block, data, expected)
                joined += len(expected)
            except Damaged:
                lost.append(block.offset)
        what = verdict.what or ("blocks in it cannot be read" if lost else "")
        return verdict._replace(
            what=what, lost=tuple(lost), unjoined=tuple(unjoined), suspects=tuple(suspects), joined=joined
        )

    def _look_into_block(
        self, entry: PackEntry, block: BlockEntry, data: memoryview, expected: Sequence[tuple[bytes, int]]
    ) -> list[bytes]:
        """Ids of messages that a block's recipes do not give. Raises Damaged where it is not what the index says."""
        blobs = self._repository.open_block(entry.name, block.offset, data[block.offset : block.offset + block.length])
        if [kind for kind, _, _ in blobs] != [kind for _, kind in expected]:
            raise Damaged("a block holds other blobs than the index says")
        unjoined = []
        for (blob_id, _), (kind, blob, identity) in zip(expected, blobs, strict=True):
            if kind is not BlobKind.RECIPE:
                if identity != blob_id:
                    raise Damaged("a blob is not what its id says")
            elif not self._gives(blob, blob_id):
                unjoined.append(blob_id)
        return unjoined

    def _gives(self, data: memoryview, message: bytes) -> bool:
        """Whether a recipe can be joined, and at the level of content, whether it gives the message."""
        try:
            if self._store.identify(data) == message if self._deep else self._are_there(data):
                return True
        except (Damaged, ObjectMissing):
            pass
        return self._is_elsewhere(data, message)

    def _is_elsewhere(self, data: memoryview, message: bytes) -> bool:
        """Whether another recipe gives the message: its parts may have been stored anew, and it with them."""
        try:
            _, other = self._repository.read(message)
            return other != data and self._store.identify(other) == message
        except (Damaged, ObjectMissing):
            return False

    def _settle(self, verdict: _Verdict) -> None:
        self._go_on()
        name, damage = verdict.name, self.damage
        if verdict.gone:
            self.missing.add(name)
            return
        damage.unjoined.update(verdict.unjoined)
        damage.suspects.update(verdict.suspects)
        damage.joined += verdict.joined if self._deep else 0
        for offset in verdict.lost:
            self._repository.index.mark_lost(bytes.fromhex(name[-64:]), offset)
        if verdict.read:
            self._count(name, verdict.read)
        if verdict.what:
            self._bad(name, verdict.what)
            self._memory.unprove([name])
            return
        if verdict.read:
            self._memory.prove(BYTES, name)
        if verdict.read and self._deep and not verdict.unjoined:
            self._memory.prove(CONTENT, name)

    # What came of it

    def rescan(self) -> None:
        """Look once more for messages whose parts are not there, in all packs: some have been found to be lost."""

        def unknown() -> Iterator[PackEntry]:
            for entry in self.entries():
                self._look_for_parts(entry)
                if self._reader and _is_unknown(entry):
                    yield entry

        for _, verdict in in_order(self._prove_parts, unknown(), threads=THREADS):
            self._go_on()
            self.damage.unjoined.update(verdict.unjoined)

    def judge_missing(self) -> None:
        """Say of packs that are missing whether what they held is somewhere else."""
        needed = set()
        if self.missing:
            for entry in self.entries():
                name = names.pack(entry.name.hex())
                if name in self.missing and not all(
                    self._repository.has(blob_id) for blob_id, _ in _blobs(entry)
                ):
                    needed.add(name)
        for name in sorted(needed):
            self._bad(name, "it is missing, and the index wants it", level=Level.METADATA)
        if others := len(self.missing - needed):
            packs = count(others, "pack that the index tells of is", "packs that the index tells of are")
            what = f"{packs} not there; what was in there is in others"
            self.damage.findings.append(Finding(Severity.NOTE, Level.METADATA, self._storage.url, what))

    def _bad(self, name: str, what: str, *, level: Level = Level.STORAGE) -> None:
        found = self._copies.finding(name, what)
        level = Level.METADATA if name.startswith(names.INDEX) else level
        self.damage.findings.append(Finding(found.severity, level, name, what, found.remedy))

    def _count(self, name: str, octets: int) -> None:
        self.damage.objects += 1
        self.damage.octets += octets
        self._observer(Advance(self._storage.url, name, 1, octets))

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise interrupted(self._storage.url)


def interrupted(url: str) -> Interrupted:
    """What an audit that was stopped says."""
    return Interrupted("stopped", subject=url, remedy="what was proved is remembered, and the next audit goes on")


def _is_pack(name: str) -> bool:
    return name.startswith(names.PACKS)


def _blobs(entry: PackEntry, first: int = 0, last: int | None = None) -> Iterator[tuple[bytes, int]]:
    """(id, kind) of blobs of a pack, by their numbers."""
    numbers = range(first, len(entry.kinds) if last is None else last)
    return ((entry.ids[32 * number : 32 * number + 32], entry.kinds[number]) for number in numbers)


def _is_unknown(entry: PackEntry) -> bool:
    """Whether there are recipes in a pack that the index does not tell the parts of."""
    return any(parts is None for parts in entry.parts_of_blobs())


def _is_covered(entry: PackEntry) -> bool:
    """Whether the blocks fill the pack without gaps."""
    position = len(PACK_MAGIC)
    for block in sorted(entry.blocks, key=lambda each: each.offset):
        if block.offset != position:
            return False
        position += block.length
    return position == entry.size


