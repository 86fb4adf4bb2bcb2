"""The signed record: what is appended when, and what an audit makes of it when somebody has been at the repository."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from backupd.errors import Damaged, Interrupted, StorageDenied, UsageError
from backupd.operations import hold, record, record_export, record_listing
from backupd.operations.audit import Means, Wish, audit
from backupd.operations.audit_report import Finding, Level, Severity
from backupd.operations.copy import copy
from backupd.operations.events import Advance
from backupd.operations.forget import forget, forget_snapshots
from backupd.operations.prune import prune
from backupd.operations.record_check import checker, why_gone
from backupd.operations.record_merge import merge
from backupd.operations.repair import repair
from backupd.operations.retention import Rules
from backupd.operations.state import Run, State
from backupd.repository import names
from backupd.repository import record as entries
from backupd.repository.keys import generate
from backupd.repository.repository import Repository, unlock
from backupd.repository.snapshots import SnapshotRef
from backupd.storage.base import Buffer, ObjectInfo, Storage
from tests.operations.conftest import Backup
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

NOW = datetime(2026, 6, 1, tzinfo=UTC)
LAST = {"alice": Rules(keep_last=1)}


def flip(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def agrees(exported: record_export.Export) -> Finding:
    what = f"the record has all that it had at the export of {exported.time}"
    return Finding(Severity.NOTE, Level.METADATA, names.LOG, what)


class Site:
    """A repository with some snapshots, and who looks at it."""

    def __init__(self, storage: MemoryStorage, repository: Repository, state: State) -> None:
        self.storage, self.repository, self.state = storage, repository, state

    def found(self, state: State | None = None, **options: object) -> list[Finding]:
        """What a new auditor finds, or one with this state."""
        check = checker(state, {"alice": None}, **options)  # type: ignore[arg-type]
        found = check(self.storage, self.repository, deep=True)
        assert found is not None
        return found

    def grave(self, state: State | None = None, **options: object) -> list[tuple[Severity, str]]:
        """The same, without notes: how grave, and about what."""
        found = self.found(state, **options)
        return [(each.severity, each.subject) for each in found if each.severity is not Severity.NOTE]

    @property
    def log(self) -> list[str]:
        return sorted(name for name in self.storage.objects if name.startswith(names.LOG))

    @property
    def snapshots(self) -> list[str]:
        return [ref.name for ref in self.repository.refs()]

    def kinds(self) -> list[str]:
        return [line.kind for line in record_listing.listed(self.repository, {"alice": None})]


@pytest.fixture
def site(
    take: Backup, account: SimulatedAccount, storage: MemoryStorage, repository: Repository, state: State
) -> Site:
    for number in range(3):
        account.append(b"INBOX", message(f"Message {number}"))
        take()
    return Site(storage, repository, state)


# -- what is appended --------------------------------------------------------------------------------------------------


def test_each_snapshot_is_recorded_with_what_its_bytes_are(site: Site) -> None:
    told = [each for name in site.log for octets in entries.cut(site.storage.objects[name], name)
            for each in entries.read(octets, name).entry.adds]  # fmt: skip
    expected = [(name, bytes.fromhex(names.sha256([site.storage.objects[name]]))) for name in site.snapshots]
    assert told == expected
    assert site.kinds() == ["backup"] * 3
    assert site.grave() == []


def test_each_entry_names_the_one_before(site: Site) -> None:
    lines = record_listing.listed(site.repository, {"alice": None})
    assert [line.after for line in lines] == [[], [lines[0].id], [lines[1].id]]
    assert all(line.signed and line.accounts == ["alice"] for line in lines)


def test_a_run_that_finds_nothing_appends_nothing_and_does_not_look(site: Site, take: Backup) -> None:
    before, listed = site.log, list[str]()
    real = site.storage.list

    def listing(prefix: str = "") -> Iterator[ObjectInfo]:
        listed.append(prefix)
        return real(prefix)

    site.storage.list = listing  # type: ignore[method-assign]
    take()
    assert site.log == before
    assert not any(names.LOG.startswith(prefix) for prefix in listed)


def test_a_run_with_news_asks_nothing_of_the_record_and_puts_one_small_object(
    site: Site, take: Backup, account: SimulatedAccount
) -> None:
    before, asked = set(site.log), list[str]()
    real_list, real_get = site.storage.list, site.storage.get

    def listing(prefix: str = "") -> Iterator[ObjectInfo]:
        asked.append(prefix)
        return real_list(prefix)

    def get(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked.append(name)
        return real_get(name, offset, length)

    site.storage.list, site.storage.get = listing, get  # type: ignore[method-assign]
    account.append(b"INBOX", message("One more"))
    take()
    (new,) = set(site.log) - before
    assert len(site.storage.objects[new]) < 600
    assert not any(name.startswith(names.LOG) for name in asked)


def test_what_is_to_be_forgotten_is_recorded_before_it_goes(site: Site) -> None:
    gone: list[list[str]] = []
    real = site.storage.delete

    def delete(name: str) -> None:
        gone.append(site.kinds())
        assert site.grave() == []
        real(name)

    site.storage.delete = delete  # type: ignore[method-assign]
    forget(site.repository, LAST, state=site.state, now=NOW)
    assert [sorted(each) for each in gone] == [["backup"] * 3 + ["forget"]] * 2
    assert sorted(site.kinds()) == ["backup"] * 3 + ["forget", "forgotten"]
    assert site.grave() == []


def test_holds_and_prunes_are_recorded(site: Site) -> None:
    held = hold.add(site.repository, "alice", ["alice"], reason="a secret reason", state=site.state, now=NOW)
    hold.remove(site.repository, held.id, state=site.state, now=NOW)
    prune(site.repository, state=site.state, now=NOW, fewest=2)
    kinds = site.kinds()
    assert {"hold", "release", "prune"} <= set(kinds)
    assert site.grave() == []
    assert not any(b"secret reason" in data or b"alice" in data for data in site.storage.objects.values())
    site.storage.delete(names.hold(held.id))
    assert site.grave() == [(Severity.CRITICAL, names.hold(held.id))]


def test_a_repository_of_before_there_was_a_record_begins_one_with_what_is_there(
    site: Site, take: Backup, state: State
) -> None:
    for name in site.log:
        site.storage.delete(name)
    (note,) = site.found()
    assert (note.severity, note.what) == (Severity.NOTE, "there is no signed record yet; what writes next begins it")
    state._write("UPDATE record_ledger SET name = ?", [("of another repository",)])
    take()
    assert site.kinds() == ["begin"]
    assert site.found() == []
    site.storage.delete(site.snapshots[0])
    assert len(site.grave()) == 1


def test_a_snapshot_whose_machine_died_before_it_could_record_it_is_recorded_by_the_next_run(
    site: Site, take: Backup, account: SimulatedAccount
) -> None:
    def die(name: str) -> None:
        if name.startswith(names.LOG):
            raise StorageDenied("dead")

    site.storage.before_put = die
    account.append(b"INBOX", message("One more"))
    report = take()
    assert any("signed record could not be added to" in note for note in report.notes)
    site.storage.before_put = lambda _name: None
    (note,) = site.found()
    assert note.severity is Severity.NOTE
    assert "without an entry" in note.what
    take()
    assert site.kinds()[-1] == "found"
    assert site.found() == []


# -- what an audit sees ------------------------------------------------------------------------------------------------


def test_a_snapshot_that_was_removed_behind_its_back_is_told_with_its_account(site: Site) -> None:
    name = site.snapshots[1]
    site.storage.delete(name)
    (found,) = site.found()
    assert (found.severity, found.subject, found.account) == (Severity.CRITICAL, name, "alice")
    assert "of nobody who removed it" in found.what


def test_a_forgotten_snapshot_that_was_put_back_is_told(site: Site) -> None:
    name = site.snapshots[0]
    kept = site.storage.objects[name]
    forget_snapshots(site.repository, site.repository.refs()[:1], state=site.state, now=NOW)
    site.storage.objects[name] = kept
    assert site.grave() == [(Severity.WARNING, name)]
    assert site.grave(is_copy=True) == []


def test_a_forget_that_was_interrupted_alarms_nobody_and_is_ended_by_the_next(site: Site) -> None:
    real = site.storage.delete

    def die(name: str) -> None:
        raise StorageDenied("dead", subject=name)

    site.storage.delete = die  # type: ignore[method-assign]
    with pytest.raises(StorageDenied):
        forget(site.repository, LAST, state=site.state, now=NOW)
    assert site.found() == []
    assert "kept" in site.kinds()
    record.append(site.repository, site.state, NOW, "forget", going=site.snapshots[:2])
    real(site.snapshots[0])  # as if it had died between the two
    site.storage.delete = real  # type: ignore[method-assign]
    forget(site.repository, LAST, state=site.state, now=NOW)
    assert site.grave() == []
    ledger = site.state.ledger(f"{site.repository.secrets.repository.hex()} {site.storage.url}")
    assert list(site.state.record_removed(ledger).values()) == [True, True]


def test_a_snapshot_that_an_interrupted_forget_left_is_missed_when_somebody_removes_it(site: Site) -> None:
    """It had been announced, and that would be a licence for anybody."""
    stop = threading.Event()

    def stopping(event: object) -> None:
        if isinstance(event, Advance):
            stop.set()

    with pytest.raises(Interrupted):
        forget(site.repository, LAST, state=site.state, now=NOW, observer=stopping, stop=stop)
    left, _ = site.snapshots
    assert site.found() == []
    assert sorted(site.kinds()) == ["backup"] * 3 + ["forget", "forgotten", "kept"]
    site.storage.delete(left)
    assert site.grave() == site.grave(site.state) == [(Severity.CRITICAL, left)]
    forget(site.repository, LAST, state=site.state, now=NOW + timedelta(days=1))
    assert site.grave() == [(Severity.CRITICAL, left)], "no later forget covers it"
    assert record.accept(site.repository, site.state, NOW + timedelta(days=2), "looked into").gone == [left]
    assert site.grave() == site.grave(site.state) == []


def announced_by_one_who_died(site: Site, name: str) -> None:
    record.append(site.repository, None, NOW, "forget", going=[name])


def test_what_a_machine_that_died_had_announced_is_kept_or_ended_by_the_next_forget(site: Site) -> None:
    first, second, _ = site.snapshots
    announced_by_one_who_died(site, first)
    announced_by_one_who_died(site, second)
    site.storage.delete(first)  # by the machine, before it died, or by anybody: docs/audit.md says so
    keep = {"alice": Rules(keep_last=9)}
    forget(site.repository, keep, state=site.state, now=NOW + timedelta(minutes=1))
    assert "kept" not in site.kinds(), "it may be about to remove it"
    (note,) = site.found(clock=lambda: NOW + timedelta(days=1))
    assert (note.severity, "nobody would miss it" in note.what) == (Severity.NOTE, True)
    forget(site.repository, keep, state=site.state, now=NOW + timedelta(days=1))
    assert site.kinds().count("kept") == 1
    before = site.log
    forget(site.repository, keep, state=site.state, now=NOW + timedelta(days=2))
    assert site.log == before
    assert site.found(clock=lambda: NOW + timedelta(days=2)) == []
    site.storage.delete(second)
    assert site.grave() == [(Severity.CRITICAL, second)]


@pytest.mark.parametrize("whole", [False, True])
def test_what_was_announced_and_is_held_then_is_missed_when_somebody_removes_it(site: Site, whole: bool) -> None:
    name, kept = site.snapshots[0], site.repository.refs()[0]
    announced_by_one_who_died(site, name)
    what = "alice" if whole else kept.id
    hold.add(site.repository, what, ["alice"], reason="a lawsuit", state=site.state, now=NOW)
    assert site.found() == []
    site.storage.delete(name)
    assert site.grave() == [(Severity.CRITICAL, name)]
    forget(site.repository, LAST, state=site.state, now=NOW + timedelta(days=1))
    assert site.grave() == [(Severity.CRITICAL, name)]


def test_a_held_snapshot_that_another_machine_forgot_all_the_same_is_told(site: Site) -> None:
    name, ref = site.snapshots[0], site.repository.refs()[0]
    held = hold.add(site.repository, ref.id, ["alice"], reason="a lawsuit", state=site.state, now=NOW)
    record.append(site.repository, None, NOW, "forget", going=[name])
    site.storage.delete(name)
    record.ended(site.repository, None, NOW, [name])
    (found,) = site.found()
    assert (found.severity, found.subject, found.account) == (Severity.CRITICAL, name, "alice")
    assert "a hold keeps this snapshot" in found.what
    (line,) = hold.listed(site.repository, now=NOW).holds
    assert (line.id, line.state, line.gone) == (held.id, "active", True)
    assert record.accept(site.repository, site.state, NOW, "it was superfluous").gone == [name]
    assert site.found() == []


def test_a_hold_that_came_too_late_is_released_again(site: Site) -> None:
    ref = site.repository.refs()[0]
    real = site.storage.put

    def put(name: str, data: Sequence[Buffer]) -> None:
        real(name, data)
        if name.startswith(names.HOLDS):
            site.storage.delete(ref.name)

    announced_by_one_who_died(site, ref.name)
    site.storage.put = put  # type: ignore[method-assign]
    with pytest.raises(UsageError, match="forgotten while it was to be held"):
        hold.add(site.repository, ref.id, ["alice"], reason="a lawsuit", state=site.state, now=NOW)
    assert site.grave() == []
    assert [line.state for line in hold.listed(site.repository, ended=True, now=NOW).holds] == ["released"]


# -- the newest snapshot, which whoever made the backup remembers ------------------------------------------------------


@pytest.fixture
def newest(site: Site) -> SnapshotRef:
    """That of the last backup on this machine."""
    ref = site.repository.refs()[-1]
    site.state.record(Run("alice", NOW.isoformat(), NOW.isoformat(), "stored", ref.id))
    return ref


def said_of(site: Site, newest: SnapshotRef, level: Level) -> list[tuple[Severity, str]]:
    """What an audit says of the account whose newest snapshot this was."""
    check, why = checker(site.state, {"alice": None}), why_gone(site.state, lambda: NOW)
    means = Means(site.state, lambda: NOW, check_record=check, why_gone=why)

    def opened() -> Repository:
        return Repository(site.storage, unlock(site.storage, "a passphrase"))

    found = audit(site.storage, opened, Wish(level, {"alice": None}), means).findings
    return [(each.severity, each.what) for each in found if each.subject == "alice" and newest.id in each.what]


LEVELS = pytest.mark.parametrize("level", [Level.FRESHNESS, Level.METADATA])


@LEVELS
def test_one_that_was_forgotten_by_name_alarms_nobody(site: Site, newest: SnapshotRef, level: Level) -> None:
    forget_snapshots(site.repository, [newest], now=NOW)  # on another machine
    ((severity, what),) = said_of(site, newest, level)
    assert (severity, "forgotten by name" in what) == (Severity.NOTE, True)


@LEVELS
def test_one_whose_loss_was_accepted_is_told_as_that(site: Site, newest: SnapshotRef, level: Level) -> None:
    site.storage.delete(newest.name)
    assert [severity for severity, _ in said_of(site, newest, level)] == [Severity.CRITICAL]
    record.accept(site.repository, site.state, NOW, "somebody broke in")
    ((severity, what),) = said_of(site, newest, level)
    assert (severity, "somebody has accepted that" in what) == (Severity.NOTE, True)


@LEVELS
def test_one_that_was_only_announced_is_missed(site: Site, newest: SnapshotRef, level: Level) -> None:
    record.append(site.repository, None, NOW - timedelta(days=3), "forget", going=[newest.name])
    site.storage.delete(newest.name)
    assert [severity for severity, _ in said_of(site, newest, level)] == [Severity.CRITICAL]


@LEVELS
def test_one_that_was_kept_after_all_is_missed_even_if_that_entry_is_taken_away(
    site: Site, newest: SnapshotRef, level: Level
) -> None:
    real, before = site.storage.delete, set(site.log)

    def denied(name: str) -> None:
        if name.startswith(names.SNAPSHOTS):
            raise StorageDenied("no", subject=name)
        real(name)

    site.storage.delete = denied  # type: ignore[method-assign]
    with pytest.raises(StorageDenied):
        forget_snapshots(site.repository, [newest], now=NOW)
    site.storage.delete = real  # type: ignore[method-assign]
    for name in set(site.log) - before:
        octets = next(entries.cut(site.storage.objects[name], name))
        if entries.read(octets, name).entry.kind == "kept":
            site.storage.delete(name)
    site.storage.delete(newest.name)
    assert [severity for severity, _ in said_of(site, newest, level)] == [Severity.CRITICAL]


def test_one_that_is_held_is_missed_whoever_forgot_it(site: Site, newest: SnapshotRef) -> None:
    hold.add(site.repository, newest.id, ["alice"], reason="a lawsuit", now=NOW)
    record.append(site.repository, None, NOW, "forget", going=[newest.name])
    site.storage.delete(newest.name)
    record.ended(site.repository, None, NOW, [newest.name])
    assert [severity for severity, _ in said_of(site, newest, Level.FRESHNESS)] == [Severity.CRITICAL]


@LEVELS
def test_a_record_that_cannot_be_asked_excuses_nothing(site: Site, newest: SnapshotRef, level: Level) -> None:
    before = set(site.log)
    forget_snapshots(site.repository, [newest], now=NOW)
    for name in set(site.log) - before:
        site.storage.objects[name] = flip(site.storage.objects[name], 40)
    assert [severity for severity, _ in said_of(site, newest, level)] == [Severity.CRITICAL]
    if level is Level.FRESHNESS:
        real = site.storage.list

        def denied(prefix: str = "") -> Iterator[ObjectInfo]:
            if prefix == names.LOG:
                raise StorageDenied("no listing", subject=names.LOG)
            return real(prefix)

        site.storage.list = denied  # type: ignore[method-assign]
        assert [severity for severity, _ in said_of(site, newest, level)] == [Severity.CRITICAL]


# -- the record itself -------------------------------------------------------------------------------------------------


def test_a_missing_entry_is_told_by_those_that_come_after(site: Site) -> None:
    site.storage.delete(site.log[1])
    found = site.found()
    assert [each.severity for each in found if each.subject == names.LOG] == [Severity.CRITICAL]
    assert "after which others were written" in next(each.what for each in found if each.subject == names.LOG)


@pytest.mark.parametrize("harm", ["flipped", "cut", "empty", "forged", "another's", "longer"])
def test_a_changed_or_forged_piece_is_told(site: Site, harm: str) -> None:
    name = site.log[-1]
    data = site.storage.objects[name]
    octets = next(entries.cut(data, name))
    if harm == "forged":
        forged = octets[:-1] + bytes([octets[-1] ^ 1])
        site.storage.delete(name)
        name, _ = entries.put(site.storage, [forged], NOW)
    elif harm == "another's":
        others = generate(site.repository.secrets.repository, lambda count: bytes(range(count)))
        signed = entries.sign(entries.read(octets, name).entry, others)
        site.storage.delete(name)
        name, _ = entries.put(site.storage, [signed.octets], NOW)
    else:
        harmed = {"flipped": flip(data, 40), "cut": data[:-3], "empty": b"", "longer": data + b"x"}[harm]
        site.storage.objects[name] = harmed
    assert (Severity.CRITICAL, name) in site.grave()


def test_the_newest_entries_taken_away_are_told_by_whoever_has_known_them(site: Site) -> None:
    exported = record_listing.exported(site.repository, site.state, NOW)
    newest, snapshot = site.log[-1], site.snapshots[-1]
    site.storage.delete(newest)
    site.storage.delete(snapshot)
    assert site.grave() == []  # nobody can know: docs/audit.md says so
    assert site.grave(site.state) == [(Severity.CRITICAL, names.LOG), (Severity.CRITICAL, snapshot)]
    assert site.grave(exported=exported) == [(Severity.CRITICAL, names.LOG)]


def test_what_is_gone_from_the_record_is_told_until_somebody_accepts_it(site: Site) -> None:
    assert site.grave(site.state) == []
    site.storage.delete(site.log[-1])
    for _ in range(3):
        assert site.grave(site.state) == [(Severity.CRITICAL, names.LOG)]
        hold.add(site.repository, "alice", ["alice"], reason="one more entry", state=site.state, now=NOW)


@pytest.mark.parametrize("deep", [False, True])
def test_a_piece_that_was_cut_is_told_by_each_audit_until_it_is_accepted(site: Site, deep: bool) -> None:
    assert site.grave(site.state) == []
    name = site.log[0]
    site.storage.objects[name] = site.storage.objects[name][:-40]

    def found() -> list[tuple[Severity, str]]:
        all_found = checker(site.state, {})(site.storage, site.repository, deep=deep) or []
        return [(each.severity, each.subject) for each in all_found if each.severity is not Severity.NOTE]

    for number in range(3):
        assert found() == [(Severity.CRITICAL, name), (Severity.CRITICAL, names.LOG)]
        record.append(site.repository, site.state, NOW, "audit", counts={"n": number})
    accepted = record.accept(site.repository, site.state, NOW, "the disk was full")
    assert (accepted.entries, accepted.pieces) == (1, [name])
    assert found() == site.grave() == []
    newest = site.log[-1]
    site.storage.objects[newest] = site.storage.objects[newest][:-1]
    assert (Severity.CRITICAL, newest) in found(), "what comes afterwards is not accepted with it"


def test_a_piece_that_was_mended_is_believed_again(site: Site) -> None:
    name = site.log[0]
    good = site.storage.objects[name]
    site.storage.objects[name] = b""
    assert len(site.grave(site.state)) == 2
    site.storage.objects[name] = good
    assert site.grave(site.state) == []


def test_an_entry_that_is_in_another_piece_is_not_lost_with_one(site: Site) -> None:
    whole = [octets for name in site.log for octets in entries.cut(site.storage.objects[name], name)]
    name, _ = entries.put(site.storage, whole, NOW)
    assert site.grave(site.state) == []
    site.storage.objects[name] = b""
    assert site.grave(site.state) == [(Severity.CRITICAL, name)]


def test_a_record_that_begins_beside_one_that_cannot_be_read_says_so(site: Site, state: State) -> None:
    for name in site.log:
        site.storage.objects[name] = b""
    state._write("UPDATE record_ledger SET name = ?", [("of another repository",)])
    record.append(site.repository, site.state, NOW, "audit")
    begun, _ = record_listing.listed(site.repository, {})
    assert (begun.kind, begun.counts) == ("begin", {"unreadable": 3})
    assert len(site.grave(site.state)) == 3


@pytest.mark.parametrize("harm", ["removed", "another knew", "cut"])
def test_nothing_is_exported_while_something_is_missing_from_the_record(site: Site, harm: str) -> None:
    exported = record_listing.exported(site.repository, site.state, NOW)
    name = site.log[-1] if harm == "removed" else site.log[0]
    if harm == "cut":
        site.storage.objects[name] = site.storage.objects[name][:-1]
    else:
        site.storage.delete(name)
    state = None if harm == "another knew" else site.state
    with pytest.raises(Damaged, match=r"nothing was exported, .*record accept"):
        record_listing.exported(site.repository, state, NOW)
    record.accept(site.repository, state, NOW + timedelta(days=400), "a disk died")
    later = record_listing.exported(site.repository, state, NOW)
    assert later.heads != exported.heads
    assert site.grave(state, exported=exported) == site.grave(state, exported=later) == []


def test_an_entry_of_an_export_is_missing_when_it_is_gone_although_this_machine_knew_it(site: Site) -> None:
    exported = record_listing.exported(site.repository, site.state, NOW)
    site.storage.delete(site.log[-1])
    told = [each.what for each in site.found(site.state, exported=exported)]
    assert any("by the export, is not in the record" in what for what in told)
    assert not any("has all that it had" in what for what in told)
    record.accept(site.repository, site.state, NOW, "a disk died")
    (note,) = site.found(site.state, exported=exported)
    assert note.what.endswith("but for an entry of the record whose loss was accepted")


def test_a_host_without_a_key_checks_the_record_by_an_export(site: Site, state: State) -> None:
    exported = record_export.parse(record_listing.exported(site.repository, site.state, NOW).text, "a file")
    assert checker(None, {})(site.storage, None, deep=True) is None
    check = checker(None, {}, exported=exported)
    assert check(site.storage, None, deep=True) == [agrees(exported)]
    name = site.snapshots[0]
    site.storage.delete(name)
    first, *others = check(site.storage, None, deep=True) or []
    assert (first.severity, first.subject, first.account) == (Severity.CRITICAL, name, "")
    assert others == [agrees(exported)]


def test_an_export_of_another_repository_is_told(site: Site) -> None:
    exported = record_export.Export(1, "00" * 16, "11" * 32, [], "2026-06-01T00:00:00Z")
    assert site.grave(exported=exported) == [(Severity.CRITICAL, names.LOG)]


@pytest.mark.parametrize("text", ["", "BACKUPD-RECORD-1\nkey 00\n", "{}", "{", "BACKUPD-RECORD-1\nhead x\n", "hello"])
def test_what_is_no_export_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no export of a signed record"):
        record_export.parse(text, "a file")


def test_an_export_is_read_as_text_and_as_json(site: Site) -> None:
    exported = record_listing.exported(site.repository, site.state, NOW)
    assert exported.heads == [record_listing.listed(site.repository, {})[-1].id]
    assert record_export.parse(exported.text, "x") == exported
    assert record_export.parse(msgspec.json.encode(exported).decode(), "x") == exported


# -- what was looked into ----------------------------------------------------------------------------------------------


def test_what_was_looked_into_is_accepted_and_the_reason_stays_to_be_read(site: Site) -> None:
    with pytest.raises(UsageError, match="agree"):
        record.accept(site.repository, site.state, NOW, "none")
    back = site.snapshots[0]
    kept = site.storage.objects[back]
    forget_snapshots(site.repository, site.repository.refs()[:1], state=site.state, now=NOW)
    site.storage.objects[back] = kept
    gone, lost = site.snapshots[2], site.log[-1]
    site.storage.delete(gone)
    site.storage.delete(lost)
    assert len(site.grave(site.state)) == 3

    found = record.accept(site.repository, site.state, NOW + timedelta(days=400), "the disk was full")

    assert (found.gone, found.there, found.entries) == ([gone], [back], 1)
    assert site.grave(site.state) == site.grave() == []
    last = record_listing.listed(site.repository, {"alice": None})[-1]
    assert (last.kind, last.reasons) == ("accepted", {"reason": "the disk was full"})


def test_what_repair_brings_back_is_there_with_good_reason(site: Site, take: Backup) -> None:
    second = MemoryStorage()
    second.url = "memory:second"
    copy(site.storage, second)
    name = site.snapshots[0]
    forget_snapshots(site.repository, site.repository.refs()[:1], state=site.state, now=NOW)

    def opened(storage: Storage) -> Repository:
        return Repository(storage, unlock(storage, "a passphrase"))

    repair(site.storage, [second], opened, removed_since=NOW, state=site.state, clock=lambda: NOW)
    assert name in site.storage.objects
    assert site.kinds().count("repair") == 1
    assert site.grave() == []
    site.storage.delete(name)
    assert site.grave() == [(Severity.CRITICAL, name)]


# -- merging -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(site: Site) -> Site:
    for number in range(40):
        record.append(site.repository, site.state, NOW + timedelta(minutes=number), "audit", counts={"n": number})
    return site


def test_many_small_pieces_become_one_and_every_signature_stays(many: Site) -> None:
    before = record_listing.listed(many.repository, {})
    exported = record_listing.exported(many.repository, many.state, NOW)
    whose = entries.signer(many.repository.secrets)
    done = merge(many.storage, whose, NOW, fewest=2)
    assert (done.objects, done.into, done.removed) == (43, 1, 43)
    assert len(many.log) == 1
    assert record_listing.listed(many.repository, {}) == before
    assert many.found() == many.found(many.state) == []
    assert many.found(exported=exported) == [agrees(exported)]


def test_a_piece_that_cannot_be_believed_is_not_merged_and_stays_to_be_told(many: Site) -> None:
    name = many.log[5]
    many.storage.objects[name] = flip(many.storage.objects[name], 60)
    merge(many.storage, entries.signer(many.repository.secrets), NOW, fewest=2)
    assert name in many.log
    assert len(many.log) == 2
    assert (Severity.CRITICAL, name) in many.grave()


def test_two_machines_that_merge_at_once_lose_nothing(many: Site) -> None:
    whose, real = entries.signer(many.repository.secrets), many.storage.delete
    deleted: list[str] = []

    def delete(name: str) -> None:
        if not deleted:
            deleted.append(name)
            merge(many.storage, whose, NOW + timedelta(days=1), fewest=2)
        real(name)

    many.storage.delete = delete  # type: ignore[method-assign]
    merge(many.storage, whose, NOW, fewest=2)
    assert many.found() == many.found(many.state) == []
    assert len(record_listing.listed(many.repository, {})) == 43


def test_an_auditor_who_had_listed_what_is_merged_now_looks_again(many: Site) -> None:
    whose, real = entries.signer(many.repository.secrets), many.storage.get
    merged: list[object] = []

    def get(name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith(names.LOG) and not merged:
            merged.append(None)
            merge(many.storage, whose, NOW, fewest=2)
        return real(name, offset, length)

    many.storage.get = get  # type: ignore[method-assign]
    assert many.found() == []
    assert merged


def test_a_copy_has_the_record_and_what_it_tells_of(many: Site) -> None:
    second = MemoryStorage()
    second.url = "memory:second"
    copy(many.storage, second)
    there = Site(second, Repository(second, unlock(second, "a passphrase")), many.state)
    assert there.log == many.log
    assert there.grave(is_copy=True) == []
    forget(many.repository, LAST, state=many.state, now=NOW)
    copy(many.storage, second)
    assert there.grave(is_copy=True) == []


def test_what_was_written_in_one_millisecond_is_listed_in_its_order(site: Site) -> None:
    for number in range(12):
        record.append(site.repository, site.state, NOW, "audit", counts={"n": number})
    lines = record_listing.listed(site.repository, {})
    assert [line.counts["n"] for line in lines if line.kind == "audit"] == list(range(12))


def denied(name: str) -> None:
    if name.startswith(names.LOG):
        raise StorageDenied("these credentials may not", subject=name)


def test_where_the_record_may_not_be_added_to_nothing_is_forgotten_and_a_prune_says_so(site: Site) -> None:
    """Credentials of before there was a record."""
    site.storage.before_put = denied
    with pytest.raises(StorageDenied, match=r"nothing was forgotten, .*s3-policy --role pruner"):
        forget(site.repository, LAST, state=site.state, now=NOW)
    assert set(site.snapshots) <= site.storage.objects.keys()
    site.storage.before_put = lambda _name: None
    forget(site.repository, LAST, state=site.state, now=NOW)
    site.storage.before_put = denied
    with pytest.raises(StorageDenied, match=r"it was pruned, and the signed record does not tell so: .*--role pruner"):
        prune(site.repository, state=site.state, now=NOW, fewest=2)
    site.storage.before_put = lambda _name: None
    assert site.grave() == []


def test_an_export_that_agrees_is_told(site: Site) -> None:
    exported = record_listing.exported(site.repository, site.state, NOW)
    assert site.found(exported=exported) == [agrees(exported)]
