"""Pings to a real HTTP server: start, success when all was backed up, failure with its reason; retried, bounded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from backupd.errors import ConfigError
from backupd.operations.notices import pings
from backupd.operations.notices.pings import OVERALL, Pinger, address, ask
from backupd.operations.notices.sending import NotDelivered
from tests.support.listeners import HttpListener, Request, nobody, silent, wait_for

Begin = Callable[..., Pinger]


@pytest.fixture(scope="module")
def server() -> Iterator[HttpListener]:
    server = HttpListener()
    yield server
    server.close()


class Lines:
    """A log that is kept."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, event: str, **fields: object) -> None:
        self.lines.append(f"{event} {fields}")

    warning = error = info


@pytest.fixture
def begin(server: HttpListener) -> Iterator[Begin]:
    """begin("alice") pings for it; "" is all together. Quick about retries."""
    begun: list[Pinger] = []
    server.so_far()
    server.answers = []

    def begin(*names: str, accounts: tuple[str, ...] = ("alice", "bob"), **options: object) -> Pinger:
        urls = {name: (lambda name=name: server.url(path=f"/ping/{name or 'all'}")) for name in names}
        begun.append(Pinger(urls, accounts, pauses=(0.01, 0.02), **options))  # type: ignore[arg-type]
        return begun[-1]

    yield begin
    for each in begun:
        assert each.close(5)


def test_a_backup_is_pinged_at_its_beginning_and_at_its_end(server: HttpListener, begin: Begin) -> None:
    pinger = begin("alice")
    pinger.started("alice")
    assert server.next() == Request("/ping/alice/start", "")
    pinger.ended("alice")
    assert server.next() == Request("/ping/alice", "")
    pinger.ended("alice", "the login is refused (check imap.password)")
    assert server.next() == Request("/ping/alice/fail", "the login is refused (check imap.password)")
    pinger.started("bob")
    pinger.ended("bob")
    assert pinger.close(5)
    assert server.so_far() == [], "bob has no address"


def test_all_together_succeed_when_the_last_run_of_each_left_nothing_out(server: HttpListener, begin: Begin) -> None:
    now = [0.0]
    pinger = begin(OVERALL, clock=lambda: now[0])
    pinger.ended("alice")
    pinger.ended("bob", "1 could not be backed up")
    assert server.next() == Request("/ping/all/fail", "bob: 1 could not be backed up")
    pinger.ended("alice")
    pinger.ended("bob")
    assert server.next() == Request("/ping/all", "")
    for _ in range(50):
        pinger.ended("alice")
    now[0] += 61
    pinger.ended("bob")
    assert server.next() == Request("/ping/all", "")
    assert pinger.close(5)
    assert server.so_far() == []


def test_after_a_restart_what_the_last_runs_came_to_is_known(server: HttpListener, begin: Begin) -> None:
    begin(OVERALL, complete={"alice": False, "bob": True}).ended("bob")
    pinger = begin(OVERALL, complete={"alice": True, "bob": False})
    pinger.ended("bob")
    assert server.next() == Request("/ping/all", "")
    assert pinger.close(5)
    assert server.so_far() == []


def test_a_service_that_fails_is_asked_again_and_one_that_refuses_is_not(server: HttpListener, begin: Begin) -> None:
    log = Lines()
    pinger = begin("alice", log=log)
    server.answers = [500, 503]
    pinger.ended("alice")
    assert [server.next().path for _ in range(3)] == ["/ping/alice"] * 3
    wait_for(lambda: not pinger._under_way)
    assert log.lines == []
    server.answers = [404, 404]
    for _ in range(2):
        pinger.ended("alice")
        server.next()
        wait_for(lambda: not pinger._under_way)
    assert log.lines == ["ping not delivered {'check': 'alice', 'why': 'the service answered 404'}"], "told once"
    pinger.ended("alice")
    server.next()
    wait_for(lambda: len(log.lines) == 2)
    assert log.lines[1] == "pings are delivered again {'check': 'alice'}"


def test_of_several_pings_for_one_address_the_latest_counts(begin: Begin) -> None:
    asked: list[str] = []

    def slow(url: str, body: str) -> None:
        asked.append(url.rpartition("/ping/")[2])
        time.sleep(0.1)
        raise NotDelivered("no route")

    pinger = begin("alice", request=slow)
    pinger.started("alice")
    wait_for(lambda: asked)
    for _ in range(100):
        pinger.started("alice")
        pinger.ended("alice")
    assert pinger.close(5)
    assert set(asked[1:]) == {"alice"}
    assert len(asked) <= 5


def test_a_server_that_never_ends_its_answer_is_left_in_time() -> None:
    with silent(b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 1000, every=0.05) as port:
        began = time.monotonic()
        with pytest.raises(NotDelivered):
            ask(f"http://127.0.0.1:{port}/x", "", seconds=0.5)
        assert time.monotonic() - began < 3
    with silent() as port, pytest.raises(NotDelivered, match="no answer"):
        ask(f"http://127.0.0.1:{port}/x", "", seconds=0.3)
    with pytest.raises(NotDelivered, match="refused"):
        ask(f"http://127.0.0.1:{nobody()}/x", "")


def test_whoever_closes_waits_no_longer_than_told(begin: Begin) -> None:
    with silent() as port:
        pinger = Pinger({"alice": lambda: f"http://127.0.0.1:{port}/"}, ["alice"])
        pinger.ended("alice")
        began = time.monotonic()
        assert not pinger.close(0.5)
        assert time.monotonic() - began < 2


def test_addresses() -> None:
    assert address("https://hc.example.com/ping/uuid", "/start") == "https://hc.example.com/ping/uuid/start"
    assert address("https://hc.example.com/ping/uuid/", "/fail") == "https://hc.example.com/ping/uuid/fail"
    assert (
        address("https://kuma.example.com/api/push/x?status=up", "") == "https://kuma.example.com/api/push/x?status=up"
    )
    for wrong in ("file:///etc/passwd", "ftp://x/", "hc.example.com/ping", "http://"):
        with pytest.raises(ConfigError, match="not http"):
            address(wrong, "")
    assert pings.THREADS >= 2
