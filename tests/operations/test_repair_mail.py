"""What a key adds to a repair: lost messages come from the server again, the index from packs, and what stays lost is
told exactly."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

import pytest

from backupd.errors import ConnectionFailed, Damaged, Interrupted, ObjectMissing, StorageDenied, StorageFull
from backupd.mail.headers import readable
from backupd.operations.audit import Means, Wish, audit
from backupd.operations.audit_report import Level
from backupd.operations.audit_source import Servers
from backupd.operations.look import Lines
from backupd.operations.messages import MessageStore
from backupd.operations.repair import RepairReport, repair
from backupd.operations.repair_report import PACKS, SERVER
from backupd.operations.selection import Selection
from backupd.repository import erasures, mending, names, runs, segments
from backupd.repository.keys import Role, Secrets
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope
from backupd.storage.base import Storage
from tests.operations.conftest import Backup
from tests.support.mail import Attachment, message, nasty_mail, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount

Repair = Callable[..., RepairReport]
PARTS = [Attachment("a.bin", noise(1, 3_000))]


@pytest.fixture
def backed_up(take: Backup, account: SimulatedAccount, storage: MemoryStorage) -> dict[str, bytes]:
    """Two snapshots, each with a pack of its own; all objects as they are to be."""
    account.create(b"Work")
    account.append(b"INBOX", message("Odd"), *nasty_mail().values(), message("With a file", attachments=PARTS))
    take()
    account.append(b"Work", *(message(f"Work {number}") for number in range(5)), flags=(b"\\Seen",))
    account.append(b"Work", message("Forwarded", attachments=PARTS))
    take()
    return dict(storage.objects)


@pytest.fixture
def mend(storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount) -> Repair:
    """mend() repairs with the account's server at hand; role: of the key; server: None: offline."""

    def mend(*, role: Role = Role.READER, server: SimulatedAccount | None = account, **options: object) -> RepairReport:
        def opened(where: Storage) -> Repository:
            return Repository(where, secrets.for_role(role))

        servers = Servers(lambda _name: server, lambda _name: None, lambda _name: Selection()) if server else None
        return repair(storage, [], opened, accounts=["alice"], servers=servers, **options)  # type: ignore[arg-type]

    return mend


def packs(storage: MemoryStorage, secrets: Secrets) -> list[str]:
    """Packs of the first snapshot, then of the second."""
    with Repository(storage, secrets) as repository:
        first = repository.snapshot(repository.refs()[0])
        inbox = first.mailboxes[0].segments[0].membership
        (name,) = {names.pack(pack.hex()) for pack in repository.packs_of([inbox])}
    return [name, *(each for each in sorted(storage.objects) if each.startswith(names.PACKS) and each != name)]


def flip(storage: MemoryStorage, name: str, share: float = 0.5) -> None:
    """One bit in the middle, or elsewhere."""
    data = bytearray(storage.objects[name])
    data[int(len(data) * share)] ^= 1
    storage.objects[name] = bytes(data)


def content_block(storage: MemoryStorage, name: str) -> float:
    """Where in a pack its first block is, which holds messages, as a share."""
    return 1_400 / len(storage.objects[name])


def all_of(storage: MemoryStorage, secrets: Secrets) -> list[object]:
    """Everything in all snapshots, read without any cache."""
    with Repository(storage, secrets) as repository:
        return [contents(repository, repository.snapshot(ref)) for ref in repository.refs()]


def findings(storage: MemoryStorage, secrets: Secrets) -> list[str]:
    """What an audit of all content says."""
    wish, means = Wish(Level.CONTENT, {"alice": None}), Means(None, lambda: datetime.now(UTC))
    report = audit(storage, lambda: Repository(storage, secrets), wish, means)
    return [f"{each.subject}: {each.what}" for each in report.findings]


def test_where_nothing_is_amiss_no_server_is_asked(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, account: SimulatedAccount
) -> None:
    before = account.opened
    report = mend()
    assert (report.is_whole, report.damaged, report.fetched, report.mended) == (True, 0, [], [])
    assert account.opened == before
    assert storage.objects == backed_up


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER])
def test_messages_of_a_damaged_pack_are_fetched_again_and_every_snapshot_is_whole(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, role: Role
) -> None:
    whole = all_of(storage, secrets)
    (pack, *_) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))

    report = mend(role=role)

    assert report.is_whole
    assert report.damaged == sum(each.messages for each in report.fetched) > 0
    assert [(each.object, each.source) for each in report.mended] == [(pack, SERVER)]
    assert pack not in storage.objects
    assert all_of(storage, secrets) == whole
    assert findings(storage, secrets) == []
    again = mend(role=role)
    assert (again.is_whole, again.mended, again.damaged) == (True, [], 0)


def test_only_what_is_lost_is_downloaded(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", message("New, and in no snapshot yet"))
    flip(storage, packs(storage, secrets)[1], content_block(storage, packs(storage, secrets)[1]))
    account.fetched.clear()
    report = mend()
    assert {name for name, _ in account.fetched} == {b"Work"}
    assert len(account.fetched) == report.damaged


def test_what_the_server_has_no_longer_stays_lost_and_is_named(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    account.expunge(b"Work", 2)
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))

    report = mend()

    assert not report.is_whole
    (lost,) = [each for each in report.affected if not each.restorable]
    with Repository(storage, secrets) as repository:
        snapshot = newest(repository)
        (ref,) = repository.refs()[1:]
    assert (lost.account, lost.mailbox, lost.uid, lost.snapshots) == ("alice", "Work", 2, [ref.id])
    assert [each.object for each in report.lost] == [pack]
    assert sum(each.messages for each in report.fetched) == report.damaged - 1
    assert snapshot.messages
    # Nothing is worse than before: what could be read still can.
    assert mend().affected == report.affected


def test_a_message_under_the_same_number_that_is_another_one_heals_nothing(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    before = len(storage.objects)
    for box in account.boxes.values():
        for each in box.messages.values():
            each.raw = each.raw.replace(b"Subject: ", b"Subject: not ")
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    report = mend()
    assert report.fetched == []
    assert any("other bytes" in note for note in report.notes)
    assert len(storage.objects) == before


@pytest.mark.parametrize("server_ids", [True, False])
def test_what_was_moved_and_renumbered_since_is_found(
    take: Backup, mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount, server_ids: bool
) -> None:
    account.server_ids = server_ids
    account.create(b"Work")
    account.create(b"Old")
    account.append(b"INBOX", *(message(f"Message {number}") for number in range(6)))
    take()
    whole = all_of(storage, secrets)
    account.move(b"INBOX", b"Old", 1, 2)
    account.reset(b"INBOX", first_uid=100)
    account.rename(b"Old", b"Older")
    (pack,) = [name for name in storage.objects if name.startswith(names.PACKS)]
    flip(storage, pack, content_block(storage, pack))
    report = mend()
    assert report.is_whole
    assert all_of(storage, secrets) == whole


def test_lists_of_what_was_lost_too_show_it_again(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    before = mend(server=None).affected
    assert before
    assert mend().is_whole
    with Repository(storage, secrets) as repository:
        record = next(each for each in newest(repository).mailboxes if each.mailbox.raw_name == b"Work")
        rows = [row for segment in record.segments for row, _ in segments.read(repository, segment)]
        subjects = [readable(Lines(repository).envelope(row).subject) for row in rows]
    assert subjects == [*(f"Work {number}" for number in range(5)), "Forwarded"]


def test_a_dry_run_says_what_would_come_back_downloads_nothing_and_changes_nothing(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    account.expunge(b"Work", 2)
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    damaged = dict(storage.objects)
    account.fetched.clear()
    planned = mend(dry_run=True)
    assert storage.objects == damaged
    assert account.fetched == []
    done = mend()
    assert planned.fetched == done.fetched
    assert planned.damaged == done.damaged
    assert [each.uid for each in planned.affected if not each.restorable] == [2]


def test_a_server_that_cannot_be_reached_is_a_note(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))

    def refuse() -> None:
        raise ConnectionFailed("no answer", subject="simulated.example", remedy="check the network")

    monkeypatch.setattr(account, "open", refuse)
    report = mend()
    assert not report.is_whole
    assert [note for note in report.notes if "no answer" in note and note.startswith("alice: ")]


def test_a_connection_that_is_cut_is_opened_again_and_a_message_that_is_refused_stays_lost(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("backupd.operations.session_pool.PAUSES", (0.0, 0.0))
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    account.deadly[b"Work", 3] = 1
    account.unreadable[b"Work", 5] = "broken there, too"
    report = mend()
    assert {each.uid for each in report.affected if not each.restorable} == {5}
    assert any("broken there, too" in note for note in report.notes)


def test_what_was_fetched_before_it_is_stopped_stays(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    (_, pack) = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    stop = threading.Event()
    account.on_message = lambda _name, uid: stop.set() if uid == 3 else None
    with pytest.raises(Interrupted):
        mend(stop=stop)
    account.fetched.clear()
    account.on_message = lambda _name, _uid: None
    assert mend().is_whole
    assert 0 < len(account.fetched) < 6


def test_a_snapshot_that_is_lost_is_named_with_its_account(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage
) -> None:
    (first, _) = sorted(name for name in storage.objects if name.startswith(names.SNAPSHOTS))
    flip(storage, first)
    report = mend()
    assert [(each.object, each.account) for each in report.lost] == [(first, "alice")]
    assert (report.is_whole, report.affected, report.damaged) == (False, [], 0)


# -- the index -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["removed", "damaged"])
def test_index_objects_are_made_anew_from_packs(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, harm: str
) -> None:
    whole = all_of(storage, secrets)
    indexes = [name for name in storage.objects if name.startswith(names.INDEX)]
    for name in indexes:
        if harm == "removed":
            del storage.objects[name]
        else:
            flip(storage, name)
    planned = mend(dry_run=True, server=None)
    report = mend(server=None)
    assert planned.indexed == report.indexed == 2
    assert (planned.is_whole, report.is_whole, report.damaged) == (True, True, 0)
    assert {each.object: each.source for each in report.mended} == (
        {} if harm == "removed" else dict.fromkeys(indexes, PACKS)
    )
    assert not set(indexes) & storage.objects.keys()
    assert all_of(storage, secrets) == whole
    assert findings(storage, secrets) == []


def test_a_writer_cannot_index_packs_and_says_so(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage
) -> None:
    for name in [name for name in storage.objects if name.startswith(names.INDEX)]:
        flip(storage, name)
    damaged = dict(storage.objects)
    report = mend(role=Role.WRITER, server=None)
    assert not report.is_whole
    assert all(not each.certain for each in report.affected)
    assert {each.uid for each in report.affected if each.mailbox == "Work"} == set(range(1, 7))
    assert any("reader" in note for note in report.notes)
    assert damaged.items() <= storage.objects.items()


def test_packs_in_each_others_place_are_told_apart_again(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    whole = all_of(storage, secrets)
    first, second = packs(storage, secrets)
    storage.objects[first], storage.objects[second] = storage.objects[second], storage.objects[first]
    report = mend(server=None)
    assert (report.is_whole, report.damaged, {each.source for each in report.mended}) == (True, 0, {PACKS})
    assert all_of(storage, secrets) == whole
    assert findings(storage, secrets) == []


def test_what_stands_behind_octets_too_many_is_found(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    whole = all_of(storage, secrets)
    (pack, _) = packs(storage, secrets)
    for place in (8, len(storage.objects[pack])):
        storage.objects[pack] = backed_up[pack][:place] + b"some more" + backed_up[pack][place:]
        assert mend(server=None).is_whole
        assert all_of(storage, secrets) == whole
        assert storage.objects == backed_up


def test_a_writer_without_an_index_has_the_server_give_everything_again(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    whole = all_of(storage, secrets)
    for name in [name for name in storage.objects if name.startswith(names.INDEX)]:
        del storage.objects[name]
    before = set(storage.objects)
    report = mend(role=Role.WRITER)
    assert report.is_whole
    assert any("reader" in note for note in report.notes)
    assert before <= storage.objects.keys()  # for a reader to index
    unindexed = {name for name in before if name.startswith(names.PACKS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "objects", {name: storage.objects[name] for name in storage.objects.keys() - unindexed})
        assert all_of(storage, secrets) == whole
    assert mend().indexed == len(unindexed)


def test_what_can_be_read_of_a_damaged_pack_that_no_index_describes_is_saved(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    for name in [name for name in storage.objects if name.startswith(names.INDEX)]:
        del storage.objects[name]
    there = (name for name in storage.objects if name.startswith(names.PACKS))
    pack = max(there, key=lambda name: len(storage.objects[name]))
    flip(storage, pack, content_block(storage, pack))
    report = mend()
    assert report.is_whole
    assert findings(storage, secrets) == []


# -- crashes and rights ------------------------------------------------------------------------------------------------


def test_wherever_it_is_killed_nothing_is_worse_and_the_next_one_ends_it(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets
) -> None:
    whole = all_of(storage, secrets)
    pack, other = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))
    flip(storage, next(name for name in storage.objects if name.startswith(names.INDEX)))
    damaged = dict(storage.objects)
    readable_before = len(readable_messages(storage, secrets))

    for survived in range(100):
        storage.objects = dict(damaged)
        left = [survived]

        def count(name: str, left: list[int] = left) -> None:
            if not left[0]:
                raise StorageFull("killed", subject=name)
            left[0] -= 1

        storage.before_put = count
        plain = MemoryStorage.delete.__get__(storage)
        storage.delete = lambda name, plain=plain, count=count: (count(name), plain(name))[1]  # type: ignore[method-assign]
        try:
            mend()
            ended = True
        except StorageFull:
            ended = False
        storage.before_put, storage.delete = lambda _name: None, plain  # type: ignore[method-assign]
        assert len(readable_messages(storage, secrets)) >= readable_before
        assert mend().is_whole
        assert all_of(storage, secrets) == whole
        assert findings(storage, secrets) == []
        if ended:
            break
    assert 4 < survived < 100
    assert other in storage.objects


def readable_messages(storage: MemoryStorage, secrets: Secrets) -> set[bytes]:
    """Ids of all messages of all snapshots that can be read."""
    found = set()
    with Repository(storage, secrets) as repository:
        store = MessageStore(repository)
        health = mending.examine(repository)
        mending.adopt(repository, health.unindexed, store.identify, store=False)
        for ref in repository.refs():
            for segment in (segment for record in repository.snapshot(ref).mailboxes for segment in record.segments):
                with suppress(Damaged, ObjectMissing):
                    rows = [row for row, _ in segments.read(repository, segment)]
                    found |= {row.message for row in rows if is_readable(store, row.message)}
    return found


def is_readable(store: MessageStore, message: bytes) -> bool:
    try:
        store.load(message)
    except (Damaged, ObjectMissing):
        return False
    return True


def test_who_may_not_remove_is_told_what_is_superfluous(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = all_of(storage, secrets)
    pack, _ = packs(storage, secrets)
    flip(storage, pack, content_block(storage, pack))

    def denied(name: str) -> None:
        raise StorageDenied("not allowed", subject=name)

    monkeypatch.setattr(storage, "delete", denied)
    report = mend()
    assert [each.object for each in report.lost] == [pack]
    assert report.affected == []
    assert any("may not remove" in note for note in report.notes)
    assert all_of(storage, secrets) == whole


# -- what was erased ---------------------------------------------------------------------------------------------------


def test_what_was_erased_is_not_lost_and_not_fetched_again(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    (_, pack) = packs(storage, secrets)
    erased = erase_first_of_work(storage, secrets)
    for name in storage.objects.keys() - backed_up.keys():  # the lists without it are lost, too
        if name.startswith(names.PACKS):
            del storage.objects[name]
    flip(storage, pack, content_block(storage, pack))
    account.fetched.clear()
    report = mend()
    assert report.is_whole
    assert (b"Work", 1) not in account.fetched
    assert len(account.fetched) == report.damaged > 0
    with Repository(storage, secrets) as repository:
        assert not repository.has(erased)


def test_as_long_as_an_erasure_cannot_be_read_no_server_is_asked(
    backed_up: dict[str, bytes], mend: Repair, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    (_, pack) = packs(storage, secrets)
    erase_first_of_work(storage, secrets)
    flip(storage, next(name for name in storage.objects if name.startswith(names.ERASURES)))
    flip(storage, pack, content_block(storage, pack))
    before = account.opened
    report = mend()
    assert account.opened == before
    assert not report.is_whole
    assert any("must not come back" in note for note in report.notes)


def erase_first_of_work(storage: MemoryStorage, secrets: Secrets) -> bytes:
    """Say that the message was erased; its id. What is stored stays for now, as before a prune."""
    with Repository(storage, secrets) as repository:
        record = next(each for each in newest(repository).mailboxes if each.mailbox.raw_name == b"Work")
        row, _ = next(iter(segments.read(repository, record.segments[0])))
        shown = runs.decode_envelopes(repository.get_run(row.envelopes, BlobKind.ENVELOPES), "x")
        shown[row.envelope] = Envelope()
        instead = {row.envelopes: repository.put_run(BlobKind.ENVELOPES, runs.encode_envelopes(shown))}
        repository.flush()
        made = erasures.make(datetime.now(UTC).isoformat(), "asked for", [row.message], instead)
        identifier, data = erasures.seal(made, secrets, os.urandom)
        storage.put(names.erasure(identifier), [data])
    return row.message
