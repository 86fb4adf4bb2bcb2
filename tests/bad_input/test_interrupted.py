"""Two backups at once, and signals: SIGINT and SIGTERM end a run in order, SIGKILL ends it anywhere. Whatever the
moment, every snapshot that is listed comes back whole, and the next run completes."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from backupd.repository.repository import Repository, unlock
from tests.support.command import PASSPHRASE, SECONDS, Place, hashes, kill, when
from tests.support.mail import Attachment, message, noise
from tests.support.reading import contents
from tests.support.scripted_imap import Box, Cut, ScriptedImap
from tests.support.warm import Started

MESSAGES = 2_000
LARGE = 60
"""So many of them are large, so that a pack is full, and stored, long before the run ends."""


class Watched(ScriptedImap):
    """A server that counts the FETCH commands for whole messages, and at the one numbered `gate` waits for `go`."""

    def __init__(self, boxes: dict[bytes, Box]) -> None:
        self.gate: int | None = None
        self.fetches = 0
        self.reached, self.go = threading.Event(), threading.Event()
        self._counting = threading.Lock()
        super().__init__(boxes)

    def _messages(self, words: bytes, box: Box) -> bytes | Cut:
        if b"BODY.PEEK[]" in words:
            with self._counting:
                self.fetches += 1
                mine = self.fetches
            if mine == self.gate:
                self.reached.set()
                self.go.wait(SECONDS)
        return super()._messages(words, box)


@pytest.fixture(scope="module")
def mail() -> dict[int, bytes]:
    """Messages by UID."""
    found = {uid: message(f"Message {uid}", size=400 + uid % 2_000) for uid in range(1, MESSAGES + 1)}
    for number in range(LARGE):
        uid = 1 + number * (MESSAGES // LARGE)
        found[uid] = message(f"Large {uid}", attachments=[Attachment("a.bin", noise(uid, 600_000))])
    return found


@pytest.fixture(scope="module")
def truth(mail: dict[int, bytes]) -> Counter[str]:
    return hashes(mail.values())


@pytest.fixture
def server(place: Place, mail: dict[int, bytes]) -> Iterator[Watched]:
    """The account alice, on a server that can be made to wait."""
    inbox, work = Box(), Box()
    for uid, raw in mail.items():
        (inbox if uid % 4 else work).messages[uid] = raw
    with Watched({b"INBOX": inbox, b"Work": work}) as server:
        access = {"host": server.host, "port": server.port, "tls": "none"}
        place.configure({"alice": {**access, "username": "tester", "password": "pa55-word"}})
        place.create()
        yield server
        server.go.set()


def nothing_lost(place: Place, truth: Counter[str]) -> None:
    """Every listed snapshot can be read, wholly and unchanged; there are no objects but finished ones."""
    whole = ("repository.json", "keys/", "packs/", "index/", "snapshots/", "log/")
    assert all(name.startswith(whole) for name in place.names(""))
    with Repository(place.objects, unlock(place.objects, PASSPHRASE)) as repository:
        for ref in repository.refs():
            snapshot = repository.snapshot(ref)
            came = hashes(raw for box in contents(repository, snapshot).values() for raw, *_ in box.values())
            assert came.total() == snapshot.messages
            assert came <= truth


def next_run_completes(place: Place, truth: Counter[str]) -> None:
    place.done("backup")
    assert place.snapshots()[-1]["complete"]
    assert place.restored("alice@latest") == truth


def test_of_two_backups_of_an_account_at_once_one_is_told_and_the_other_completes(
    place: Place, server: Watched, truth: Counter[str]
) -> None:
    server.gate = 3
    first = place.start("backup")
    assert server.reached.wait(SECONDS)

    saying = ["alice: ", "another backup of this account is running", "wait until it has ended"]
    place.failed(11, "backup", saying=saying)

    server.go.set()
    assert place.end(first).code == 0
    assert place.restored("alice@latest") == truth


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_in_order_and_keeps_what_was_read(
    place: Place, server: Watched, truth: Counter[str], number: signal.Signals
) -> None:
    server.gate = 6
    process = place.start("backup")
    assert server.reached.wait(SECONDS)
    process.send_signal(number)
    line = process.stderr.readline()  # type: ignore[union-attr]
    assert "stopping in order; once more to stop at once" in line
    server.go.set()

    result = place.end(process)

    assert result.code == 130
    place.clear(result, saying=["alice: stopped", "what was read is kept; the next run goes on"])
    (checkpoint,) = place.snapshots()
    assert not checkpoint["complete"]
    assert 0 < int(str(checkpoint["messages"])) < MESSAGES
    nothing_lost(place, truth)
    server.commands.clear()
    next_run_completes(place, truth)


def test_what_a_killed_run_left_unfinished_is_removed_when_it_is_old(place: Place, server: Watched) -> None:
    unfinished = place.repository / ".tmp" / "0123456789abcdef"
    unfinished.write_bytes(b"half a pack")
    os.utime(unfinished, (1_000_000_000, 1_000_000_000))

    place.done("backup")

    assert not unfinished.exists()


def test_a_second_signal_ends_the_run_at_once(place: Place, server: Watched, truth: Counter[str]) -> None:
    server.gate = 6
    process = place.start("backup")
    assert server.reached.wait(SECONDS)
    process.send_signal(signal.SIGINT)
    assert "stopping in order" in process.stderr.readline()  # type: ignore[union-attr]
    process.send_signal(signal.SIGINT)

    assert place.end(process).code == 130

    server.go.set()
    nothing_lost(place, truth)
    next_run_completes(place, truth)


def test_a_signal_before_anything_was_read(place: Place, server: Watched, truth: Counter[str]) -> None:
    server.on(rb"LIST", _waiting(server), times=1)
    process = place.start("backup")
    assert server.reached.wait(SECONDS)
    process.send_signal(signal.SIGTERM)
    assert "stopping in order" in process.stderr.readline()  # type: ignore[union-attr]
    server.go.set()

    result = place.end(process)

    assert result.code == 130
    place.clear(result, saying=["alice: stopped"])
    assert place.snapshots() == []
    next_run_completes(place, truth)


def _waiting(server: Watched) -> Callable[[bytes], bytes]:
    def answer(words: bytes) -> bytes:
        server.reached.set()
        server.go.wait(SECONDS)
        return server._answer(words, [])

    return answer


Moment = Callable[[Place, Watched], Callable[[], bool]]


def _fetch(number: int) -> Moment:
    return lambda place, server: lambda: server.fetches >= number


def _object(folder: str) -> Moment:
    return lambda place, server: lambda: bool(place.names(folder))


def _unfinished(place: Place, server: Watched) -> Callable[[], bool]:
    folder = place.repository / ".tmp"
    return lambda: folder.is_dir() and any(folder.iterdir())


MOMENTS: dict[str, Moment] = {
    "connected": lambda place, server: lambda: server.connections > 0,
    "first messages": _fetch(1),
    "half of the messages": _fetch(5),
    "a pack half written": _unfinished,
    "first pack": _object("packs/"),
    "index": _object("index/"),
    "snapshot": _object("snapshots/"),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_backup_killed_at_any_moment(place: Place, server: Watched, truth: Counter[str], moment: str) -> None:
    process: Started = place.start("backup")
    when(process, MOMENTS[moment](place, server))
    kill(process)
    assert place.end(process).code in (-signal.SIGKILL, 0)

    nothing_lost(place, truth)
    next_run_completes(place, truth)
