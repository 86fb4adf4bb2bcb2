"""Several machines back up into one repository, forget, hold, copy and prune it at the same time. Their clocks differ,
they stand still for days, and die at any write. Whatever happens, every message of every snapshot that is there can be
restored, from the repository and from its copy.

Nothing here is timed: what happens between any two requests of an operation is drawn; see simulated_world.py.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from backupd.errors import Busy, Overtaken, StorageUnavailable, UsageError
from backupd.operations import hold
from backupd.operations.backup import backup
from backupd.operations.copy import copy
from backupd.operations.forget import forget, forget_snapshots
from backupd.operations.prune import prune
from backupd.operations.retention import Rules
from backupd.operations.state import State
from backupd.repository import holds, names
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create
from tests.operations.conftest import CHEAP
from tests.support.mail import Attachment, message, noise
from tests.support.reading import contents
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_world import Event, Shared, View, World

SIZES = Sizes(block=3000, pack=12_000)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FILES = [Attachment(f"{number}.bin", noise(number, 1500 + 700 * number)) for number in range(3)]
MAILS = [message(f"Message {number}", noise(100 + number, 600).hex()) for number in range(5)]
MAILS += [message(f"With files {number}", attachments=FILES[number % 3 : number % 3 + 2]) for number in range(5)]


@dataclass
class Machine:
    """Its clock is wrong by `skew`. It backs up an account of its own, and one that others back up too."""

    name: str
    state: State
    skew: timedelta
    role: Role
    account: SimulatedAccount = field(default_factory=SimulatedAccount)


class Scene:
    """What the machines do. Operations may be interrupted by others; those are not."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="machines-"))
        self.world = World()
        self.storage, self.second = Shared(self.world, "memory:first"), Shared(self.world, "memory:second")
        self.secrets: Secrets = create(View(self.storage), "a passphrase", argon2=CHEAP)
        self.common = SimulatedAccount(server_ids=True)
        skews = (timedelta(), 3 * DAY, -2 * DAY)
        roles = (Role.READER, Role.WRITER, Role.WRITER)
        self.machines = [
            Machine(f"machine{number}", State(self.folder / str(number)), skew, role)
            for number, (skew, role) in enumerate(zip(skews, roles, strict=True))
        ]
        self.taken: dict[str, object] = {}
        self.held: dict[str, str] = {}
        self.told: Counter[str] = Counter()
        self.failures: list[BaseException] = []

    def close(self) -> None:
        for machine in self.machines:
            machine.state.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _do(self, machine: Machine, view: View, work: Callable[[Repository], None]) -> None:
        """One operation, on one machine."""
        self.world.enter(view)
        try:
            secrets = self.secrets.for_role(machine.role)
            clocks = (lambda: self.world.seconds, lambda: self.world.time(machine.skew).timestamp())
            cache = machine.state.path if view.url == self.storage.url else None
            with Repository(view, secrets, cache=cache, sizes=SIZES, clocks=clocks) as repository:
                work(repository)
        except (StorageUnavailable, Busy):
            pass
        except Overtaken:
            self.told["overtaken"] += 1
        finally:
            self.world.leave(view)

    def back_up(self, number: int, view: View, *, common: bool = False) -> None:
        machine = self.machines[number]
        name, account = ("common", self.common) if common else (machine.name, machine.account)

        def work(repository: Repository) -> None:
            mail = account.contents()
            clock = lambda: self.world.time(machine.skew)  # noqa: E731
            report = backup(repository, account, name, state=machine.state, clock=clock)
            assert not any("lost" in note or "missing" in note for note in report.notes), report.notes
            if report.snapshot:
                self.taken[report.snapshot] = mail

        before = self.told["overtaken"]
        self._do(machine, view, work)
        if self.told["overtaken"] > before:  # as operations/accounts.py does
            self._do(machine, view, work)

    def forget(self, number: int, view: View, rules: Rules) -> None:
        machine = self.machines[number]
        names = {each.name: rules for each in self.machines} | {"common": rules}
        now = self.world.time(machine.skew)
        self._do(machine, view, lambda repository: _call(forget, repository, names, state=machine.state, now=now))

    def forget_one(self, number: int, view: View, which: int) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            refs = repository.refs()
            if not refs:
                return
            ref = refs[which % len(refs)]
            refused = ""
            try:
                forget_snapshots(repository, [ref], state=machine.state, now=self.world.time(machine.skew))
            except UsageError as error:
                refused = str(error)
            assert not refused or ref.id in self.held or "pinned" in refused

        self._do(machine, view, work)

    def hold(self, number: int, which: int) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            if refs := [ref for ref in repository.refs() if ref.id not in self.held]:
                ref = refs[which % len(refs)]
                now = self.world.time(machine.skew)
                self.held[ref.id] = hold.add(repository, ref.id, (), reason="a test", now=now).id

        self._do(machine, View(self.storage), work)

    def release(self, number: int) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            for snapshot, each in list(self.held.items())[:1]:
                hold.remove(repository, each, now=self.world.time(machine.skew))
                del self.held[snapshot]

        self._do(machine, View(self.storage), work)

    def prune(self, number: int, view: View, *, most: float = 0.0) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            report = prune(
                repository,
                now=self.world.time(machine.skew),
                grace=3 * HOUR,
                fewest=2,
                max_unused=most,
                sizes=SIZES,
                seconds=lambda: self.world.seconds,
            )
            assert not report.damaged, report.damaged
            assert not report.hindrances, report.hindrances
            self.told["packs removed"] += report.removed
            self.told["packs that nothing needs"] += report.unneeded
            self.told["packs needed in part"] += report.repacked
            self.told["marked and needed"] += len(report.needed)

        self._do(machine, view, work)

    def mark(self, number: int) -> None:
        """All but the newest snapshots are forgotten, and what only they needed is marked."""
        self.forget(number, View(self.storage), Rules(keep_last=1))
        self.prune(number, View(self.storage))

    def remove(self, number: int) -> None:
        """The same, and it is removed."""
        self.mark(number)
        self.world.wait(4)
        self.prune(number, View(self.storage))

    def copy(self, number: int, view: View, second: View) -> None:
        machine = self.machines[number]
        second.actor = view.actor
        self.world.enter(view)
        try:
            report = copy(
                view, second, connections=1,
                clock=lambda: self.world.time(machine.skew), seconds=lambda: self.world.seconds,
            )  # fmt: skip
            assert report.problems == []
        except StorageUnavailable:
            pass
        finally:
            self.world.leave(view)

    def check(self) -> None:
        """Every message of every snapshot that is there can be restored, and each is what was backed up."""
        for error in self.failures:
            raise error
        self.told["needs"] += any(name.startswith(names.NEEDS) for name in self.storage.objects)
        for storage in (self.storage, self.second):
            if storage is self.second and "repository.json" not in storage.objects:
                continue
            with Repository(View(storage), self.secrets, sizes=SIZES) as repository:
                refs = repository.refs()
                for ref in refs:
                    found = contents(repository, repository.snapshot(ref))
                    assert found == self.taken.get(ref.id, found), ref.id
                if storage is self.storage:
                    assert set(self.held) <= {ref.id for ref in refs}
                    assert len(holds.read(repository).held) >= len(self.held)


def _call(function: Callable[..., object], *arguments: object, **options: object) -> None:
    function(*arguments, **options)


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
)
INTERRUPTIONS = st.dictionaries(st.integers(0, 60), st.lists(OTHERS, min_size=1, max_size=5), max_size=3)
SOME = st.lists(st.integers(0, len(MAILS) - 1), max_size=3)
DEATH = st.none() | st.none() | st.integers(0, 12)


def _takes_hours(what: str, value: float) -> bool:
    """Whether this takes hours."""
    return what == "remove" or (what == "wait" and value > 0.5)


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
            "copy": lambda: scene.copy(number, View(scene.storage), View(scene.second)),
        }
        return events[what]

    def _view(self, shared: Shared, drawn: Drawn, dies_at: int | None) -> View:
        def checked(happening: Event) -> Event:
            def run() -> None:
                try:
                    happening()
                    self.scene.check()
                except BaseException as error:  # which the operation that is interrupted must not take for its own
                    self.scene.failures.append(error)
                    raise

            return run

        interruptions = {
            number: ([checked(self._event(*each)) for each in some], any(_takes_hours(*each) for each in some))
            for number, some in drawn.items()
        }
        return View(shared, interruptions, dies_at)

    # The first machine's operations are interrupted; it is the others that interrupt.

    @rule(
        mails=SOME,
        common=st.booleans(),
        drawn=INTERRUPTIONS,
        dies_at=DEATH,
    )
    def back_up(self, mails: list[int], common: bool, drawn: Drawn, dies_at: int | None) -> None:
        account = self.scene.common if common else self.scene.machines[0].account
        account.append(b"INBOX", *(MAILS[each] for each in mails))
        view = self._view(self.scene.storage, drawn, dies_at)
        self.scene.back_up(0, view, common=common)
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
    def every_message_of_every_snapshot_can_be_restored(self) -> None:
        self.scene.check()

    def teardown(self) -> None:
        for what, count in self.scene.told.items():
            if count:
                event(what)
        self.scene.close()


TestMachines = Machines.TestCase
TestMachines.settings = settings(
    max_examples=30,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
