"""Several machines back up into one repository, forget, hold, erase, copy and prune it at the same time. Their clocks
differ, they stand still for days, and die at any write. Whatever happens, every message of every snapshot that is
there, unless it was erased, can be restored, from the repository and from its copy; and when all have ended, and what
was erased is finished and pruned, nothing of it is in any object. And the signed record agrees with
what is there, but for what is removed behind its back.

Nothing here is timed: what happens between any two requests of an operation is drawn; see simulated_world.py. It is the
same each time, so that a change is judged by what it changes; BACKUPD_EXPLORE=400 tries as many histories that nobody
has tried before.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from backupd.operations.retention import Rules
from backupd.turns import TURN
from tests.support.scene import MAILS, Scene
from tests.support.simulated_world import Event, Interruption, Shared, View

EXPLORED = int(os.environ.get("BACKUPD_EXPLORE", "0"))

# What may happen between two requests of an operation: each is a list of what others do, one after the other.
OTHERS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([0.1, 0.4, 0.9, 2.0, 30.0])),
    st.tuples(st.just("prune"), st.integers(1, 2)),
    st.tuples(st.just("mark"), st.integers(1, 2)),
    st.tuples(st.just("remove"), st.integers(1, 2)),
    st.tuples(st.just("forget"), st.integers(1, 2)),
    st.tuples(st.just("forget one"), st.integers(0, 9)),
    st.tuples(st.just("back up"), st.integers(1, 2)),
    st.tuples(st.just("back up common"), st.integers(1, 2)),
    st.tuples(st.just("copy"), st.just(1)),
    st.tuples(st.just("erase"), st.integers(0, len(MAILS) - 1)),
)
INTERRUPTIONS = st.dictionaries(st.integers(0, 25), st.lists(OTHERS, min_size=1, max_size=4), max_size=2)
BETWEEN_MAILS = st.dictionaries(st.integers(1, 5), st.lists(OTHERS, min_size=1, max_size=4), max_size=3)
SLOW = st.sampled_from([1, 2]).map(
    lambda number: {
        1: [("mark", number), ("wait", 0.4)],
        **{each: [("wait", 0.9)] for each in range(2, 5)},
        5: [("wait", 0.9), ("prune", number)],
    }
)
"""A run that takes longer than what was marked when it began stays."""
SOME = st.lists(st.integers(0, len(MAILS) - 1), max_size=6)
DEATH = st.none() | st.none() | st.integers(0, 12)


def _takes_hours(some: Iterable[tuple[str, float]]) -> bool:
    """Whether these take longer than a machine may stand still before it writes what it has looked at marks for: of
    three hours a look may come one hour late, and 20 minutes after it was due."""
    return sum(value if what == "wait" else 4 if what == "remove" else 0 for what, value in some) > 1.6


Drawn = dict[int, list[tuple[str, float]]]


class Machines(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.scene = Scene()

    def _event(self, what: str, value: float) -> Event:
        scene, number = self.scene, int(value)
        events: dict[str, Event] = {
            "wait": lambda: scene.world.wait(value),
            "prune": lambda: scene.prune(number, View(scene.storage)),
            "mark": lambda: scene.mark(number),
            "remove": lambda: scene.remove(number),
            "forget": lambda: scene.forget(number, View(scene.storage), Rules(keep_last=1)),
            "forget one": lambda: scene.forget_one(1, View(scene.storage), number),
            "back up": lambda: scene.back_up(number, View(scene.storage)),
            "back up common": lambda: scene.back_up(number, View(scene.storage), common=True),
            "erase": lambda: scene.erase(1, View(scene.storage), number),
            "copy": lambda: scene.copy(number, View(scene.storage), View(scene.second)),
        }
        return events[what]

    def _interruptions(self, drawn: Drawn) -> dict[int, Interruption]:
        def checked(happening: Event) -> Event:
            def run() -> None:
                try:
                    happening()
                    self.scene.check()
                except BaseException as error:  # which the operation that is interrupted must not take for its own
                    self.scene.failures.append(error)
                    raise

            return run

        return {
            number: ([checked(self._event(*each)) for each in some], _takes_hours(some))
            for number, some in drawn.items()
        }

    def _view(self, shared: Shared, drawn: Drawn, dies_at: int | None) -> View:
        return View(shared, self._interruptions(drawn), dies_at)

    @initialize(mails=st.lists(SOME, min_size=3, max_size=3))
    def begin(self, mails: list[list[int]]) -> None:
        for number, some in enumerate(mails):
            self.others_back_up(number, some, common=number == 0)

    # The first machine's operations are interrupted; it is the others that interrupt.

    @rule(
        mails=SOME,
        common=st.booleans(),
        drawn=INTERRUPTIONS,
        between=BETWEEN_MAILS | SLOW,
        dies_at=DEATH,
    )
    def back_up(self, mails: list[int], common: bool, drawn: Drawn, between: Drawn, dies_at: int | None) -> None:
        account = self.scene.common if common else self.scene.machines[0].account
        account.append(b"INBOX", *(MAILS[each] for each in mails))
        view = self._view(self.scene.storage, drawn, dies_at)
        fetched = itertools.count()
        waiting = {number: events for number, (events, _) in self._interruptions(between).items()}

        def on_message(_name: bytes, _uid: int) -> None:
            for happening in waiting.pop(next(fetched), ()):
                with TURN.given_up():
                    happening()

        account.on_message = on_message
        self.scene.back_up(0, view, common=common)
        account.on_message = lambda _name, _uid: None
        event(f"a backup was interrupted by {min(view.happened, 3)} others")

    @rule(number=st.integers(1, 2), mails=SOME, common=st.booleans())
    def others_back_up(self, number: int, mails: list[int], common: bool) -> None:
        account = self.scene.common if common else self.scene.machines[number].account
        account.append(b"INBOX", *(MAILS[each] for each in mails))
        self.scene.back_up(number, View(self.scene.storage), common=common)

    @rule(number=st.integers(0, 3), share=st.sampled_from([2, 1]))
    def delete_mail(self, number: int, share: int) -> None:
        account = self.scene.common if number == 3 else self.scene.machines[number].account
        uids = list(account.boxes[b"INBOX"].messages)[::share]
        if uids:
            account.expunge(b"INBOX", *uids)

    @rule(drawn=INTERRUPTIONS, dies_at=DEATH, most=st.sampled_from([0.0, 0.5]))
    def prune(self, drawn: Drawn, dies_at: int | None, most: float) -> None:
        self.scene.prune(0, self._view(self.scene.storage, drawn, dies_at), most=most)

    @rule(keep=st.integers(1, 2), drawn=INTERRUPTIONS, dies_at=DEATH)
    def forget(self, keep: int, drawn: Drawn, dies_at: int | None) -> None:
        self.scene.forget(0, self._view(self.scene.storage, drawn, dies_at), Rules(keep_last=keep))

    @rule(which=st.integers(0, 9))
    def forget_one(self, which: int) -> None:
        self.scene.forget_one(0, View(self.scene.storage), which)

    @rule(which=st.integers(0, 9))
    def hold(self, which: int) -> None:
        self.scene.hold(0, which)

    @rule()
    def release(self) -> None:
        self.scene.release(1)

    @rule(which=st.integers(0, len(MAILS) - 1), allowed=st.booleans(), drawn=INTERRUPTIONS, dies_at=DEATH)
    def erase(self, which: int, allowed: bool, drawn: Drawn, dies_at: int | None) -> None:
        self.scene.erase(0, self._view(self.scene.storage, drawn, dies_at), which, allowed=allowed)

    @rule(number=st.integers(1, 2), which=st.integers(0, len(MAILS) - 1))
    def others_erase(self, number: int, which: int) -> None:
        self.scene.erase(number, View(self.scene.storage), which)

    @precondition(lambda self: self.scene.told["erased messages"])
    @rule()
    def finish_what_was_erased(self) -> None:
        self.scene.finish()

    @rule(drawn=INTERRUPTIONS, dies_at=DEATH)
    def copy(self, drawn: Drawn, dies_at: int | None) -> None:
        self.scene.copy(0, self._view(self.scene.storage, drawn, None), self._view(self.scene.second, {}, dies_at))

    @precondition(lambda self: "repository.json" in self.scene.second.objects)
    @rule(keep=st.integers(1, 2), drawn=INTERRUPTIONS)
    def forget_and_prune_the_copy(self, keep: int, drawn: Drawn) -> None:
        self.scene.forget(2, View(self.scene.second), Rules(keep_last=keep))
        self.scene.prune(2, self._view(self.scene.second, drawn, None))

    @rule(hours=st.sampled_from([0.5, 2.0, 4.0, 30.0]))
    def wait(self, hours: float) -> None:
        self.scene.world.wait(hours)

    @invariant()
    def every_message_of_every_snapshot_can_be_restored_and_the_record_agrees(self) -> None:
        self.scene.check()

    def teardown(self) -> None:
        if not self.scene.failures:
            self.scene.check_record(machines=True)
        if not self.scene.failures and self.scene.remove_behind_its_back(len(self.scene.taken)):
            event("a removal behind its back was seen")
        for what, count in self.scene.told.items():
            if count:
                event(what)
        self.scene.close()


TestMachines = pytest.mark.timeout(600)(Machines.TestCase)
TestMachines.settings = settings(
    max_examples=EXPLORED or 20,
    derandomize=not EXPLORED,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
