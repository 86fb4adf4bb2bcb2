"""Small pieces of work, one after the other in one session."""

from __future__ import annotations

import gc
import weakref

import pytest

from backupd.errors import ConnectionLost, ServerRefused
from backupd.operations.backup import backup
from backupd.operations.batch import Batch
from backupd.operations.chunk import Chunk
from backupd.operations.events import Advance
from backupd.operations.state import State
from backupd.operations.stopping import Stop
from backupd.repository.repository import Repository
from backupd.sources.base import Session
from tests.support.mail import message
from tests.support.simulated_account import SimulatedAccount


class Piece:
    """Returns its name, or fails with these errors first."""

    def __init__(self, name: str, *errors: Exception) -> None:
        self.name, self.errors, self.progress = name, list(errors), 0

    def __call__(self, session: Session) -> str:
        if self.errors:
            raise self.errors.pop(0)
        self.progress += 1
        return self.name


@pytest.fixture
def session() -> Session:
    return SimulatedAccount().open()


def test_a_refusal_is_an_outcome_and_the_rest_goes_on(session: Session) -> None:
    no = ServerRefused("NO")
    batch = Batch([Piece("a"), Piece("b", no), Piece("c")], lambda session: None, Stop())
    batch(session)
    assert batch.outcomes == ["a", no, "c"]


def test_after_a_lost_connection_it_goes_on_where_it_was_and_asks_nothing_ahead(session: Session) -> None:
    expected: list[Session] = []
    batch = Batch([Piece("a"), Piece("b", ConnectionLost("cut")), Piece("c")], expected.append, Stop())
    with pytest.raises(ConnectionLost):
        batch(session)
    reached = batch.progress

    batch(session)

    assert batch.outcomes == ["a", "b", "c"]
    assert batch.progress > reached
    assert expected == [session]


def test_once_stopped_nothing_is_asked(session: Session) -> None:
    stop = Stop()
    stop.set()
    expected: list[Session] = []
    batch = Batch([Piece("a")], expected.append, stop)
    batch(session)
    assert (batch.outcomes, expected) == ([], [])


def test_what_is_done_is_let_go(session: Session) -> None:
    pieces = [Piece(name) for name in "abc"]
    alive = [weakref.ref(piece) for piece in pieces]
    seen: list[int] = []

    class Last(Piece):
        def __call__(self, session: Session) -> str:
            gc.collect()
            seen.append(sum(each() is not None for each in alive))
            return super().__call__(session)

    batch = Batch([*pieces, Last("d")], lambda session, each=tuple(pieces): None, Stop())
    del pieces
    batch(session)
    assert seen == [0]


def test_a_run_holds_the_messages_of_the_stretches_under_way_and_of_no_other(
    repository: Repository, state: State
) -> None:
    account = SimulatedAccount(connections=1)
    account.append(b"INBOX", *(message(f"Message {number}") for number in range(3000)))
    held: list[int] = []

    def observe(event: object) -> None:
        if isinstance(event, Advance):
            gc.collect()
            held.append(sum(each.progress for each in gc.get_objects() if isinstance(each, Chunk)))

    gc.collect()
    gc.freeze()  # what is there before is of no interest, and takes most of the time to look through
    report = backup(repository, account, "alice", state=state, observer=observe)

    assert report.new == 3000
    assert len(held) >= 20
    # A stretch is a quarter of what is left: the first is the largest, and it is gone before the last.
    assert max(held[len(held) // 2 :]) < 800
