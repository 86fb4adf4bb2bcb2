"""What audits find, what they remember, and what share of the bytes they read."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd.errors import Interrupted, NoRepository, StorageUnavailable, WrongKey
from backupd.operations.audit import Means, audit
from backupd.operations.audit_report import AuditReport, Finding, Level, Severity, Wish
from backupd.operations.mend import mend
from backupd.operations.state import Run, State
from backupd.repository import marks, names
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, unlock
from backupd.storage.base import Storage
from tests.operations.conftest import CHEAP, Backup
from tests.support import archive
from tests.support.archive import NOON, Box, Mail
from tests.support.harm import flip
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage
from tests.support.simulated_account import SimulatedAccount

HOUR = timedelta(hours=1)
Audited = Callable[..., AuditReport]


@pytest.fixture
def audited(storage: MemoryStorage, state: State) -> Audited:
    """audited(level, role=...) audits as a new process would; keyword arguments go to Wish and Means."""

    def run(
        level: Level = Level.METADATA,
        *,
        role: Role = Role.READER,
        known: State | None = state,
        now: datetime = NOON + HOUR,
        stop: threading.Event | None = None,
        check_record: object = None,
        copies: Sequence[MemoryStorage] = (),
        objectives: dict[str, timedelta | None] | None = None,
        **wish: object,
    ) -> AuditReport:
        def opened() -> Repository:
            return Repository(storage, unlock(storage, "a passphrase").for_role(role))

        return audit(
            storage,
            opened if role is not Role.AUDITOR else None,
            Wish(level, {"alice": None} if objectives is None else objectives, **wish),  # type: ignore[arg-type]
            Means(known, lambda: now, copies, check_record=check_record),  # type: ignore[arg-type]
            stop=stop,
        )

    return run


def grave(report: AuditReport) -> list[tuple[str, str]]:
    """(severity, subject) of all that is more than a note."""
    return [(each.severity.value, each.subject) for each in report.findings if each.severity is not Severity.NOTE]


def notes(report: AuditReport) -> list[str]:
    return [each.what for each in report.findings if each.severity is Severity.NOTE]


def many(storage: MemoryStorage, secrets: Secrets, packs: int = 8, *, account: str = "alice") -> None:
    """So many packs of about the same size, one for each snapshot."""
    for number in range(packs):
        with Repository(storage, secrets, sizes=Sizes(block=2_000, pack=100_000)) as repository:
            box = Box({uid: Mail(message(f"{account} {number} {uid}", size=400)) for uid in range(1, 6)})
            archive.put(repository, {b"INBOX": box}, account=account, time=NOON + number * timedelta(minutes=1))


def packs_of(storage: MemoryStorage) -> list[str]:
    return [info.name for info in storage.list(names.PACKS)]


# -- freshness ---------------------------------------------------------------------------------------------------------


def test_an_account_older_than_its_objective_is_critical(repository: Repository, audited: Audited) -> None:
    archive.put(repository)
    assert audited(Level.FRESHNESS, objectives={"alice": 2 * HOUR}).outcome == "ok"
    late = audited(Level.FRESHNESS, objectives={"alice": HOUR / 2})
    assert (late.outcome, grave(late)) == ("critical", [("critical", "alice")])
    assert late.accounts[0].status is not None
    assert late.accounts[0].status.age == 3600


def test_a_run_that_found_nothing_counts_only_where_the_state_is_known(
    repository: Repository, audited: Audited, state: State
) -> None:
    ref = archive.put(repository)
    time = (NOON + 0.9 * HOUR).isoformat()
    state.record(Run("alice", time, time, "unchanged", ref.id))
    assert audited(Level.FRESHNESS, objectives={"alice": HOUR / 2}).outcome == "ok"
    alone = audited(Level.FRESHNESS, objectives={"alice": HOUR / 2}, known=None)
    assert alone.outcome == "critical"
    assert any("without a state directory" in text for text in alone.left_out)


def test_the_newest_snapshot_of_this_machine_is_missed_when_it_is_gone(
    repository: Repository, audited: Audited, state: State, storage: MemoryStorage
) -> None:
    first = archive.put(repository)
    newest = archive.put(repository, {b"INBOX": Box({1: Mail(message("One"))})}, time=NOON + HOUR / 2)
    time = NOON.isoformat()
    state.record(Run("alice", time, time, "stored", newest.id))
    assert audited().outcome == "ok"

    storage.delete(newest.name)

    report = audited()
    assert grave(report) == [("critical", "alice")]
    assert f"snapshot {newest.id}" in report.findings[0].what
    assert f"1 snapshot went since the last audit ({newest.id})" in notes(report)[0]
    assert first.id not in str(report.findings)
    assert audited(known=None).outcome == "ok", "nothing in the repository tells"


# -- roles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "level"),
    [
        (Role.AUDITOR, Level.FRESHNESS),
        (Role.AUDITOR, Level.METADATA),
        (Role.AUDITOR, Level.CONTENT),
        (Role.WRITER, Level.CONTENT),
        (Role.WRITER, Level.DRILL),
    ],
)
def test_a_level_that_the_key_cannot_do_is_refused(
    repository: Repository, audited: Audited, role: Role, level: Level
) -> None:
    archive.put(repository)
    with pytest.raises(WrongKey, match=f"an audit of the level {level} needs a"):
        audited(level, role=role)


def test_what_the_key_cannot_do_of_the_levels_before_is_said(repository: Repository, audited: Audited) -> None:
    archive.put(repository)
    assert audited(Level.STORAGE, role=Role.AUDITOR).left_out == [
        "freshness: it needs a writer's key", "metadata: it needs a writer's key",
    ]  # fmt: skip
    assert "content: it needs a reader's key" in audited(Level.SOURCE, role=Role.WRITER).left_out


def test_a_key_that_opens_nothing_reads_no_more_than_was_asked_for(
    storage: MemoryStorage, secrets: Secrets
) -> None:
    many(storage, secrets, 2)
    packs = packs_of(storage)
    asked: list[str] = []
    get = storage.get
    storage.get = lambda name, *rest: asked.append(name) or get(name, *rest)  # type: ignore[method-assign,func-returns-value]

    def opened() -> Repository:
        return Repository(storage, unlock(storage, "another passphrase"))

    means = Means(None, lambda: NOON)
    report = audit(storage, opened, Wish(Level.METADATA, {"alice": None}), means)
    assert (report.outcome, report.role) == ("unknown", Role.AUDITOR)
    assert not set(asked) & set(packs)
    flip(storage, packs[0])
    assert audit(storage, opened, Wish(Level.STORAGE, {"alice": None}), means).outcome == "critical"


def test_nothing_at_all_is_no_repository(audited: Audited) -> None:
    with pytest.raises(NoRepository):
        audited(Level.STORAGE, role=Role.AUDITOR)


def test_a_writer_says_that_messages_of_a_damaged_pack_may_be_concerned(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 2)
    flip(storage, packs_of(storage)[0])
    writer, reader = audited(Level.STORAGE, role=Role.WRITER), audited(Level.STORAGE)
    assert {each.certain for each in writer.affected} == {False}
    assert {each.certain for each in reader.affected} == {True}
    named = {(each.uid, each.mailbox, *each.snapshots) for each in writer.affected}
    assert {(each.uid, each.mailbox, *each.snapshots) for each in reader.affected} <= named


# -- what is remembered ------------------------------------------------------------------------------------------------


def test_a_budget_reads_what_was_read_longest_ago_until_all_is_proved(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 8)
    proved = []
    for day in range(4):
        report = audited(Level.CONTENT, budget=0.3, now=NOON + day * timedelta(days=1))
        assert report.coverage is not None
        proved.append(report.coverage.proved / report.coverage.octets)
        assert report.coverage.cycle_runs == 4
    assert proved == sorted(proved)
    assert (proved[0] < 0.4, proved[3]) == (True, 1.0)
    assert report.coverage.cycle_seconds == 4 * 86400
    assert report.coverage.oldest is not None
    assert report.coverage.oldest.startswith("2026-11-01T12:00")
    again = audited(Level.CONTENT, budget=0.3, now=NOON + timedelta(days=4))
    assert again.coverage is not None
    assert again.coverage.oldest is not None
    assert again.coverage.oldest.startswith("2026-11-02"), "the oldest were read again"


def test_without_memory_the_rotation_begins_anew_and_says_so(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 8)
    for _ in range(4):
        report = audited(Level.STORAGE, budget=0.3, known=None)
        assert report.coverage is not None
        assert report.coverage.proved < 0.4 * report.coverage.octets
        assert not report.coverage.remembered


def test_an_interrupted_audit_is_gone_on_with(storage: MemoryStorage, secrets: Secrets, audited: Audited) -> None:
    many(storage, secrets, 12)
    stop = threading.Event()
    read: list[str] = []
    get = storage.get

    def slow(name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith(names.PACKS):
            read.append(name)
            if len(read) > 4:
                stop.set()
        return get(name, offset, length)

    storage.get = slow  # type: ignore[method-assign]
    with pytest.raises(Interrupted):
        audited(Level.STORAGE, role=Role.AUDITOR, stop=stop)
    storage.get = get  # type: ignore[method-assign]
    report = audited(Level.STORAGE, role=Role.AUDITOR, budget=0.001, now=NOON + 2 * HOUR)
    assert report.coverage is not None
    assert report.coverage.proved > 2 * min(map(len, storage.objects.values())), "and what was proved before counts"


def test_damage_is_read_again_by_each_audit_until_it_is_mended(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 8)
    assert audited(Level.STORAGE).outcome == "ok"
    harmed = packs_of(storage)[-1]
    good = storage.objects[harmed]
    flip(storage, harmed)
    assert audited(Level.STORAGE).outcome == "critical"
    for day in range(3):
        report = audited(Level.STORAGE, budget=0.1, now=NOON + day * timedelta(days=1))
        assert harmed in [subject for _, subject in grave(report)]
    storage.objects[harmed] = good
    assert audited(Level.STORAGE, budget=0.1).outcome == "ok"


def test_key_slots_that_change_or_come_back_are_noticed(
    storage: MemoryStorage, repository: Repository, audited: Audited
) -> None:
    archive.put(repository)
    name = repository.add_slot("office", "another passphrase", Role.WRITER, argon2=CHEAP)
    assert audited(Level.STORAGE, role=Role.AUDITOR).findings == []
    slot = storage.objects[name]

    storage.objects[name] = slot.replace(b'"created": "20', b'"created": "19')
    assert grave(audited(Level.STORAGE, role=Role.AUDITOR)) == [("critical", name)]
    storage.delete(name)
    report = audited()
    assert (report.outcome, notes(report)) == ("ok", ["the key slot was there at the last audit, and is gone"])
    assert audited().findings == [], "once"
    storage.objects[name] = slot
    report = audited()
    assert grave(report) == [("warning", name)]
    assert "had been removed, and is there again" in report.findings[0].what


def test_another_repository_in_the_same_place_is_no_alarm_if_the_key_fits(
    storage: MemoryStorage, repository: Repository, audited: Audited
) -> None:
    archive.put(repository)
    assert audited().findings == []
    before = storage.objects
    from backupd.repository.repository import create

    storage.objects = {}
    with Repository(storage, create(storage, "a passphrase", argon2=CHEAP)) as another:
        archive.put(another)
    assert audited().outcome == "ok"

    storage.objects[names.DESCRIPTION] = before[names.DESCRIPTION]
    assert ("critical", names.DESCRIPTION) in grave(audited())
    assert ("critical", names.DESCRIPTION) in grave(audited(Level.STORAGE, role=Role.AUDITOR))


def test_the_history_tells_each_audit_of_each_account(repository: Repository, audited: Audited, state: State) -> None:
    archive.put(repository)
    audited(Level.CONTENT)
    audited(Level.FRESHNESS, objectives={"alice": HOUR / 2, "bob": None})
    of_all = state.audits("memory:", "")
    assert [(each.level, each.outcome) for each in of_all] == [("freshness", "critical"), ("content", "ok")]
    assert of_all[1].octets > 0
    assert [(each.account, each.outcome, each.problems) for each in state.audits(level="freshness")] == [
        ("bob", "critical", 1), ("alice", "critical", 1), ("", "critical", 2),
    ]  # fmt: skip


# -- what is read ------------------------------------------------------------------------------------------------------


def test_an_account_alone_reads_the_packs_of_its_mail_alone(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 3)
    alices = set(packs_of(storage))
    many(storage, secrets, 3, account="bob")
    bobs = set(packs_of(storage)) - alices
    flip(storage, min(bobs))

    alone, both = audited(Level.CONTENT, alone=True), audited(Level.CONTENT)

    assert (alone.outcome, alone.checked.snapshots) == ("ok", 3)
    assert (both.outcome, both.checked.snapshots) == ("critical", 6)
    assert {each.account for each in both.affected} == {"bob"}


def test_since_looks_at_newer_snapshots_only(storage: MemoryStorage, secrets: Secrets, audited: Audited) -> None:
    many(storage, secrets, 5)
    assert audited(since=NOON + timedelta(minutes=3)).checked.snapshots == 2


def test_each_pack_is_read_once_and_as_a_whole(storage: MemoryStorage, secrets: Secrets, audited: Audited) -> None:
    many(storage, secrets, 6)
    asked: Counter[str] = Counter()
    get = storage.get

    def counted(name: str, offset: int = 0, length: int | None = None) -> bytes:
        asked[name] += 1
        return get(name, offset, length)

    storage.get = counted  # type: ignore[method-assign]
    assert audited(Level.CONTENT).outcome == "ok"
    assert {asked[name] for name in packs_of(storage)} == {1}, "runs and parts come from blocks that were read with it"


def test_memory_is_bounded_by_a_few_packs_at_once(storage: MemoryStorage, secrets: Secrets, audited: Audited) -> None:
    from backupd.operations.audit_objects import Room

    room, held, most = Room(100), 0, 0
    lock = threading.Lock()

    def work(octets: int) -> None:
        nonlocal held, most
        with room.hold(octets):
            with lock:
                held += octets
                most = max(most, held)
            with lock:
                held -= octets

    threads = [threading.Thread(target=work, args=(octets,)) for octets in (60, 60, 30, 500, 20, 99)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert most <= 500, "one object always fits, however large, and then alone"


# -- what is found -----------------------------------------------------------------------------------------------------


def test_a_pack_that_no_index_describes_is_told_once_it_is_old(repository: Repository, audited: Audited) -> None:
    archive.put(repository, {b"INBOX": Box({1: Mail(message("One"))})})
    (index,) = [info.name for info in repository.storage.list(names.INDEX)]
    repository.storage.delete(index)
    report = audited()
    assert (report.outcome, report.affected) == ("warning", [])
    assert "1 pack is described by no index object" in report.findings[0].what
    writer = audited(role=Role.WRITER)
    assert [(each.certain, each.mailbox) for each in writer.affected] == [(False, "INBOX")]


def test_the_record_of_the_repository_is_asked_if_there_is_one(repository: Repository, audited: Audited) -> None:
    archive.put(repository)
    assert any("the signed record" in text for text in audited().left_out)
    missed = Finding(Severity.CRITICAL, Level.METADATA, "snapshots/x", "it was removed, and no entry says by whom")
    asked: list[bool] = []

    def check(_storage: Storage, _repository: Repository | None, *, deep: bool) -> list[Finding]:
        asked.append(deep)
        return [missed]

    report = audited(check_record=check)
    assert (report.outcome, report.findings, len(asked)) == ("critical", [missed], 1)
    assert not any("the signed record" in text for text in report.left_out)


def test_the_report_says_which_copy_has_what_is_damaged(
    storage: MemoryStorage, secrets: Secrets, audited: Audited
) -> None:
    many(storage, secrets, 6)
    copy, away = MemoryStorage(), MemoryStorage()
    copy.url, copy.objects = "memory:copy", dict(storage.objects)
    asked: list[str] = []

    def size(name: str) -> int:
        asked.append(name)
        raise StorageUnavailable("no answer")

    away.size = size  # type: ignore[method-assign]
    for name in packs_of(storage)[:3]:
        flip(storage, name)
    del copy.objects[packs_of(storage)[0]]

    report = audited(Level.STORAGE, copies=[away, copy])

    remedies = {each.subject: each.remedy for each in report.findings if each.subject.startswith(names.PACKS)}
    first, second, third = packs_of(storage)[:3]
    assert remedies[first].startswith("no copy is known to have it; ")
    assert remedies[second] == remedies[third] == (
        "`backupd repair` can take it from memory:copy, if it is whole there"
    )
    assert len(asked) == 1, "one that cannot be reached is not asked again"


def test_backups_at_the_same_time_are_no_damage(
    tmp_path: Path, secrets: Secrets, storage: MemoryStorage, take: Backup, account: SimulatedAccount, state: State
) -> None:
    """A backup stores packs, index and snapshot while the audit looks at them, sharing its index cache or not."""
    chance, ended = random.Random(1), threading.Event()

    def backing_up() -> None:
        while not ended.is_set():
            account.append(b"INBOX", message(f"Message {chance.random()}", size=2000))
            account.flag(b"INBOX", 1, b"\\Seen" if chance.random() < 0.5 else b"\\Flagged")
            take()

    account.append(b"INBOX", message("First"))
    take()
    worker = threading.Thread(target=backing_up)
    worker.start()
    try:
        for number in range(12):
            cache = state.path if number % 2 else None
            report = audit(
                storage,
                lambda: Repository(storage, secrets, cache=cache),  # noqa: B023 called at once
                Wish(Level.CONTENT, {"alice": None}),
                Means(state, lambda: datetime.now(UTC)),
            )
            # In memory nothing tells how old a pack is, so one may be seen before it is in an index.
            grave = [each.what for each in report.findings if each.severity is not Severity.NOTE]
            assert [what for what in grave if "described by no index object" not in what] == []
            assert report.affected == []
    finally:
        ended.set()
        worker.join()


def test_a_forged_mark_hides_no_loss(storage: MemoryStorage, secrets: Secrets, audited: Audited) -> None:
    many(storage, secrets, 2)
    (gone, _) = packs_of(storage)
    marks.put(storage, [gone], "superfluous, believe me", NOON)
    storage.delete(gone)
    report = audited()
    assert ("critical", gone) in grave(report)
    assert len(report.affected) > 0


def test_the_next_backup_stores_again_what_an_audit_found_to_be_damaged(
    storage: MemoryStorage, repository: Repository, take: Backup, account: SimulatedAccount, state: State
) -> None:
    account.append(b"INBOX", *(message(f"Message {number}", size=3000) for number in range(6)))
    take()
    (pack,) = packs_of(storage)
    flip(storage, pack)

    def opened() -> Repository:
        return Repository(storage, repository.secrets, cache=state.path)

    report = audit(storage, opened, Wish(Level.STORAGE, {"alice": None}), Means(state, lambda: NOON))
    assert len(report.affected) == 6

    with opened() as later:
        mended = mend(later, "alice", later.snapshot(later.refs("alice")[-1]), state, NOON)
        assert any("the repository has lost 6 of its messages" in note for note in mended.notes)


def test_a_writer_backs_up_beside_a_pack_that_was_cut(
    storage: MemoryStorage, secrets: Secrets, state: State
) -> None:
    """Looking into its content blocks is beyond a writer: that must be no error."""
    many(storage, secrets, 2)
    pack = packs_of(storage)[0]
    storage.objects[pack] = storage.objects[pack][:-3]
    with Repository(storage, secrets.for_role(Role.WRITER)) as repository:
        assert mend(repository, "alice", repository.snapshot(repository.refs("alice")[-1]), state, NOON)
