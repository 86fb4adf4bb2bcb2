"""`backupd run` and the service manager that started it: it is told when all is ready, and fed while work advances."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.config import load
from backupd.daemon.engine import Engine
from backupd.daemon.notifying import Notifying
from backupd.daemon.pulse import JOB_SECONDS, Pulse
from backupd.daemon.tasks import Tasks, utc
from tests.support.command import Place, imap
from tests.support.dovecot_account import Account
from tests.support.service_manager import Manager


class Nobody:
    """Hears what happened, and tells nobody."""

    def tell(self, event: object) -> None:
        pass


def engine_of(place: Place, pulse: Pulse) -> Engine:
    config = load(place.config)
    return Engine(config, Notifying(Nobody(), lambda: config, lambda account: None), pulse=pulse)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """A manager that wants a sign of life each second from what is started from here."""
    with Manager(str(tmp_path / "notify")) as made:
        monkeypatch.setenv("NOTIFY_SOCKET", made.address)
        monkeypatch.setenv("WATCHDOG_USEC", "1000000")
        yield made


@pytest.fixture
def place(tmp_path: Path, account: Account) -> Place:
    found = Place(tmp_path)
    found.configure({"alice": imap(account)})
    return found


def test_it_tells_that_it_is_ready_reloads_and_ends(manager: Manager, place: Place) -> None:
    place.create()
    process = place.start("run")
    try:
        for _ in ("the state", "the repository"):
            assert manager.heard()[0].startswith("EXTEND_TIMEOUT_USEC="), "opening what is large may take its time"
        ready = manager.heard()
        assert ready[0] == "READY=1"
        assert ready[1].startswith("STATUS=1 account")
        for _ in range(3):
            manager.next("WATCHDOG=1")
        for text in (place.config.read_text(), "nonsense"):  # one that is right, and one that is wrong
            place.config.write_text(text)
            process.send_signal(signal.SIGHUP)
            reloading = manager.next("RELOADING=1")
            assert reloading[1].startswith("MONOTONIC_USEC=")
            manager.next("READY=1")
        process.send_signal(signal.SIGTERM)
        manager.next("STOPPING=1")
        assert process.wait(30) == 0
    finally:
        place.end(process)


def test_what_cannot_begin_is_never_ready(manager: Manager, place: Place) -> None:
    result = place.run("run")
    assert result.code == 10, "there is no repository"
    for _ in ("the state", "the repository"):
        assert manager.heard()[0].startswith("EXTEND_TIMEOUT_USEC=")
    assert manager.nothing()


@pytest.mark.parametrize(("timeout", "silence"), [(60.0, JOB_SECONDS), (3600.0, 36000.0)])
def test_an_account_whose_server_has_gone_silent_counts_as_hung_in_the_end(
    tmp_path: Path, timeout: float, silence: float
) -> None:
    now = [1000.0]
    pulse = Pulse(clock=lambda: now[0])
    place = Place(tmp_path)
    place.create()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        server = {"host": "127.0.0.1", "port": silent.getsockname()[1], "tls": "none", "timeout": timeout}
        place.configure({"alice": {**server, "username": "alice", "password": "secret"}})
        engine = engine_of(place, pulse)
        try:
            engine.trigger(["alice"])
            silent.settimeout(30)
            connection = silent.accept()[0]
            now[0] += silence
            pulse.beat()
            assert pulse.healthy()
            now[0] += 1
            assert [each.name for each in pulse.silent()] == ["alice"]
        finally:
            connection.close()
            engine.close()
    pulse.beat()
    assert pulse.healthy()


def test_a_copy_gets_on_with_each_object(tmp_path: Path) -> None:
    ticks = [0.0]

    def clock() -> float:  # each sign of life looks at it
        ticks[0] += 1
        return ticks[0]

    place = Place(tmp_path)
    place.create()
    place.configure({}, copies=[tmp_path / "copy"])
    pulse = Pulse(clock=clock)
    engine = engine_of(place, pulse)
    try:
        jobs = Tasks(engine.config, engine._accounts, engine.state, utc, pulse).all()
        before = ticks[0]
        said = jobs["copy"][1](threading.Event())
    finally:
        engine.close()
    copied = len(place.names(""))
    assert said == f"{tmp_path}/copy: {copied} objects copied"
    assert ticks[0] - before > copied
    pulse.beat()
    assert pulse.healthy(), "a copy that has ended is no hung job"
