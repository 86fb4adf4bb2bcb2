"""Drills: what is restored, that what comes back otherwise is noticed, and that nothing is left behind."""

from __future__ import annotations

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path

import pytest

from backupd.errors import ConnectionFailed
from backupd.model import Body
from backupd.operations.audit import Means, audit
from backupd.operations.audit_report import AuditReport, DrillResult, Level, Severity, Wish
from backupd.operations.audit_scratch import Back, MaildirScratch, Scratch
from backupd.operations.state import State
from backupd.repository.keys import Secrets
from backupd.repository.repository import Repository
from backupd.targets.base import Fingerprint, Target
from tests.support import archive
from tests.support.archive import NOON, Box, Mail
from tests.support.harm import flip
from tests.support.mail import message
from tests.support.memory_storage import MemoryStorage

DATE = b"03-Mar-2024 10:20:30 -0330"
Drilled = Callable[..., AuditReport]


class Spoiling:
    """A Maildir from which other things are read back than were written to it. spoil: what becomes of each message."""

    def __init__(self, spoil: Callable[[Back], Back | None]) -> None:
        self._own, self._spoil = MaildirScratch(), spoil

    description = "a place that spoils mail"

    def open(self, fingerprint: Fingerprint) -> Target:
        return self._own.open(fingerprint)

    def read_back(self, names: Mapping[str, bytes]) -> Iterator[Back]:
        return (spoiled for each in self._own.read_back(names) if (spoiled := self._spoil(each)))

    def clear(self) -> str:
        return self._own.clear()


@pytest.fixture
def drilled(storage: MemoryStorage, secrets: Secrets, state: State) -> Drilled:
    def run(scratch: Callable[[str], Scratch] | None = None, *, day: int = 0, **wish: object) -> AuditReport:
        more = {"scratch": scratch} if scratch else {}
        means = Means(state, lambda: NOON + timedelta(days=day), chance=random.Random(day), **more)
        wanted = Wish(Level.DRILL, {"alice": None}, **wish)  # type: ignore[arg-type]
        return audit(storage, lambda: Repository(storage, secrets), wanted, means)

    return run


def result(report: AuditReport) -> DrillResult:
    found = report.accounts[0].drill
    assert found is not None
    return found


def fill(repository: Repository, count: int = 30) -> None:
    """Mailboxes with odd names, flags, keywords, and dates."""
    mails = {
        uid: Mail(message(f"Message {uid}", size=300), (b"$Forwarded", b"\\Seen") if uid % 2 else (), DATE)
        for uid in range(1, count + 1)
    }
    boxes = {b"INBOX": Box(mails), b"A&-B/..": Box({7: Mail(message("Odd"), (b"work",), DATE)}), b"Empty": Box({})}
    archive.put(repository, boxes)


def grave(report: AuditReport) -> list[str]:
    return [f"{each.subject}: {each.what}" for each in report.findings if each.severity is not Severity.NOTE]


def test_a_small_account_is_restored_as_a_whole_and_compared(repository: Repository, drilled: Drilled) -> None:
    fill(repository)
    report = drilled()
    assert grave(report) == []
    found = result(report)
    assert (found.messages, found.total_messages, found.wrong, found.altered) == (31, 31, 0, 0)
    assert found.total_seconds == pytest.approx(found.seconds)


def test_a_large_account_is_tried_at_random_and_the_time_of_all_of_it_reckoned(
    repository: Repository, drilled: Drilled
) -> None:
    fill(repository, 1500)
    report = drilled()
    found = result(report)
    assert grave(report) == []
    assert 200 <= found.messages <= 500
    assert found.total_seconds > 2.5 * found.seconds
    whole = result(drilled(full=True))
    assert (whole.messages, whole.full) == (1501, True)
    assert whole.total_seconds == whole.seconds


def test_with_a_budget_every_stretch_has_its_turn(repository: Repository, drilled: Drilled) -> None:
    fill(repository, 20)
    boxes = {b"Box %d" % number: Box({1: Mail(message(f"In {number}"))}) for number in range(9)}
    archive.put(repository, boxes, time=NOON + timedelta(minutes=5))
    tried = [result(drilled(budget=0.34, day=day)).messages for day in range(3)]
    assert tried == [3, 3, 3]


def test_mailboxes_that_are_shown_by_the_same_name_are_told_apart(repository: Repository, drilled: Drilled) -> None:
    boxes = {b"A": Box({1: Mail(message("One"))}, name="Same"), b"B": Box({1: Mail(message("Two"))}, name="Same")}
    archive.put(repository, boxes)
    assert grave(drilled()) == []


@pytest.mark.parametrize("harm", ["bytes", "flags", "date", "lost"])
def test_what_comes_back_otherwise_is_critical(repository: Repository, drilled: Drilled, harm: str) -> None:
    fill(repository, 5)
    seen: list[Body | bytes] = []

    def spoil(back: Back) -> Back | None:
        seen.append(back.body)
        if len(seen) != 3:
            return back
        spoiled = {
            "bytes": back._replace(body=bytes(back.body)[:-1] + b"X"),  # type: ignore[arg-type]
            "flags": back._replace(flags=(b"\\Draft",)),
            "date": back._replace(moment=(back.moment or 0) + 3600),
            "lost": None,
        }
        return spoiled[harm]

    report = drilled(lambda _: Spoiling(spoil))

    assert report.outcome == "critical"
    assert result(report).wrong == 1
    assert "1 message came back otherwise" in grave(report)[0]


def test_damage_is_no_surprise_to_a_drill(repository: Repository, storage: MemoryStorage, drilled: Drilled) -> None:
    fill(repository, 5)
    (pack,) = [info.name for info in storage.list("packs/")]
    flip(storage, pack)
    report = drilled()
    assert report.outcome == "critical"
    assert any("could not be restored" in text for text in grave(report))


def test_what_a_target_cannot_hold_is_noted(repository: Repository, drilled: Drilled) -> None:
    keywords = tuple(b"k%02d" % number for number in range(30))
    archive.put(repository, {b"INBOX": Box({1: Mail(message("One"), keywords, b"00-Jan-0000 00:00:00 +0000")})})
    report = drilled()
    assert (report.outcome, result(report).altered) == ("ok", 1)
    assert any("could not be taken exactly by the target" in each.what for each in report.findings)


def test_a_target_that_cannot_be_had_is_unknown(repository: Repository, drilled: Drilled) -> None:
    fill(repository, 2)

    class Away(Spoiling):
        def open(self, fingerprint: Fingerprint) -> Target:
            raise ConnectionFailed("connection refused")

    report = drilled(lambda _: Away(lambda back: back))
    assert (report.outcome, grave(report)) == ("unknown", ["alice: the drill could not be held: connection refused"])


def test_nothing_is_left_behind(
    repository: Repository, drilled: Drilled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    fill(repository, 5)
    before = dict(repository.storage.objects)  # type: ignore[attr-defined]

    def fail(back: Back) -> Back:
        raise ConnectionFailed("gone")

    killed, running = tmp_path / "scratch/backupd-drill-killed", tmp_path / "scratch/backupd-drill-running"
    for folder, age in ((killed, 2), (running, 0.5)):
        (folder / "mail/cur").mkdir(parents=True)
        os.utime(folder, (time.time() - age * 86400,) * 2)
    assert result(drilled()).wrong == 0
    assert not killed.exists(), "of a day ago"
    assert running.exists(), "perhaps another one's"
    shutil.rmtree(running)
    assert drilled(lambda _: Spoiling(fail)).outcome == "unknown"
    assert list((tmp_path / "scratch").iterdir()) == []
    assert repository.storage.objects == before, "a drill writes nothing to the repository"  # type: ignore[attr-defined]
