"""The desk: one run of an account at a time, none lost, none beyond the budget, none in quiet hours."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.daemon.budget import OCTETS_PER_CONNECTION, Budget, Limits
from backupd.daemon.desk import Desk, Place

SECONDS = 20.0
PLENTY = Limits(accounts=3, per_host=100, memory=100 * OCTETS_PER_CONNECTION)


class Clock:
    """Seconds that go on when they are told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Worker:
    """Notes what it is given, and works until it may end."""

    def __init__(self) -> None:
        self.begun: list[tuple[str, int]] = []
        self.under_way: dict[str, int] = {}
        self.most_together = 0
        self.may_end = threading.Event()
        self.may_end.set()
        self.changed = threading.Condition()

    def __call__(self, name: str, connections: int) -> None:
        with self.changed:
            assert name not in self.under_way
            self.begun.append((name, connections))
            self.under_way[name] = connections
            self.most_together = max(self.most_together, len(self.under_way))
            self.changed.notify_all()
        self.may_end.wait(SECONDS)
        with self.changed:
            del self.under_way[name]
            self.changed.notify_all()

    def wait(self, count: int) -> list[str]:
        """Names of the first so many that were begun."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, SECONDS)
            return [name for name, _ in self.begun[:count]]

    def settled(self) -> int:
        """How many were begun, once nothing more happens."""
        with self.changed:
            while self.changed.wait(0.05):
                pass
            return len(self.begun)


@contextmanager
def desk(worker: Worker, limits: Limits = PLENTY, names: str = "abc", **options: object) -> Iterator[Desk]:
    found = Desk(worker, limits, **options)  # type: ignore[arg-type]
    found.set_accounts({name: Place("mail.example.com", 2) for name in names})
    try:
        yield found
    finally:
        worker.may_end.set()
        assert found.close(SECONDS)


def test_what_is_asked_for_many_times_while_it_waits_is_one_run() -> None:
    worker, clock = Worker(), Clock()
    with desk(worker, clock=clock) as found:
        for _ in range(10):
            found.request("a", delay=5)
        clock.now += 5
        found.request("b")
        assert sorted(worker.wait(2)) == ["a", "b"]
        assert worker.settled() == 2


def test_what_is_asked_for_while_it_runs_is_one_more_run_after_it() -> None:
    worker = Worker()
    worker.may_end.clear()
    with desk(worker) as found:
        found.request("a")
        worker.wait(1)
        for _ in range(5):
            found.request("a")
        assert worker.settled() == 1
        worker.may_end.set()
        assert worker.wait(2) == ["a", "a"]
        assert worker.settled() == 2


def test_an_unknown_account_is_not_taken() -> None:
    with desk(Worker()) as found:
        assert not found.request("nobody")


def test_an_account_on_hold_waits_unless_a_person_asks() -> None:
    worker, clock = Worker(), Clock()
    with desk(worker, clock=clock) as found:
        found.hold("a", 300)
        found.request("a")
        assert worker.settled() == 0
        assert found.waiting() == {"a": 300}
        found.request("a", by_hand=True)
        assert worker.wait(1) == ["a"]
        clock.now += 300
        found.request("a")
        assert worker.wait(2) == ["a", "a"]


def test_nothing_begins_in_quiet_hours_unless_a_person_asks() -> None:
    worker, quiet = Worker(), [3600.0]
    with desk(worker, quiet=lambda: quiet[0]) as found:
        found.request("a")
        found.request("b", by_hand=True)
        assert worker.wait(1) == ["b"]
        assert worker.settled() == 1
        quiet[0] = 0
        found.request("c")  # whatever wakes it
        assert sorted(worker.wait(3)) == ["a", "b", "c"]


def test_a_run_that_asked_for_space_is_not_followed_at_once() -> None:
    worker, clock = Worker(), Clock()
    worker.may_end.clear()
    with desk(worker, clock=clock) as found:
        found.request("a")
        worker.wait(1)
        found.space("a", 10)
        found.request("a")
        worker.may_end.set()
        assert worker.settled() == 1
        clock.now += 10
        found.request("b")
        assert sorted(worker.wait(3)) == ["a", "a", "b"]


def test_no_more_accounts_at_once_than_the_budget_allows_and_all_have_their_turn() -> None:
    worker = Worker()
    with desk(worker, Limits(2, 100, 100 * OCTETS_PER_CONNECTION), names="abcdefgh") as found:
        for name in "abcdefgh":
            found.request(name)
        assert sorted(worker.wait(8)) == list("abcdefgh")
    assert worker.most_together <= 2


def test_accounts_of_one_host_wait_for_its_connections_and_those_of_another_do_not() -> None:
    worker = Worker()
    worker.may_end.clear()
    with desk(worker, Limits(4, 3, 100 * OCTETS_PER_CONNECTION), names="") as found:
        found.set_accounts({"a": Place("one", 2), "b": Place("one", 2), "c": Place("one", 2), "d": Place("two", 2)})
        for name in "abcd":
            found.request(name)
        worker.wait(3)
        assert worker.settled() == 3
        assert sorted(worker.begun) == [("a", 2), ("b", 1), ("d", 2)]


def test_an_account_that_is_removed_while_it_runs_ends_and_is_not_begun_again() -> None:
    worker = Worker()
    worker.may_end.clear()
    with desk(worker) as found:
        found.request("a")
        worker.wait(1)
        found.request("a")
        found.set_accounts({"b": Place("mail.example.com", 1)})
        worker.may_end.set()
        found.request("b")
        assert worker.wait(2) == ["a", "b"]
        assert worker.settled() == 2


def test_an_account_that_moves_to_another_host_while_it_runs_leaves_no_connection_taken() -> None:
    worker = Worker()
    worker.may_end.clear()
    with desk(worker, Limits(1, 2, 100 * OCTETS_PER_CONNECTION), names="") as found:
        found.set_accounts({"a": Place("old", 2), "b": Place("old", 2)})
        found.request("a")
        worker.wait(1)
        found.set_accounts({"a": Place("new", 2), "b": Place("old", 2)})
        worker.may_end.set()
        found.request("b")
        found.request("a")
        assert sorted(worker.wait(3)) == ["a", "a", "b"]


def test_closing_begins_nothing_more_and_says_whether_all_has_ended() -> None:
    worker = Worker()
    worker.may_end.clear()
    found = Desk(worker, PLENTY)
    found.set_accounts({"a": Place("host", 1), "b": Place("host", 1)})
    found.request("a")
    worker.wait(1)
    assert not found.close(0.05)
    found.request("b")
    worker.may_end.set()
    assert found.close(SECONDS)
    assert worker.begun == [("a", 1)]


def test_under_fire_from_many_threads_every_request_is_followed_by_a_run() -> None:
    names = [f"account-{number}" for number in range(20)]
    seen: dict[str, int] = dict.fromkeys(names, 0)
    wanted: dict[str, int] = dict.fromkeys(names, 0)

    def work(name: str, connections: int) -> None:
        seen[name] = wanted[name]  # what was asked for before this run began
        time.sleep(0.0005)

    found = Desk(work, PLENTY)
    found.set_accounts({name: Place("host", 1) for name in names})

    def ask(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(200):
            name = chance.choice(names)
            wanted[name] += 1
            found.request(name)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until = time.monotonic() + SECONDS
    while (found.waiting() or found.running()) and time.monotonic() < until:
        time.sleep(0.01)
    assert found.close(SECONDS)
    assert seen == wanted


@settings(max_examples=200)
@given(
    st.integers(1, 5), st.integers(1, 8), st.integers(1, 10),
    st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 6), st.booleans()), max_size=60),
)  # fmt: skip
def test_the_budget_is_never_exceeded_and_comes_back_whole(
    accounts: int, per_host: int, connections: int, steps: list[tuple[str, int, bool]]
) -> None:
    budget = Budget(Limits(accounts, per_host, connections * OCTETS_PER_CONNECTION))
    taken: list[tuple[str, int]] = []
    for host, wanted, give in steps:
        if give and taken:
            budget.give_back(*taken.pop())
            continue
        granted = budget.take(host, wanted)
        assert 0 <= granted <= wanted
        if granted:
            taken.append((host, granted))
        else:  # something is full
            assert (
                len(taken) == accounts
                or sum(each for _, each in taken) == connections
                or sum(each for other, each in taken if other == host) == per_host
            )
        assert len(taken) <= accounts
        assert sum(each for _, each in taken) <= connections
        assert sum(each for other, each in taken if other == host) <= per_host
    while taken:
        budget.give_back(*taken.pop())
    assert budget.take("x", 1) == 1


def test_who_waits_for_a_turn_is_counted_from_when_it_was_due() -> None:
    clock, worker, quiet = Clock(), Worker(), [0.0]
    worker.may_end.clear()
    desk = Desk(worker, Limits(1, 10, OCTETS_PER_CONNECTION), clock=clock, quiet=lambda: quiet[0])
    desk.set_accounts({name: Place("host", 1) for name in ("a", "b", "c")})
    desk.request("a")
    assert worker.wait(1) == ["a"]
    desk.request("b", delay=10)
    desk.request("c", delay=100)
    assert desk.behind() == (0, 0.0), "nobody is due yet"
    clock.now += 30
    assert desk.behind() == (1, 20.0)
    quiet[0] = 60.0
    assert desk.behind() == (0, 0.0), "in quiet hours nobody waits for a turn"
    quiet[0] = 0.0
    desk.hold("b", 100)
    assert desk.behind() == (0, 0.0), "nor does who is held"
    worker.may_end.set()
    assert desk.close(SECONDS)
