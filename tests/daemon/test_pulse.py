"""Whoever says nothing for longer than it may is found; whoever waits on purpose is not."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backupd.daemon.pulse import MAIN, Beat, Pulse


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pulse(clock: Clock) -> Pulse:
    """The main loop may be silent for 10 seconds, jobs for 100."""
    return Pulse(main=10, job=100, clock=clock)


def test_a_main_loop_that_stands_still_is_found(pulse: Pulse, clock: Clock) -> None:
    clock.now += 10
    assert pulse.healthy()
    clock.now += 0.5
    assert not pulse.healthy()
    assert pulse.silent() == [(MAIN, 10.5)]
    pulse.beat()
    assert pulse.healthy()


def test_a_job_that_hangs_is_found_while_the_main_loop_turns(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("alice") as beat:
        for _ in range(5):
            clock.now += 60
            beat()
            pulse.beat()
            assert pulse.healthy()
        clock.now += 101
        pulse.beat()
        assert pulse.silent() == [("alice", 101.0)]
    assert pulse.healthy(), "a job that has ended is no hung job"


def test_a_job_may_have_a_patience_of_its_own(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("audit", silence=1000):
        clock.now += 1000
        pulse.beat()
        assert pulse.healthy()
        clock.now += 1
        assert not pulse.healthy()


def test_a_job_that_failed_is_no_hung_job(pulse: Pulse, clock: Clock) -> None:
    with pytest.raises(OSError, match="gone"), pulse.job("alice"):
        raise OSError("gone")
    clock.now += 1000
    pulse.beat()
    assert pulse.healthy()


def test_a_job_that_waits_on_purpose_is_left_alone_for_as_long_as_it_said(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("alice") as beat:
        with beat.waiting(3600):
            clock.now += 3700
            pulse.beat()
            assert pulse.healthy()
            clock.now += 0.5
            assert pulse.silent() == [("alice", 3700.5)]
        assert pulse.healthy(), "it goes on, and that is a sign of life"
        clock.now += 101
        pulse.beat()
        assert not pulse.healthy(), "what it said of its wait does not hold after it"


def test_one_thread_of_a_job_may_sleep_while_another_works(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("alice") as beat, beat.waiting(1000), beat.waiting(10):
        beat()
        clock.now += 500
        pulse.beat()
        assert pulse.healthy()


def test_an_observer_that_knows_only_the_name_can_say_that_work_advances(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("alice"), pulse.job("bob"):
        clock.now += 80
        pulse.beat()
        pulse.moved("alice")
        pulse.moved("nobody")
        clock.now += 80
        pulse.beat()
        assert [each.name for each in pulse.silent()] == ["bob"]


def test_the_longest_silence_comes_first(pulse: Pulse, clock: Clock) -> None:
    with pulse.job("old"):
        clock.now += 50
        with pulse.job("young"):
            clock.now += 140
            pulse.beat()
            clock.now += 10
            assert pulse.silent() == [("old", 200.0), ("young", 150.0)]


def test_many_threads_may_come_and_go(pulse: Pulse) -> None:
    ended = threading.Event()
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for _ in range(300):
                with pulse.job(f"job-{number % 3}") as beat, beat.waiting(1):
                    beat()
                    pulse.moved("job-1")
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is what this test looks for
            wrong.append(error)

    def look() -> None:
        while not ended.is_set():
            if pulse.silent():
                wrong.append(AssertionError("nobody was silent"))

    watcher = threading.Thread(target=look)
    workers = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    watcher.start()
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    ended.set()
    watcher.join()
    assert wrong == []


class AnyOrder(RuleBasedStateMachine):
    """Whatever jobs begin, beat, wait and end in whatever order: those are silent, and only those, that have said
    nothing for longer than they may, counted from the end of the longest wait that they are in."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.pulse = Pulse(main=10, job=100, clock=self.clock)
        self.main = self.clock.now
        self.jobs: list[tuple[str, float, Beat, ExitStack]] = []
        self.last: dict[int, float] = {}
        self.waits: dict[int, list[tuple[float, ExitStack]]] = {}
        self.ended: list[Beat] = []  # kept, so that no id comes again

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def the_main_loop_turns(self) -> None:
        self.pulse.beat()
        self.main = self.clock.now

    @rule(name=st.sampled_from("abc"), silence=st.none() | st.floats(0, 300))
    def a_job_begins(self, name: str, silence: float | None) -> None:
        stack = ExitStack()
        beat = stack.enter_context(self.pulse.job(name, silence))
        self.jobs.append((name, 100.0 if silence is None else silence, beat, stack))
        self.last[id(beat)], self.waits[id(beat)] = self.clock.now, []

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def a_job_beats(self, data: st.DataObject) -> None:
        _, _, beat, _ = data.draw(st.sampled_from(self.jobs))
        beat()
        self.last[id(beat)] = self.clock.now

    @rule(name=st.sampled_from("abcd"))
    def work_of_a_name_moves(self, name: str) -> None:
        self.pulse.moved(name)
        for job, _, beat, _ in self.jobs:
            if job == name:
                self.last[id(beat)] = self.clock.now

    @precondition(lambda self: self.jobs)
    @rule(data=st.data(), seconds=st.floats(0, 500))
    def a_job_begins_to_wait(self, data: st.DataObject, seconds: float) -> None:
        _, _, beat, _ = data.draw(st.sampled_from(self.jobs))
        stack = ExitStack()
        stack.enter_context(beat.waiting(seconds))
        self.waits[id(beat)].append((self.clock.now + seconds, stack))

    @precondition(lambda self: any(self.waits.values()))
    @rule(data=st.data())
    def a_wait_ends(self, data: st.DataObject) -> None:
        beat = data.draw(st.sampled_from([key for key, waits in self.waits.items() if waits]))
        _, stack = self.waits[beat].pop(data.draw(st.integers(0, len(self.waits[beat]) - 1)))
        stack.close()
        self.last[beat] = self.clock.now

    @precondition(lambda self: self.jobs)
    @rule(data=st.data())
    def a_job_ends(self, data: st.DataObject) -> None:
        place = data.draw(st.integers(0, len(self.jobs) - 1))
        _, _, beat, stack = self.jobs.pop(place)
        for _, wait in self.waits.pop(id(beat)):
            wait.close()
        stack.close()
        self.ended.append(beat)

    @invariant()
    def the_silent_are_found_and_nobody_else(self) -> None:
        now = self.clock.now
        expected = [MAIN] if now > self.main + 10 else []
        for name, silence, beat, _ in self.jobs:
            until = max([self.last[id(beat)], *(end for end, _ in self.waits[id(beat)])]) + silence
            expected += [name] if now > until else []
        found = self.pulse.silent()
        assert sorted(each.name for each in found) == sorted(expected)
        assert self.pulse.healthy() == (not expected)
        assert [each.seconds for each in found] == sorted((each.seconds for each in found), reverse=True)


TestAnyOrder = AnyOrder.TestCase
