"""Erasing: gone from every snapshot, nothing else with it, and nothing brings it back."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.errors import Erased, Forbidden, StorageUnavailable, UsageError, WrongKey
from backupd.mail.query import parse
from backupd.operations import hold, look
from backupd.operations.audit import Means, audit
from backupd.operations.audit_report import Level, Wish
from backupd.operations.backup import backup, pull
from backupd.operations.copy import copy
from backupd.operations.erase import erase
from backupd.operations.erase_report import EraseReport
from backupd.operations.forget import forget_snapshots
from backupd.operations.import_mail import import_mail
from backupd.operations.messages import MessageStore
from backupd.operations.prune import prune
from backupd.operations.restore import restore
from backupd.operations.state import State
from backupd.repository import names, segments
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository, create
from tests.operations.conftest import CHEAP, Backup
from tests.support import archive
from tests.support.archive import Box, Mail
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.memory_target import MemoryTarget
from tests.support.opened import blobs, contains
from tests.support.reading import contents, newest
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_pop3 import SimulatedPop3
from tests.support.simulated_store import SimulatedStore

NOW = datetime(2030, 6, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ANN = "from:ann@example.com"
SIZES = Sizes(block=20_000, pack=100_000)
SHARED = Attachment("shared.bin", noise("shared", 5000))
OWN = Attachment("private.bin", noise("own", 5000))

Erase = Callable[..., EraseReport]


class Locked(MemoryStorage):
    """ends: until when objects are locked, of those that are."""

    seconds = 10 * DAY.total_seconds()

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, datetime] = {}

    @property
    def locks(self) -> Locked:  # type: ignore[override]
        return self

    def until(self, name: str) -> datetime | None:
        return self.ends.get(name)

    def extend(self, name: str, until: datetime) -> None:
        self.ends[name] = until


def of_ann(number: int, *, attachments: tuple[Attachment, ...] = ()) -> bytes:
    return message(
        f"secret-subject {number}", f"secret-text {number}\r\n", sender="Ann <ann@example.com>", attachments=attachments
    )


def of_others(number: int, *, attachments: tuple[Attachment, ...] = ()) -> bytes:
    return message(f"Others {number}", noise(number, 300).hex(), sender="joann@example.com", attachments=attachments)


@pytest.fixture
def repository(storage: MemoryStorage, secrets: Secrets):  # type: ignore[no-untyped-def]
    with Repository(storage, secrets, sizes=SIZES) as repository:
        yield repository


@pytest.fixture
def mixed(take: Backup, account: SimulatedAccount) -> None:
    """Two snapshots in which mail of Ann lies between that of others, in the same blocks."""
    account.create(b"Work")
    for number in range(8):
        account.append(b"INBOX", of_others(number), of_ann(number))
    account.append(b"Work", of_ann(100, attachments=(SHARED, OWN)), of_others(100, attachments=(SHARED,)))
    take()
    account.append(b"INBOX", of_others(200), of_ann(200))
    take()


@pytest.fixture
def gone(repository: Repository) -> Erase:
    """gone() erases what is of Ann; keyword arguments go to erase()."""

    def gone(query: str = ANN, *accounts: str, **options: object) -> EraseReport:
        options = {"reason": "asked to", "now": NOW, **options}
        return erase(repository, parse(query), accounts, **options)  # type: ignore[arg-type]

    return gone


def pruned(repository: Repository, *, first: datetime = NOW, **options: object) -> None:
    """What is superfluous is removed."""
    for number in range(3):
        report = prune(repository, now=first + (2 * number + 1) * DAY, sizes=SIZES, **options)  # type: ignore[arg-type]
        assert (report.hindrances, report.damaged) == ([], [])


def others(account: SimulatedAccount) -> dict[bytes, dict[int, bytes]]:
    """What of the account's mail is not Ann's."""
    return {
        name: {uid: raw for uid, (raw, _, _) in box.items() if b"Ann <" not in raw}
        for name, box in account.contents().items()
    }


def readable(repository: Repository) -> dict[bytes, dict[int, bytes]]:
    """What can be read of the newest snapshot; all else must have been erased."""
    store, found, reasons = MessageStore(repository), dict[bytes, dict[int, bytes]](), set[str]()
    for record in newest(repository).mailboxes:
        box = found.setdefault(record.mailbox.raw_name, {})
        for segment in record.segments:
            for row, _ in segments.read(repository, segment):
                try:
                    box[row.uid] = store.load(row.message)  # type: ignore[assignment]
                except Erased as error:
                    reasons.add(error.what)
    assert all(each.endswith(": asked to") for each in reasons)
    return found


# -- what goes, and what stays -----------------------------------------------------------------------------------------


def test_what_is_erased_is_in_no_object_after_prunes_and_all_else_is_as_it_was(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    ids = {secrets.content_id(raw) for box in account.contents().values() for raw, _, _ in box.values()}
    assert contains(storage, secrets, b"secret-text")

    report = gone()
    assert (report.messages, report.snapshots, report.accounts) == (10, 2, ["alice"])
    assert report.goes > 8 * len(of_ann(1)) + len(OWN.content)  # and what lists show, but not what others have too
    assert report.goes < report.octets
    assert readable(repository) == others(account)

    pruned(repository, max_unused=1.0)
    assert not contains(storage, secrets, b"secret")
    assert not contains(storage, secrets, OWN.content)
    assert contains(storage, secrets, SHARED.content)  # another message has it too
    assert not contains(storage, secrets, b"ann@example.com>")
    kept = {secrets.content_id(blob) for _, blob in blobs(storage, secrets)}
    assert len(ids & kept) == 9  # the others of INBOX; those with files are recipes
    assert readable(repository) == others(account)
    assert [line.erased for line in look.snapshots(repository)] == [9, 10]


def test_a_writer_prunes_what_a_reader_has_erased(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    gone()
    with Repository(storage, secrets.for_role(Role.WRITER), sizes=SIZES) as writers:
        pruned(writers, max_unused=1.0)
    assert not contains(storage, secrets, b"secret")
    repository.refresh()
    assert readable(repository) == others(account)


@pytest.mark.parametrize(
    ("query", "uids"),
    [
        ("with:carl@example.com", {1}), ("with:@example.net", {2}), ('text:"Carl Friedrich"', {3}),
        ("with:carl@example.com OR text:carl -subject:copy", {3}), ("text:carl in:Work", set()),
    ],
)  # fmt: skip
def test_whoever_is_only_in_copy_or_in_the_text_is_found_too(
    take: Backup, account: SimulatedAccount, gone: Erase, repository: Repository, query: str, uids: set[int]
) -> None:
    account.create(b"Work")
    account.append(
        b"INBOX",
        b"Cc: Bob <bob@example.com>,\r\n Carl <carl@example.com>\r\n" + message("A copy", "x\r\n"),
        b"Bcc: eve@example.net\r\n" + message("Hidden", "y\r\n"),
        message("In the text", "about Carl\r\nFriedrich\r\n", attachments=(Attachment("a", noise("a", 50_000)),)),
    )
    account.append(b"Work", message("At work", "z\r\n"))
    take()
    report = gone(query)
    assert (report.messages, report.unread) == (len(uids), [])
    assert {name: set(box) for name, box in readable(repository).items()} == {b"INBOX": {1, 2, 3} - uids, b"Work": {1}}


def test_a_message_that_cannot_be_read_is_told_of_and_those_that_can_are_erased(
    storage: MemoryStorage, repository: Repository
) -> None:
    lost = message("Lost", "secret\r\n")
    repository.put(repository.secrets.content_id(lost), BlobKind.PLAIN, lost)
    repository.flush()
    (pack,) = (name for name in storage.objects if name.startswith(names.PACKS))
    archive.put(repository, {b"INBOX": Box({1: Mail(lost), 2: Mail(message("Found", "secret\r\n"))})})
    storage.objects[pack] = bytes(len(storage.objects[pack]))
    with Repository(storage, repository.secrets) as another:
        report = erase(another, parse("text:secret"), reason="asked to", now=NOW)
        assert report.messages == 1
        assert report.unread == ["1 message of which what the query asks for cannot be read"]
        by_subject = erase(another, parse("subject:lost"), reason="asked to", now=NOW)
        assert (by_subject.messages, by_subject.unread) == (1, []), "what lists show is enough to find it"


def test_lists_say_what_is_missing_and_why(mixed: None, gone: Erase, repository: Repository) -> None:
    before = {
        line.id: line for record in newest(repository).mailboxes for line in archive.listed(repository, record)
    }
    gone()
    boxes = look.mailboxes(newest(repository), repository)
    assert [(line.path, line.erased) for line in boxes] == [("INBOX", 9), ("Work", 1)]
    for record in newest(repository).mailboxes:
        for line in archive.listed(repository, record):
            if before[line.id].from_ == "Ann <ann@example.com>":
                assert (line.from_, line.to, line.subject, line.attachments) == (None, None, None, None)
                assert line.erased is not None
                assert (line.erased.reason, line.erased.on[:10]) == ("asked to", "2030-06-01")
            else:
                assert line == before[line.id]


def test_a_restore_leaves_it_out_and_says_how_many(
    mixed: None, gone: Erase, repository: Repository, account: SimulatedAccount, state: State
) -> None:
    gone()
    target = MemoryTarget(repository.secrets.fingerprint)
    for dry_run in (True, False):
        report = restore(repository, repository.refs()[-1], target.open, state=state, dry_run=dry_run)
        assert sum(each.erased for each in report.mailboxes) == 10
        assert (report.problems, sum(each.refused for each in report.mailboxes)) == ([], 0)
    assert {name: [raw for raw, _, _ in box] for name, box in target.boxes.items()} == {
        name: list(box.values()) for name, box in others(account).items()
    }
    again = restore(repository, repository.refs()[-1], target.open, state=state)
    assert sum(each.written for each in again.mailboxes) == 0


@pytest.mark.parametrize("role", [Role.READER, Role.WRITER])
@pytest.mark.parametrize("after", ["erase", "prune"])
def test_audits_are_content_with_it_and_say_how_many(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets, role: Role, after: str
) -> None:
    gone()
    if after == "prune":
        pruned(repository)
    level = Level.DRILL if role is Role.READER else Level.STORAGE
    wish = Wish(level, {"alice": None})
    means = Means(None, lambda: NOW + 9 * DAY)
    report = audit(storage, lambda: Repository(storage, secrets.for_role(role)), wish, means)
    assert [each for each in report.findings if each.severity.value in ("warning", "critical")] == []
    assert any("10 messages were taken out of these snapshots" in each.what for each in report.findings)
    assert report.affected == []


def test_messages_that_are_gone_from_every_snapshot_that_is_left_are_erased_too(
    take: Backup, gone: Erase, repository: Repository, account: SimulatedAccount, storage: MemoryStorage,
    secrets: Secrets,
) -> None:  # fmt: skip
    """Their lists still have them, and what lists show of them."""
    for number in range(6):
        account.append(b"INBOX", of_others(number), of_ann(number))
    take()
    account.expunge(b"INBOX", 2, 4)
    take()
    forget_snapshots(repository, repository.refs()[:1], now=NOW)
    report = gone()
    assert (report.messages, report.snapshots) == (6, 1)
    pruned(repository)
    assert not contains(storage, secrets, b"secret")


def test_what_was_forgotten_before_and_still_lies_beside_other_mail_goes_too(
    take: Backup, gone: Erase, repository: Repository, account: SimulatedAccount, storage: MemoryStorage,
    secrets: Secrets,
) -> None:  # fmt: skip
    """No list has it, so nothing but its own header, and what lists showed once, tells whose it is."""
    account.append(b"INBOX", of_others(0), of_ann(0), *(of_others(number) for number in range(1, 4)))
    take()
    account.append(b"INBOX", of_ann(1, attachments=(SHARED, OWN)), *(of_others(number) for number in range(4, 6)))
    take()
    account.expunge(b"INBOX", 2, 6)
    account.create(b"Other")
    account.append(b"Other", of_others(100, attachments=(SHARED,)))
    take()
    account.reset(b"INBOX")  # its lists are written anew, without those
    take()
    forget_snapshots(repository, repository.refs()[:3], now=NOW)
    for number in range(3):
        prune(repository, now=NOW + number * DAY, max_unused=1.0, sizes=SIZES)
    assert contains(storage, secrets, b"secret")

    report = gone(now=NOW + 3 * DAY)
    assert (report.messages, report.unlisted) == (0, 2)
    pruned(repository, first=NOW + 4 * DAY, max_unused=1.0)
    assert not contains(storage, secrets, b"secret")
    assert not contains(storage, secrets, OWN.content)
    assert readable(repository) == others(account)


def test_what_a_killed_run_left_behind_goes_when_it_is_found(
    mixed: None, gone: Erase, take: Backup, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount, tmp_path: Path,
) -> None:  # fmt: skip
    account.create(b"Other")
    account.append(b"Other", of_ann(3), of_others(800))

    def dies(name: str) -> None:
        if name.startswith((names.INDEX, names.SNAPSHOTS)):
            raise StorageUnavailable("dead")

    elsewhere = State(tmp_path / "elsewhere")
    storage.before_put = dies
    with Repository(storage, secrets, sizes=SIZES) as killed, pytest.raises(StorageUnavailable):
        backup(killed, account, "alice", state=elsewhere)
    elsewhere.close()
    storage.before_put = lambda _name: None
    gone()
    take()  # which takes up the pack that no index tells of
    gone(dry_run=True)
    erase(repository, None, now=NOW)
    pruned(repository, max_unused=1.0)
    assert not contains(storage, secrets, b"secret")
    assert readable(repository) == others(account)


def test_what_is_in_no_list_stays_where_it_may_be_mail_that_is_held(
    take: Backup, gone: Erase, repository: Repository, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", *(of_others(number) for number in range(4)))
    take()
    repository.put(repository.secrets.content_id(of_ann(1)), BlobKind.PLAIN, of_ann(1))
    repository.put(repository.secrets.content_id(of_others(9)), BlobKind.PLAIN, of_others(9))
    repository.flush()
    hold.add(repository, "alice", ["alice"], reason="a lawsuit", now=NOW)
    assert gone(dry_run=True).unlisted == 0
    assert gone(f"{ANN} in:INBOX", dry_run=True, now=NOW).unlisted == 0
    hold.remove(repository, hold.listed(repository, now=NOW).holds[0].id, now=NOW)
    assert gone(f"{ANN} in:INBOX", dry_run=True).unlisted == 0
    assert gone(ANN, "alice", dry_run=True).unlisted == 0
    assert gone(dry_run=True).unlisted == 1


def test_what_another_account_has_too_is_erased_there_and_told(
    mixed: None, gone: Erase, repository: Repository, state: State
) -> None:
    bob = SimulatedAccount()
    bob.append(b"INBOX", of_ann(3), message("Bob's own"))
    backup(repository, bob, "bob", state=state)
    report = gone(ANN, "alice")
    assert report.accounts == ["alice", "bob"]
    assert [line.erased for line in look.snapshots(repository, "bob")] == [1]


def test_a_message_that_another_one_carries_stays_as_its_part(
    take: Backup, gone: Erase, repository: Repository, account: SimulatedAccount, storage: MemoryStorage,
    secrets: Secrets,
) -> None:  # fmt: skip
    """Its bytes are those of the part, and so is its id: neither may be taken for the other."""
    original = of_ann(1) + b"x" * 2000
    carrier = message("See below", attachments=[Attachment("it.eml", original, "application/octet-stream")])
    account.append(b"INBOX", original, carrier)
    take()
    assert gone().messages == 1
    pruned(repository)
    assert readable(repository)[b"INBOX"] == {2: carrier}
    # And a part comes in although a message of its id is erased.
    account.append(b"INBOX", message("Again", attachments=[Attachment("x", original), Attachment("y", b"z" * 3000)]))
    take()
    pruned(repository, first=NOW + 20 * DAY)
    assert set(readable(repository)[b"INBOX"]) == {2, 3}


# -- it does not come back ---------------------------------------------------------------------------------------------


def test_what_stands_on_the_server_is_neither_downloaded_nor_stored_again(
    mixed: None, gone: Erase, take: Backup, repository: Repository, account: SimulatedAccount, storage: MemoryStorage,
    secrets: Secrets,
) -> None:  # fmt: skip
    gone()
    pruned(repository)
    account.fetched.clear()
    assert take().snapshot is None
    account.append(b"INBOX", of_others(300))
    take()
    assert len(account.fetched) == 1

    # In another mailbox, where nothing tells what it is before it is downloaded: once.
    account.create(b"Other")
    account.append(b"Other", of_ann(3), of_ann(100, attachments=(SHARED, OWN)))
    take()
    assert len(account.fetched) == 3
    take()
    assert len(account.fetched) == 3
    assert not contains(storage, secrets, b"secret")
    assert not contains(storage, secrets, OWN.content)
    assert readable(repository)[b"Other"] == {}

    # After a UIDVALIDITY reset it is recognised as what it is.
    account.reset(b"Other")
    take()
    assert len(account.fetched) == 3
    assert not contains(storage, secrets, b"secret")


def test_a_large_message_does_not_come_back_either(
    take: Backup, repository: Repository, account: SimulatedAccount, storage: MemoryStorage, secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("backupd.operations.messages.IN_MEMORY", 1000)

    class Large:
        def __init__(self, raw: bytes) -> None:
            self._raw, self.size = raw, len(raw)

        def chunks(self):  # type: ignore[no-untyped-def]
            return iter([self._raw])

    raw = of_ann(1, attachments=(OWN,))
    account.append(b"INBOX", raw)
    take()
    erase(repository, parse(ANN), reason="asked to", now=NOW)
    pruned(repository)
    stored = MessageStore(repository).store(Large(raw))
    repository.flush()
    assert stored.erased
    assert not contains(storage, secrets, OWN.content)


def test_neither_a_pull_nor_an_import_brings_it_back(
    mixed: None, gone: Erase, repository: Repository, state: State, storage: MemoryStorage, secrets: Secrets
) -> None:
    gone()
    pruned(repository)
    server, computer = SimulatedPop3(), SimulatedStore()
    server.put(of_ann(1), of_others(700))
    computer.put("Filed", of_ann(2), of_ann(100, attachments=(SHARED, OWN)), of_others(701))
    pull(repository, server, "bob", state=state)
    import_mail(repository, computer, "bob", state=state)
    assert not contains(storage, secrets, b"secret")
    assert not contains(storage, secrets, OWN.content)
    boxes = look.mailboxes(newest(repository, "bob"), repository)
    assert [(line.path, line.messages, line.erased) for line in boxes] == [("INBOX", 2, 1), ("Filed", 3, 2)]
    # And once more: it is known, and stays away.
    assert pull(repository, server, "bob", state=state).snapshot is None
    assert import_mail(repository, computer, "bob", state=state).new == 0


def test_what_is_erased_is_not_deleted_from_a_pop3_server(
    repository: Repository, state: State, gone: Erase
) -> None:
    """delete_after deletes what the snapshots keep, and of this they keep nothing."""
    server = SimulatedPop3()
    server.put(of_ann(1), of_others(1))
    took = pull(repository, server, "bob", state=state, clock=lambda: NOW)
    assert took.complete
    gone()
    pull(repository, server, "bob", state=state, clock=lambda: NOW + 30 * DAY, delete_after=DAY)
    assert [raw for _, raw in server.mail] == [of_ann(1)]


def test_a_repository_that_is_open_for_long_notices_what_others_erase(
    mixed: None, take: Backup, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    with Repository(storage, secrets, sizes=SIZES) as elsewhere:
        erase(elsewhere, parse(ANN), reason="asked to", now=NOW)
        pruned(elsewhere)
    account.create(b"Other")
    account.append(b"Other", of_ann(3))
    report = take()
    assert not any("lost" in note for note in report.notes)
    assert not contains(storage, secrets, b"secret")
    account.append(b"Other", of_others(400))
    take()
    assert readable(repository) == others(account)


def test_a_damaged_repository_is_not_mended_with_it(
    mixed: None, gone: Erase, take: Backup, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    """A pack is lost: the next backup stores anew what it held, and of that only what is not erased."""
    gone()
    pruned(repository)
    for name in [name for name in storage.objects if name.startswith(names.PACKS)]:
        del storage.objects[name]
    account.append(b"INBOX", of_others(500))
    take()
    assert readable(repository) == others(account)
    assert not contains(storage, secrets, b"secret")


def test_a_copy_learns_of_it_and_its_own_prune_removes_it(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    second = MemoryStorage()
    second.url = "memory:second"
    copy(storage, second)
    gone()
    pruned(repository)
    copy(storage, second)
    with Repository(second, secrets, sizes=SIZES) as theirs:
        assert readable(theirs) == others(account)
        assert contains(second, secrets, b"secret")
        pruned(theirs)
        assert readable(theirs) == others(account)
    assert not contains(second, secrets, b"secret")


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("until", [None, NOW + 30 * DAY])
def test_what_a_hold_keeps_is_refused_and_it_says_until_when(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, whole: bool, until: datetime | None
) -> None:
    first = repository.refs()[0]
    text = "alice" if whole else first.id
    line = hold.add(repository, text, ["alice"], reason="a lawsuit", until=until, now=NOW)
    before = dict(storage.objects)
    with pytest.raises(Forbidden) as caught:
        gone()
    assert storage.objects == before
    assert line.id[-8:] in str(caught.value)
    assert ("2030-07-01" if until else "until somebody ends that") in str(caught.value)

    dry = gone(dry_run=True)
    assert (dry.forbidden, dry.messages, dry.until) == (10 if whole else 9, 0 if whole else 1, until)
    assert storage.objects == before
    report = gone(what_is_allowed=True)
    assert (report.messages, report.forbidden) == (dry.messages, dry.forbidden)
    held = contents(repository, repository.snapshot(first))
    assert sum(b"Ann <" in raw for box in held.values() for raw, _, _ in box.values()) == 9

    hold.remove(repository, line.id, now=NOW)
    assert gone().messages == dry.forbidden


def test_a_refusal_by_one_hold_says_that_there_are_others(mixed: None, gone: Erase, repository: Repository) -> None:
    first, second = repository.refs()
    held = hold.add(repository, first.id, ["alice"], reason="a lawsuit", until=NOW + 30 * DAY, now=NOW)
    hold.add(repository, second.id, ["alice"], reason="another one", until=NOW + 10 * DAY, now=NOW)
    both = r"until 2030-07-01 00:00 UTC, and others keep some of them, too \(1\)"
    with pytest.raises(Forbidden, match=both) as caught:
        gone()
    assert held.id[-8:] in str(caught.value)


def test_a_hold_that_is_over_or_of_another_account_forbids_nothing(
    mixed: None, gone: Erase, repository: Repository
) -> None:
    hold.add(repository, "alice", ["alice"], reason="over", until=NOW - DAY, now=NOW - 2 * DAY)
    hold.add(repository, "bob", ["bob"], reason="another", now=NOW)
    assert gone().messages == 10


def test_a_message_that_a_held_snapshot_does_not_list_any_more_is_not_kept_by_it(
    take: Backup, gone: Erase, repository: Repository, account: SimulatedAccount
) -> None:
    account.append(b"INBOX", *(of_others(number) for number in range(4)), of_ann(1))
    take()
    account.expunge(b"INBOX", 5)
    take()
    hold.add(repository, repository.refs()[-1].id, ["alice"], reason="a lawsuit", now=NOW)
    assert gone().messages == 1


def test_what_lies_in_locked_objects_is_refused_until_the_lock_ends(
    account: SimulatedAccount, state: State, tmp_path: Path
) -> None:
    vault = Locked()
    secrets = create(vault, "a passphrase", argon2=CHEAP)
    with Repository(vault, secrets, sizes=SIZES) as repository:
        account.append(b"INBOX", of_others(1), of_ann(1))
        backup(repository, account, "alice", state=state)
        packs = [name for name in vault.objects if name.startswith(names.PACKS)]
        for name in packs:
            vault.ends[name] = NOW + 10 * DAY
        before = dict(vault.objects)
        with pytest.raises(Forbidden, match="2030-06-11") as caught:
            erase(repository, parse(ANN), reason="asked to", now=NOW)
        assert packs[0] in str(caught.value)
        assert vault.objects == before
        assert erase(repository, parse(ANN), now=NOW, dry_run=True).until == NOW + 10 * DAY
        partly = erase(repository, parse(ANN), reason="asked to", now=NOW, what_is_allowed=True)
        assert (partly.messages, partly.forbidden, partly.erasure) == (0, 1, "")

        report = erase(repository, parse(ANN), reason="asked to", now=NOW, although_locked=True)
        assert (report.messages, report.forbidden) == (1, 0)
        assert readable(repository)[b"INBOX"].keys() == {1}
        for days in (1, 3, 5):
            locked = prune(repository, now=NOW + days * DAY, sizes=SIZES)
        assert locked.locked_until == NOW + 10 * DAY
        assert contains(vault, secrets, b"secret")
        pruned(repository, first=NOW + 10 * DAY)
        assert not contains(vault, secrets, b"secret")


def test_it_takes_a_readers_key_a_reason_and_a_query_that_means_something(
    mixed: None, gone: Erase, storage: MemoryStorage, secrets: Secrets
) -> None:
    with Repository(storage, secrets.for_role(Role.WRITER)) as writers, pytest.raises(WrongKey):
        erase(writers, parse(ANN), reason="asked to", now=NOW)
    for reason in ("", "  ", "x" * 2001):
        with pytest.raises(UsageError, match="--reason"):
            gone(reason=reason)
    before = dict(storage.objects)
    assert gone("from:nobody@example.com").messages == 0
    dry = gone(dry_run=True, reason="")
    assert (dry.messages, dry.erasure) == (10, "")
    assert {each.sender for each in dry.shown} == {"Ann <ann@example.com>"}
    assert storage.objects == before


# -- crashes, and others at the same time ------------------------------------------------------------------------------


def test_wherever_it_dies_all_others_stay_and_the_same_command_completes_it(
    mixed: None, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    original = dict(storage.objects)
    for last in range(20):
        storage.objects = dict(original)
        left = last

        def dies(_name: str) -> None:
            nonlocal left
            if left == 0:
                raise StorageUnavailable("dead")
            left -= 1

        storage.before_put = dies
        with Repository(storage, secrets, sizes=SIZES) as repository:
            try:
                erase(repository, parse(ANN), reason="asked to", now=NOW)
                died = False
            except StorageUnavailable:
                died = True
        storage.before_put = lambda _name: None
        with Repository(storage, secrets, sizes=SIZES) as repository:
            found = readable(repository)
            for name, box in others(account).items():
                assert box.items() <= found[name].items()
            erase(repository, parse(ANN), reason="asked to", now=NOW + DAY)
            with Repository(storage, secrets.for_role(Role.WRITER), sizes=SIZES) as writers:
                pruned(writers)
            repository.refresh()
            assert readable(repository) == others(account)
        assert not contains(storage, secrets, b"secret")
        if not died:
            break
    assert last > 3


def test_two_erasures_at_the_same_time_leave_nothing_of_either(
    mixed: None, storage: MemoryStorage, secrets: Secrets, account: SimulatedAccount
) -> None:
    """Each writes the lists anew as it found them, so each has what the other one erased, until the last looks."""
    with Repository(storage, secrets, sizes=SIZES) as first, Repository(storage, secrets, sizes=SIZES) as second:
        began = False

        def between(name: str) -> None:
            nonlocal began
            if name.startswith(names.ERASURES) and not began:
                began = True
                erase(second, parse("subject:others -in:Work"), reason="asked to", now=NOW + DAY / 24)

        storage.before_put = between
        report = erase(first, parse(ANN), reason="asked to", now=NOW)
        assert report.messages == 10
        assert first.erased.look().forks() == []
        pruned(first)
        assert not contains(storage, secrets, b"secret")
        assert {name: list(box) for name, box in readable(first).items()} == {b"INBOX": [], b"Work": [2]}
        shown = [line.subject for line in archive.listed(first, newest(first).mailboxes[1])]
    assert shown == [None, "Others 100"]
    assert sum(b"Others" in blob for _, blob in blobs(storage, secrets)) == 2  # the one that is left, and its envelope


def test_a_run_that_was_under_way_brings_it_in_once_more_and_finishing_takes_that_out(
    mixed: None, take: Backup, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    account: SimulatedAccount,
) -> None:  # fmt: skip
    account.create(b"Other")
    account.append(b"Other", of_others(600), of_ann(3))
    with Repository(storage, secrets, sizes=SIZES) as elsewhere:

        def meanwhile(_name: bytes, uid: int) -> None:
            account.on_message = lambda _name, _uid: None
            erase(elsewhere, parse(ANN), reason="asked to", now=NOW)

        repository.flush()
        account.on_message = meanwhile
        take()
    with Repository(storage, secrets, sizes=SIZES) as reader:
        erase(reader, None, now=NOW + DAY)
        pruned(reader)
        assert readable(reader) == others(account)
    assert not contains(storage, secrets, b"secret")


def test_a_prune_with_a_readers_key_parts_what_shares_a_block_by_itself(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    with monkeypatch.context() as patch:
        patch.setattr("backupd.repository.condemning.store_anew", lambda *_: 0)
        gone()
    with Repository(storage, secrets.for_role(Role.WRITER), sizes=SIZES) as writers:
        (what,) = prune(writers, now=NOW, sizes=SIZES).hindrances
        assert "backupd erase --finish" in what
    pruned(repository)
    assert not contains(storage, secrets, b"secret")


def test_as_long_as_an_erasure_cannot_be_read_nothing_is_removed(
    mixed: None, gone: Erase, repository: Repository, storage: MemoryStorage, secrets: Secrets
) -> None:
    gone()
    (name,) = (name for name in storage.objects if name.startswith(names.ERASURES))
    storage.objects[name] = storage.objects[name][:-1] + b"x"
    with Repository(storage, secrets, sizes=SIZES) as opened:
        report = prune(opened, now=NOW, sizes=SIZES)
        assert any(name in what for what in report.hindrances)
        assert report.unneeded == 0
        wish, means = Wish(Level.METADATA, {"alice": None}), Means(None, lambda: NOW)
        found = audit(storage, lambda: Repository(storage, secrets), wish, means).findings
        assert any(each.subject == name and each.severity.value == "critical" for each in found)
