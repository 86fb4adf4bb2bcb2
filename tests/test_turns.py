"""Threads that work take turns; a thread that waits lets others work."""

from __future__ import annotations

import threading

import pytest

from backupd.turns import Turn


class Worker(threading.Thread):
    """Takes a turn, says so, and keeps it until it is told to leave."""

    def __init__(self, turn: Turn, name: str, order: list[str]) -> None:
        super().__init__(name=name, daemon=True)
        self.turn, self.order = turn, order
        self.may_leave = threading.Event()
        self.working = threading.Event()

    def run(self) -> None:
        with self.turn:
            self.order.append(self.name)
            self.working.set()
            self.may_leave.wait(30)


def waiting(turn: Turn, count: int) -> None:
    """Wait until so many threads are in the queue."""
    pause = threading.Event()
    while len(turn._queue) < count:
        pause.wait(0.001)


def test_one_thread_works_at_a_time_and_the_next_is_the_one_that_waited_longest() -> None:
    turn, order = Turn(), list[str]()
    workers = [Worker(turn, name, order) for name in ("first", "second", "third")]
    for number, worker in enumerate(workers):
        worker.start()
        workers[0].working.wait(30)
        waiting(turn, number)
    assert order == ["first"]
    for worker in workers:
        worker.may_leave.set()
        worker.join(30)
    assert order == ["first", "second", "third"]


def test_others_work_while_the_turn_is_given_up() -> None:
    turn, order = Turn(), list[str]()
    other = Worker(turn, "other", order)
    with turn:
        other.start()
        waiting(turn, 1)
        with turn.given_up():
            assert other.working.wait(30)
            assert not turn.is_mine
            other.may_leave.set()
        assert turn.is_mine
    other.join(30)
    assert order == ["other"]


def test_giving_up_without_a_turn_is_nothing() -> None:
    turn = Turn()
    with turn.given_up():
        assert not turn.is_mine
    assert not turn.is_mine


def test_an_error_ends_the_turn() -> None:
    turn = Turn()
    with pytest.raises(RuntimeError), turn, turn.given_up():
        raise RuntimeError("while waiting")
    assert not turn.is_mine
    with turn:
        assert turn.is_mine
