"""What the daemon holds: events in, messages and pings out, on real servers; over restarts, reloads and failures."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backupd import config
from backupd.config.model import Config
from backupd.operations.costs import Costs
from backupd.operations.notices import events
from backupd.operations.notices.notifier import Notifier
from backupd.operations.notices.sending import NotDelivered
from backupd.operations.notices.store import NoticeStore
from backupd.operations.notices.weekly import Week
from backupd.operations.notices.wording import Text
from backupd.operations.state import Run, State
from backupd.operations.status import Level, Status
from backupd.redaction import learn
from tests.support.config import GOOD, write
from tests.support.listeners import HttpListener, SmtpListener, silent, wait_for

DOWN = events.Failed("alice", "network", "cannot connect", "check the host", "mail.example.com")
TUESDAY = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.now = TUESDAY

    def __call__(self) -> datetime:
        return self.now


class Box:
    """A target that is no server: what was sent to it, by address."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Text]] = []
        self.fails = ""

    def send(self, url: str, text: Text, *, stop: threading.Event | None = None) -> None:
        if self.fails:
            raise NotDelivered(self.fails)
        self.sent.append((url, text))

    @property
    def subjects(self) -> list[str]:
        return [text.subject for _, text in self.sent]


def configured(folder: Path, extra: str) -> Config:
    return config.load(write(folder, GOOD + "  bob:\n    pop3: {host: pop, username: b, password: p}\n" + extra))


ONE = "notify: [{url: 'json://phone', name: phone}]\n"
Begin = Callable[..., Notifier]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def box() -> Box:
    return Box()


@pytest.fixture
def begin(tmp_path: Path, state: State, clock: Clock, box: Box) -> Iterator[Begin]:
    """begin(configuration) is a notifier of it."""
    begun: list[Notifier] = []

    def begin(extra: str = ONE, **options: object) -> Notifier:
        given = {"clock": clock, "machine": "box", "zone": UTC, "send": box.send, "pauses": (0.01,), **options}
        begun.append(Notifier(state, configured(tmp_path, extra), **given))  # type: ignore[arg-type]
        return begun[-1]

    yield begin
    for each in begun:
        each.close(1)


def later(notifier: Notifier, clock: Clock, **time: float) -> None:
    clock.now += timedelta(**time)
    assert notifier.settle(10)


def test_trouble_is_told_once_and_its_end_too(begin: Begin, clock: Clock, box: Box) -> None:
    notifier = begin()
    for _ in range(10):
        notifier.tell(DOWN)
        later(notifier, clock, minutes=5)
    assert box.subjects == ["alice is not backed up: mail.example.com cannot be reached"]
    notifier.tell(events.Completed("alice"))
    later(notifier, clock, seconds=1)
    later(notifier, clock, minutes=5)
    assert box.subjects[1:] == ["alice is backed up again"]


def test_a_restart_repeats_nothing_and_loses_nothing(begin: Begin, clock: Clock, box: Box) -> None:
    notifier = begin()
    notifier.tell(DOWN)
    later(notifier, clock, seconds=0)
    notifier.close()
    clock.now += timedelta(hours=1)
    notifier = begin()
    notifier.tell(DOWN)
    later(notifier, clock, seconds=1)
    assert len(box.sent) == 1, "told at once, for it began an hour ago"
    box.fails = "no route"
    notifier.tell(events.AuditFailed("storage", "3 objects are damaged"))
    later(notifier, clock, seconds=1)
    clock.now += timedelta(minutes=2)
    notifier.tick()
    wait_for(lambda: notifier._targets["phone"].outbox._waiting)
    notifier.close()
    box.fails = ""
    notifier = begin()
    notifier.tell(DOWN)
    later(notifier, clock, seconds=1)
    assert box.subjects[1:] == ["the job storage failed"]


def test_mail_and_webhook_and_ping_of_one_failure(begin: Begin, clock: Clock) -> None:
    from backupd.operations.notices import sending

    http, smtp = HttpListener(), SmtpListener()
    try:
        notifier = begin(
            f"notify:\n- {{url: 'mailto://127.0.0.1:{smtp.port}?from=b@example.com&to=me@example.com&mode=insecure'}}\n"
            f"- {{url: '{http.url('json', '/hook')}', on: [failure], accounts: ['a*']}}\n"
            f"pings: {{url: '{http.url(path='/all')}', accounts: {{alice: '{http.url(path='/alice')}'}}}}\n",
            send=sending.send,
        )
        notifier.tell(events.Started("alice"))
        assert http.next().path == "/alice/start"
        notifier.tell(DOWN)
        assert {http.next() for _ in range(2)} == {
            ("/alice/fail", "cannot connect (check the host)"), ("/all/fail", "alice: cannot connect (check the host)")
        }  # fmt: skip
        notifier.tell(events.Failed("bob", "login", "refused"))
        later(notifier, clock, seconds=0)
        later(notifier, clock, minutes=20)
        path, body = http.next()
        assert path == "/hook", "and that not all is well needs no second ping within a minute"
        assert json.loads(body)["title"] == "backupd: alice is not backed up: mail.example.com cannot be reached"
        assert {smtp.next()["Subject"], smtp.next()["Subject"]} == {
            "backupd: alice is not backed up: mail.example.com cannot be reached",
            "backupd: bob is not backed up: the login is refused",
        }  # fmt: skip
        notifier.tell(events.Incomplete("alice", 2, "INBOX 7: cut"))
        assert http.next() == ("/alice/fail", "2 could not be backed up, first: INBOX 7: cut")
    finally:
        http.close()
        smtp.close()


def test_telling_is_cheap_and_never_fails_whatever_is_wrong(begin: Begin, clock: Clock, state: State) -> None:
    with silent() as port:
        notifier = begin(f"notify: [{{url: 'mailto://127.0.0.1:{port}?to=me@x.example&from=b@x.example'}}]\n")
        began = time.monotonic()
        for number in range(10_000):
            notifier.tell(events.Failed(f"user{number % 500}", "login", "refused", "", "host"))
        assert time.monotonic() - began < 5
        notifier.tell("nonsense")  # type: ignore[arg-type]
        later(notifier, clock, minutes=30)


def test_the_end_takes_at_most_a_few_seconds_and_what_was_not_sent_is_kept(
    begin: Begin, clock: Clock, state: State, box: Box
) -> None:
    from backupd.operations.notices import sending

    with silent() as port:
        notifier = begin(
            f"notify: [{{url: 'mailto://127.0.0.1:{port}?to=me@x.example&from=b@x.example', name: phone}}]\n",
            send=sending.send,
        )
        notifier.tell(events.AuditFailed("storage", "3 objects are damaged"))
        clock.now += timedelta(seconds=1)
        notifier.settle(0.5)
        clock.now += timedelta(minutes=5)
        notifier.tick()
        store = NoticeStore(state.path)
        wait_for(store.outbox)
        began = time.monotonic()
        notifier.close(1.0)
        assert time.monotonic() - began < 4
        assert [each.text.subject for each in store.outbox()] == ["the job storage failed"]
        store.close()
    begin()
    wait_for(lambda: box.subjects == ["the job storage failed"])


def test_that_the_disk_is_full_is_told_all_the_same(
    begin: Begin, clock: Clock, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    notifier = begin()
    assert notifier._store is not None

    class Full:
        in_transaction = False

        def execute(self, *arguments: object) -> None:
            raise sqlite3.OperationalError("database or disk is full")

        def close(self) -> None:
            pass

    monkeypatch.setattr(notifier._store, "_database", Full())
    notifier.tell(events.Unreachable("/srv/mail", "no space left"))
    later(notifier, clock, seconds=0)
    later(notifier, clock, minutes=20)
    assert box.subjects == ["the repository cannot be used"]
    later(notifier, clock, minutes=20)
    assert len(box.sent) == 1


def test_another_configuration_is_followed(begin: Begin, clock: Clock, box: Box, tmp_path: Path) -> None:
    notifier = begin()
    notifier.tell(DOWN)
    notifier.tell(events.Failed("bob", "login", "refused"))
    later(notifier, clock, seconds=0)
    notifier.reconfigure(configured(tmp_path, "notify: [{url: 'json://other', name: phone, accounts: [alice]}]\n"))
    later(notifier, clock, minutes=20)
    assert [(url, text.subject) for url, text in box.sent] == [
        ("json://other", "alice is not backed up: mail.example.com cannot be reached")
    ]
    notifier.reconfigure(configured(tmp_path, ""))
    notifier.tell(DOWN)
    later(notifier, clock, days=2)
    assert len(box.sent) == 1


def test_an_event_of_the_same_sort_stands_for_one_that_nobody_looked_at(begin: Begin) -> None:
    told = [DOWN, events.Missed("alice", 60.0), events.Completed("alice"), events.Lost("alice", "A", 9, 10, "p"),
            events.Lost("alice", "B", 9, 10, "p"), events.Started("alice")]  # fmt: skip
    names = [events.about(each) for each in told]
    assert names[0] == names[2]
    assert len(set(names)) == 5


def week(begins: datetime, ends: datetime) -> Week:
    return Week(begins, ends, Status(Level.OK, [], Costs("/srv", 1, 1, None)), [])


def test_the_weekly_summary_comes_on_monday_and_once(begin: Begin, clock: Clock, box: Box) -> None:
    asked: list[tuple[datetime, datetime]] = []

    def gather(begins: datetime, ends: datetime) -> Week:
        asked.append((begins, ends))
        if len(asked) == 1:
            raise OSError("the repository is away")
        return week(begins, ends)

    notifier = begin(ONE, summary_of=gather)
    later(notifier, clock, days=3)
    assert box.sent == []
    later(notifier, clock, days=3)
    assert len(asked) == 1
    later(notifier, clock, minutes=30)
    assert len(asked) == 1, "not before an hour has passed"
    later(notifier, clock, minutes=31)
    assert box.subjects == ["a good week: 0 accounts backed up"]
    notifier.close()
    notifier = begin(ONE, summary_of=week)
    later(notifier, clock, days=1)
    assert len(box.sent) == 1
    later(notifier, clock, days=7)
    assert len(box.sent) == 2


def test_no_secret_is_in_messages_or_in_what_is_stored(begin: Begin, clock: Clock, box: Box, state: State) -> None:
    learn("hunter2-is-the-password")
    box.fails = "no route with hunter2"
    notifier = begin("notify: [{url: 'json://bob:hunter2-in-the-address@phone', name: phone}]\n")
    notifier.tell(events.Failed("alice", "login", "NO LOGIN alice hunter2-is-the-password", "", "host"))
    later(notifier, clock, seconds=0)
    later(notifier, clock, minutes=20)
    box.fails = ""
    notifier.tick()
    wait_for(lambda: box.sent)
    assert "hunter2" not in box.sent[0][1].body
    notifier.close()
    files = b"".join(path.read_bytes() for path in state.folder.iterdir() if path.is_file())
    assert b"login" in files
    assert b"hunter2-i" not in files


def test_after_a_restart_the_ping_of_all_knows_the_last_runs(begin: Begin, state: State, clock: Clock) -> None:
    http = HttpListener()
    state.record(Run("bob", "2026-11-24T00:00:00Z", "2026-11-24T00:00:00Z", "unchanged"))
    try:
        notifier = begin(f"pings: {{url: '{http.url(path='/all')}'}}\n")
        notifier.tell(events.Completed("alice"))
        assert http.next().path == "/all"
        notifier.close()
    finally:
        http.close()
