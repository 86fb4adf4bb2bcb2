"""A small repository with a past, harms of every kind to its objects, and the truth about what each harm costs.

The truth is found by trying to restore every message, and shares nothing with the audit but the reading of blobs.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from backupd.errors import Damaged, Erased, ObjectMissing
from backupd.mail.query import parse
from backupd.operations import hold
from backupd.operations.backup import backup
from backupd.operations.erase import erase
from backupd.operations.forget import forget_snapshots
from backupd.operations.messages import MessageStore
from backupd.operations.prune import LEAST_GRACE, prune
from backupd.operations.record import begin
from backupd.operations.record_export import Export
from backupd.operations.state import State
from backupd.repository import marks, mending, names, needs, parity, segments
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.parity_storage import has_parity
from backupd.repository.repository import Repository, create, unlock
from backupd.repository.segments import Segment
from backupd.repository.slots import Argon2
from backupd.repository.snapshots import timestamp
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

PASSPHRASE = "correct horse battery"
CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)
NOON = datetime(2026, 11, 1, 12, tzinfo=UTC)
ACCOUNTS = ("alice", "bob")
_SMALL = Sizes(block=4_000, pack=16_000)

KINDS = ("bit", "cut", "empty", "longer", "swapped", "removed", "copied", "forged", "replayed", "replaced")
"""What is done to an object: one bit flipped; its end cut off; all of it; octets appended; exchanged with another one;
removed; its bytes stored once more under another name; a name that was made up, with bytes that were; an object of the
past put back; the bytes of an object of the past, or of another repository, in its place."""

_PREFIXES = {
    "pack": names.PACKS,
    "index": names.INDEX,
    "snapshot": names.SNAPSHOTS,
    "hold": names.HOLDS,
    "key slot": names.KEYS,
    "repository.json": names.DESCRIPTION,
    "mark": names.MARKS,
    "need": names.NEEDS,
    "erasure": names.ERASURES,
    "record": names.LOG,
    "parity": names.PARITY,
}
OBJECTS = tuple(_PREFIXES)


@dataclass(frozen=True)
class Repo:
    """objects: as they are now. past: objects that were there once, and have been removed since. foreign: of another
    repository. accounts: the mail servers, as they are after the last backup. parity: of all objects that have some,
    which are harmed without it but where it is harmed itself. exported: the record's last entries, before any harm."""

    objects: dict[str, bytes]
    past: dict[str, bytes]
    foreign: dict[str, bytes]
    secrets: Secrets
    accounts: dict[str, SimulatedAccount]
    parity: dict[str, bytes]
    exported: Export

    def open(self, objects: Mapping[str, bytes]) -> MemoryStorage:
        storage = MemoryStorage()
        storage.objects = dict(objects)
        return storage


class _Remembering(MemoryStorage):
    """Keeps what was ever stored."""

    def __init__(self) -> None:
        super().__init__()
        self.ever: dict[str, bytes] = {}

    def delete(self, name: str) -> None:
        if name in self.objects:
            self.ever[name] = self.objects[name]
        super().delete(name)


def build(folder: Path, seed: int = 1) -> Repo:
    """Two accounts, some ten snapshots, packs that were merged, keys that were rotated: every kind of object, and a
    past of every kind. folder: for the state of the machine that made the backups.
    """
    storage, other = _Remembering(), MemoryStorage()
    create(other, PASSPHRASE, argon2=CHEAP)
    secrets = create(storage, PASSPHRASE, argon2=CHEAP)
    with closing(State(folder)) as state, Repository(storage, secrets, sizes=_SMALL) as repository:
        repository.add_slot("office", "another passphrase", Role.WRITER, argon2=CHEAP)
        repository.rotate_slot("office", "yet another passphrase", argon2=CHEAP)
        accounts = _fill(repository, state, random.Random(seed))
        heads = [each.hex() for each in state.record_heads(begin(repository, state, NOON).number)]
    key = secrets.record_public_key.hex()
    exported = Export(1, secrets.repository.hex(), key, heads, timestamp(NOON + timedelta(days=5)))
    protected = {
        names.parity(name): encoded(name, data, 5) for name, data in storage.objects.items() if has_parity(name)
    }
    return Repo(storage.objects, storage.ever, other.objects, secrets, accounts, protected, exported)


@cache
def encoded(name: str, data: bytes, per_cent: int) -> bytes:
    """The parity of an object."""
    # Real packs and index objects are far above the size of those that are stored twice, all others below.
    whole = 0 if name.startswith((names.PACKS, names.INDEX)) else 1 << 20
    return b"".join(parity.encode([data], per_cent, whole=whole))


def _fill(repository: Repository, state: State, chance: random.Random) -> dict[str, SimulatedAccount]:
    accounts = {name: SimulatedAccount() for name in ACCOUNTS}
    for number, account in enumerate(accounts.values()):
        account.create(b"Work")
        account.append(b"Work", *(_mail(chance, f"{number} old {each}") for each in range(6)))
    for day in range(5):
        time = NOON + day * timedelta(days=1)
        for number, (name, account) in enumerate(accounts.items()):
            time += timedelta(minutes=5)
            account.append(b"INBOX", *(_mail(chance, f"{number} {day} {each}") for each in range(5)))
            if day:
                account.flag(b"INBOX", 4 * day, b"\\Seen")
                account.expunge(b"INBOX", 4 * day + 1)
            backup(repository, account, name, state=state, clock=lambda: time)  # noqa: B023 called at once
        if day == 1:
            forget_snapshots(repository, repository.refs("bob")[:1], state=state, now=time)
        if day in (2, 3):
            erase(repository, parse(f'subject:"1 {day} 1"'), reason="on request", state=state, now=time)
        if day:
            prune(repository, state=state, now=time, grace=LEAST_GRACE, fewest=2, sizes=_SMALL)
    for reason in ("a dispute", "another one"):
        kept = repository.refs("alice")[0]
        hold.add(repository, kept.id, ACCOUNTS, reason=reason, state=state, now=time)
    for marked in marks.read(repository.storage):
        needs.put(repository.storage, marked.name, marked.mark.objects[:2], time)
    return accounts


def _mail(chance: random.Random, subject: str) -> bytes:
    attached = chance.random() < 0.4
    attachments = [Attachment("a.bin", noise(chance.randrange(8), 1_500 + chance.randrange(1_500)))] if attached else []
    return message(subject, size=chance.randrange(200, 1_500), attachments=attachments)


# -- harm --------------------------------------------------------------------------------------------------------------


class Harm(NamedTuple):
    """kind: of KINDS; object: of OBJECTS; what: for people."""

    kind: str
    object: str
    what: str
    objects: dict[str, bytes]


def harm(repo: Repo, chance: random.Random, kind: str, sort: str) -> Harm | None:
    """One harm of a kind to one object of a sort; None where there is no such thing."""
    objects = repo.objects | (repo.parity if sort == "parity" else {})
    before = dict(objects)
    there = sorted(name for name in objects if name.startswith(_PREFIXES[sort]))
    name = chance.choice(there)
    data = objects[name]
    place = chance.randrange(len(data))
    match kind:
        case "bit":
            objects[name] = data[:place] + bytes([data[place] ^ 1 << chance.randrange(8)]) + data[place + 1 :]
        case "cut":
            objects[name] = data[:place]
        case "empty":
            objects[name] = b""
        case "longer":
            objects[name] = data + chance.randbytes(chance.randint(1, 40))
        case "swapped":
            same = chance.random() < 0.7
            another = chance.choice([each for each in objects if each != name and (not same or each in there)] or [""])
            if not another or objects[another] == data:
                return None
            objects[name], objects[another] = objects[another], data
        case "removed":
            del objects[name]
        case "copied":
            objects[_made_up(chance, sort, name)] = data
        case "forged":
            objects[_made_up(chance, sort, name)] = chance.randbytes(chance.randint(1, 400))
        case "replayed":
            past = sorted(each for each in repo.past if each.startswith(_PREFIXES[sort]) and each not in objects)
            if not past:
                return None
            name = chance.choice(past)
            objects[name] = repo.past[name]
        case "replaced":
            from_where = chance.choice([repo.past, repo.foreign])
            old = sorted(each for each in from_where if each.startswith(_PREFIXES[sort]))
            if not old or from_where[old[0]] == data:
                return None
            objects[name] = from_where[chance.choice(old)]
    return Harm(kind, sort, f"{kind} {name} at {place}", objects) if objects != before else None


def _made_up(chance: random.Random, sort: str, name: str) -> str:
    """A name that looks right."""
    digits = f"{chance.getrandbits(256):064x}"
    match sort:
        case "pack":
            return names.pack(digits)
        case "index":
            return names.index(digits)
        case "snapshot":
            folder, _, own = name.rpartition("/")
            return f"{folder}/{own[:-8]}{digits[:8]}"
        case "key slot":
            return f"{name[:-13]}{digits[:8]}.json"
        case "mark" | "need" | "hold" | "erasure" | "record":
            return f"{name[:-8]}{digits[:8]}"
        case "parity":
            return names.parity(names.pack(digits))
    return f"repository-{digits[:8]}.json"


# -- truth -------------------------------------------------------------------------------------------------------------

Place = tuple[str, str, str, int]
"""A message in a snapshot: the snapshot's object, account, mailbox, UID."""


def readable(repo: Repo, objects: Mapping[str, bytes]) -> Iterator[Place]:
    """All that can be restored, by trying."""
    return (place for place, is_there in listed(repo, objects) if is_there)


def listed(repo: Repo, objects: Mapping[str, bytes]) -> Iterator[tuple[Place, bool]]:
    """All that snapshots list, as far as they can be read, and whether it can be restored."""
    storage = repo.open(objects)
    with Repository(storage, unlock(storage, PASSPHRASE)) as repository:
        store, known = MessageStore(repository), dict[bytes, bool]()
        stretches: dict[tuple[bytes, bytes], list[tuple[int, bytes]]] = {}
        health = mending.examine(repository)
        if health.unindexed:
            mending.adopt(repository, health.unindexed, store.identify, store=False)
        for ref in repository.refs():
            with suppress(Damaged, ObjectMissing):
                snapshot = repository.snapshot(ref)
                for record in snapshot.mailboxes:
                    for segment in record.segments:
                        key = (segment.membership, segment.state)
                        if key not in stretches:
                            stretches[key] = _messages(repository, segment)
                        for uid, message_id in stretches[key]:
                            if message_id not in known:
                                known[message_id] = _loads(store, message_id)
                            yield (ref.name, snapshot.account, record.mailbox.name, uid), known[message_id]


def _messages(repository: Repository, segment: Segment) -> list[tuple[int, bytes]]:
    try:
        return [(row.uid, row.message) for row, _ in segments.read(repository, segment)]
    except (Damaged, ObjectMissing):
        return []


def _loads(store: MessageStore, message: bytes) -> bool:
    try:
        store.load(message)
    except (Damaged, Erased, ObjectMissing):
        return False
    return True
