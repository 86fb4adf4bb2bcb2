"""A server that answers with an octet now and then, for ever: the run ends, and what it had is kept."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest

from backupd.errors import ConnectionLost
from backupd.operations import session_pool
from backupd.operations.backup import backup
from backupd.operations.chunk import STALLS, STRIKES
from backupd.operations.state import State
from backupd.repository.repository import Repository
from backupd.sources.imap import ImapSource
from backupd.wire import patience
from backupd.wire.imap_settings import ImapSettings
from tests.support.reading import newest
from tests.support.scripted_imap import PASSWORD, USER, ScriptedImap
from tests.support.scripted_reading import BODY_FETCH, box_of

TIMEOUT = 0.2


@pytest.fixture
def server() -> Iterator[ScriptedImap]:
    """It gives ten messages and then an octet at a time, on whatever connection is the latest."""
    with ScriptedImap({b"INBOX": box_of()}) as running:
        over = threading.Event()

        def drip() -> None:
            while not over.wait(TIMEOUT / 4):
                if running.received(BODY_FETCH):
                    with contextlib.suppress(OSError):
                        running.say(b".")

        def ten(command: bytes) -> bytes:
            some = range(1, 11) if b" 1:30 " in command else ()
            return b"".join(running.fetched(running.boxes[b"INBOX"], uid, command) for uid in some) + b"* OK "

        running.on(BODY_FETCH, ten)
        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        yield running
        over.set()
        thread.join()


def test_a_run_is_not_held_for_ever(
    repository: Repository, state: State, server: ScriptedImap, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_pool, "PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(patience, "TIMEOUTS", 2)
    settings = ImapSettings(server.host, USER, PASSWORD, port=server.port, tls="none", timeout=TIMEOUT)
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="so little"):
        backup(repository, ImapSource(settings, 1), "alice", state=state)
    tries = len(server.received(BODY_FETCH))
    assert tries == STRIKES * (STALLS + 1)  # and not for each of the messages
    assert time.monotonic() - began < tries * 5 * TIMEOUT + 20  # on a busy machine
    assert newest(repository).checkpoint
    assert state.runs("alice")[0].outcome == "failed"
