"""What systemd hears, on real sockets of both kinds; and that nothing is said where nobody listens."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.daemon.pulse import Pulse
from backupd.daemon.supervisor import LONGEST_STATUS, Feeder, Supervisor
from tests.support.service_manager import Manager


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    """A manager with a socket in the file system, and one with an abstract socket (Linux alone has them)."""
    made = Manager(str(tmp_path / "notify") if request.param == "path" else f"@backupd-test-{secrets.token_hex(8)}")
    with made:
        yield made


def test_ready_status_reload_and_stop_are_told(manager: Manager) -> None:
    supervisor = Supervisor.from_environment({"NOTIFY_SOCKET": manager.address})
    assert supervisor.present
    supervisor.extend(90.5)
    assert manager.heard() == ["EXTEND_TIMEOUT_USEC=90500000"]
    supervisor.ready("watching 3 accounts")
    assert manager.heard() == ["READY=1", "STATUS=watching 3 accounts"]
    supervisor.status("alice is being backed up")
    assert manager.heard() == ["STATUS=alice is being backed up"]
    supervisor.reloading(clock=lambda: 1_234_567_890)
    assert manager.heard() == ["RELOADING=1", "MONOTONIC_USEC=1234567"]
    supervisor.ready()
    assert manager.heard() == ["READY=1"]
    supervisor.stopping("a checkpoint is written")
    assert manager.heard() == ["STOPPING=1", "STATUS=a checkpoint is written"]


def test_a_reload_is_dated_by_the_clock_systemd_compares_it_with(manager: Manager) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    Supervisor(manager.address).reloading()
    told = int(manager.heard()[1].removeprefix("MONOTONIC_USEC="))
    assert before <= told <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def test_who_does_not_listen_is_waited_for_once_until_it_does(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float | None] = []
    of_socket = socket.socket.settimeout

    def noted(self: socket.socket, seconds: float | None) -> None:
        waits.append(seconds)
        of_socket(self, seconds and 0.01)

    told: list[str] = []
    supervisor = Supervisor(manager.address, tell=told.append)
    monkeypatch.setattr(socket.socket, "settimeout", noted)
    while not told:
        supervisor.alive()
    for _ in range(3):
        supervisor.alive()
    assert waits[-4:] == [5.0, 0, 0, 0]
    assert len(told) == 1
    manager.raw()
    supervisor.alive()
    supervisor.alive()
    assert waits[-2:] == [0, 5.0]


def test_the_same_status_is_told_once(manager: Manager) -> None:
    supervisor = Supervisor(manager.address)
    for text in ("idle", "idle", "busy", "idle"):
        supervisor.status(text)
    assert [manager.heard() for _ in range(3)] == [["STATUS=idle"], ["STATUS=busy"], ["STATUS=idle"]]
    assert manager.nothing()


@given(st.text(max_size=3000))
def test_whatever_a_status_holds_it_is_one_line_that_fits(text: str) -> None:
    with Manager(f"@backupd-test-{secrets.token_hex(8)}") as manager:
        Supervisor(manager.address).status(text or "-")
        raw = manager.raw()
    line = raw.decode()
    assert line.startswith("STATUS=")
    assert line.isprintable()
    assert len(raw) <= LONGEST_STATUS


def test_where_nobody_listens_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nobody asked for a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "@"}):
        supervisor = Supervisor.from_environment({**environ, "WATCHDOG_USEC": "2000000"}, tell=refuse)
        assert not supervisor.present
        assert supervisor.watchdog is None
        supervisor.ready("on")
        supervisor.reloading()
        supervisor.extend(1)
        supervisor.status("on")
        supervisor.alive()
        supervisor.stopping()
        with supervisor.feeding(Pulse()):
            pass


def test_a_manager_that_has_gone_is_told_of_once_and_harms_nothing(tmp_path: Path) -> None:
    told: list[str] = []
    path = tmp_path / "notify"
    supervisor = Supervisor(str(path), tell=told.append)
    supervisor.ready()
    supervisor.status("on")
    assert len(told) == 1
    assert str(path) in told[0]
    with Manager(str(path)) as manager:
        supervisor.alive()
        assert manager.heard() == ["WATCHDOG=1"]
    path.unlink()
    supervisor.alive()
    assert len(told) == 2, "it was there in between"


def test_programs_that_the_daemon_starts_are_none_of_the_managers_business() -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "PATH": "/bin"}
    Supervisor.from_environment(environ)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("microseconds", "pid", "seconds"),
    [
        ("120000000", "", 120.0),
        ("1500000", "4711", 1.5),
        ("120000000", "1", None),
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
        ("-5", "", None),
    ],
)
def test_the_watchdog_is_fed_when_it_is_meant_for_this_process(
    microseconds: str, pid: str, seconds: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": "/nowhere", "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    assert Supervisor.from_environment(environ, pid=4711).watchdog == seconds


# -- the watchdog ------------------------------------------------------------------------------------------------------


def test_the_watchdog_is_fed_only_while_work_advances() -> None:
    now, fed, told = [0.0], [], []
    pulse = Pulse(main=10, job=100, clock=lambda: now[0])
    feeder = Feeder(lambda: fed.append(now[0]), pulse, told.append)
    with pulse.job("alice") as beat:
        for now[0] in (0, 50, 100, 101, 150):
            pulse.beat()
            feeder.step()
        assert (fed, len(told)) == ([0, 50, 100], 1)
        assert told[0].startswith("no sign of work from alice for 101 s; ")
        beat()
        feeder.step()
    assert fed == [0, 50, 100, 150]
    assert told[1:] == ["work advances again"]


def test_of_many_who_hang_some_are_named() -> None:
    now, told = [0.0], []
    pulse = Pulse(main=10, clock=lambda: now[0])
    with ExitStack() as jobs:
        for number in range(8):
            jobs.enter_context(pulse.job(f"a{number}", 1))
        now[0] = 50
        pulse.beat()
        Feeder(lambda: None, pulse, told.append).step()
    assert " for 50 s and 3 more; " in told[0]
    assert told[0].isprintable()


def test_it_is_fed_twice_in_each_interval_from_the_first_moment_to_the_last(manager: Manager) -> None:
    pulse = Pulse()
    supervisor = Supervisor(manager.address, 0.2)
    with supervisor.feeding(pulse):
        times = []
        for _ in range(5):
            assert manager.heard() == ["WATCHDOG=1"]
            times.append(time.monotonic())
    assert times[-1] - times[0] >= 0.35
    while not manager.nothing():
        pass
    time.sleep(0.15)
    assert manager.nothing(), "after the block nobody says any more that work advances"
