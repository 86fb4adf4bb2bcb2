"""Sessions are shared, opened again when cut, and never more than the server allows."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from backupd.errors import ConnectionFailed, ConnectionLost, Interrupted, LoginRefused, ServerRefused
from backupd.operations import session_pool
from backupd.operations.session_pool import Once, SessionPool
from backupd.operations.stopping import Stop
from tests.support.simulated_account import SimulatedAccount, SimulatedSession


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pool, "PAUSES", (0.0, 0.0, 0.0))


class Limited(SimulatedAccount):
    """A server that allows only so many connections, and says no to the rest in its own way."""

    def __init__(self, most: int, error: Exception) -> None:
        super().__init__(connections=4)
        self.most, self.error = most, error

    def open(self) -> SimulatedSession:
        if self.opened >= self.most:
            raise self.error
        return super().open()


@pytest.mark.parametrize("error", [LoginRefused("too many"), ConnectionFailed("too many"), ConnectionLost("too many")])
def test_a_server_that_allows_fewer_connections_is_used_with_those(error: Exception) -> None:
    pool = SessionPool(Limited(2, error), stop=Stop())
    together = threading.Barrier(2)

    def work(session: object) -> object:
        together.wait(10)
        return session

    with ThreadPoolExecutor(4) as threads:
        sessions = set(threads.map(lambda _: pool.run(Once(work)), range(8)))
    assert len(sessions) == 2


def test_the_first_connection_that_fails_is_told_at_once() -> None:
    with pytest.raises(ConnectionFailed):
        SessionPool(Limited(0, ConnectionFailed("nobody")), stop=Stop()).run(Once(lambda session: session))


def test_a_lost_connection_is_replaced_and_a_refusal_is_not_tried_again() -> None:
    account = SimulatedAccount()
    pool = SessionPool(account, stop=Stop())
    calls = []

    def lost_once(session: object) -> str:
        calls.append(session)
        if len(calls) == 1:
            raise ConnectionLost("cut")
        return "done"

    def refused(session: object) -> None:
        calls.append(session)
        raise ServerRefused("NO")

    assert pool.run(Once(lost_once)) == "done"
    assert account.opened == 2
    with pytest.raises(ServerRefused):
        pool.run(Once(refused))
    assert len(calls) == 3
    assert account.opened == 2


def test_trying_again_has_an_end() -> None:
    account = SimulatedAccount()

    def lost(session: object) -> None:
        raise ConnectionLost("cut")

    with pytest.raises(ConnectionLost):
        SessionPool(account, stop=Stop()).run(Once(lost))
    assert account.opened == 3


def test_waiting_for_the_server_ends_when_the_user_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_pool, "PAUSES", (60.0, 60.0))
    wish = threading.Event()

    def lost(session: object) -> None:
        wish.set()
        raise ConnectionLost("cut")

    with pytest.raises(Interrupted):
        SessionPool(SimulatedAccount(), stop=Stop(wish)).run(Once(lost))
