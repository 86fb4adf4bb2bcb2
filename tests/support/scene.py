"""A scene for simulated machines: one repository and its copy, and who works on them (see simulated_world.py)."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backupd.errors import Busy, Forbidden, Overtaken, StorageUnavailable, UsageError
from backupd.mail.query import parse
from backupd.operations import hold
from backupd.operations.audit_report import Finding, Severity
from backupd.operations.backup import backup
from backupd.operations.copy import CopyReport, copy
from backupd.operations.erase import erase
from backupd.operations.forget import forget, forget_snapshots
from backupd.operations.prune import prune
from backupd.operations.record_check import checker
from backupd.operations.retention import Rules
from backupd.operations.state import State
from backupd.repository import holds, names
from backupd.repository.keys import Role, Secrets
from backupd.repository.pack_writer import Sizes
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from backupd.storage.base import Storage
from tests.support.mail import Attachment, message, noise
from tests.support.memory_storage import MemoryStorage
from tests.support.opened import contains
from tests.support.reading import Contents, unerased
from tests.support.simulated_account import SimulatedAccount
from tests.support.simulated_world import Shared, View, World

CHEAP = Argon2(iterations=1, memory_kib=8, lanes=1)
SIZES = Sizes(block=3000, pack=12_000)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
FILES = [Attachment(f"{number}.bin", noise(number, 1500 + 700 * number)) for number in range(3)]
MAILS = [message(f"Message {number}", noise(100 + number, 600).hex()) for number in range(5)]
SUBJECTS = [f"Message {number}" for number in range(5)] + [f"With files {number}" for number in range(5)]
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
        self.taken: dict[str, Contents] = {}
        self.erased: set[int] = set()
        self.held: dict[str, str] = {}
        self.told: Counter[str] = Counter()
        self.failures: list[BaseException] = []
        self.auditor = State(self.folder / "auditor")
        self.forgotten = self.storage.deleted

    def close(self) -> None:
        for state in (self.auditor, *(machine.state for machine in self.machines)):
            state.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _do(
        self, machine: Machine, view: View, work: Callable[[Repository], None], role: Role | None = None
    ) -> None:
        """One operation, on one machine; role: of the key that it is given for this."""
        self.world.enter(view)
        try:
            secrets = self.secrets.for_role(role or machine.role)
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
                held = hold.add(repository, ref.id, (), reason="a test", state=machine.state, now=now)
                self.held[ref.id] = held.id

        self._do(machine, View(self.storage), work)

    def release(self, number: int) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            for snapshot, each in list(self.held.items())[:1]:
                hold.remove(repository, each, state=machine.state, now=self.world.time(machine.skew))
                del self.held[snapshot]

        self._do(machine, View(self.storage), work)

    def prune(self, number: int, view: View, *, most: float = 0.0) -> None:
        machine = self.machines[number]

        def work(repository: Repository) -> None:
            report = prune(
                repository,
                state=machine.state,
                now=self.world.time(machine.skew),
                grace=3 * HOUR,
                fewest=2,
                max_unused=most,
                sizes=SIZES,
                seconds=lambda: self.world.seconds,
            )
            assert not report.damaged, report.damaged
            hindrances = [each for each in report.hindrances if "backupd erase --finish" not in each]
            assert not hindrances, hindrances
            self.told["erased mail that shares blocks"] += len(report.hindrances)
            self.told["packs removed"] += report.removed
            self.told["packs that nothing needs"] += report.unneeded
            self.told["packs needed in part"] += report.repacked
            self.told["marked and needed"] += len(report.needed)

        self._do(machine, view, work)

    def erase(self, number: int, view: View, which: int | None, *, allowed: bool = True) -> None:
        """Erase one of MAILS that snapshots may have; None: finish what was erased before. allowed: leave out
        what a hold keeps."""
        machine = self.machines[number]
        if which is not None:
            stored = [each for each, raw in enumerate(MAILS) if raw in self._stored()]
            if not stored:
                return
            which = stored[which % len(stored)]
            self.erased.add(which)

        def work(repository: Repository) -> None:
            query = parse(f'subject:"{SUBJECTS[which]}"') if which is not None else None
            try:
                now = self.world.time(machine.skew)
                report = erase(
                    repository, query, reason="a test", state=machine.state, now=now, what_is_allowed=allowed
                )
            except Forbidden:
                assert self.held
                self.told["erasures that a hold forbids"] += 1
            else:
                self.told["erased messages"] += report.messages
                self.told["erasures that a hold forbids"] += report.forbidden

        self._do(machine, view, work, Role.READER)

    def _stored(self) -> set[bytes]:
        """What is in some snapshot that was taken."""
        return {raw for taken in self.taken.values() for box in taken.values() for raw, _, _ in box.values()}

    def finish(self) -> None:
        """When all have ended, what was erased is finished, and prunes remove it: nothing is left of it, anywhere."""
        self.machines[0].account.append(b"INBOX", message("The last"))
        self.back_up(0, View(self.storage))  # which takes up what killed runs left behind
        self.erase(0, View(self.storage), None)
        # What an old mark names and stays is said by one prune, unmarked by the next, and marked anew by the one after;
        # what goes only beside something that is marked waits for one more.
        for _ in range(6):
            self.world.wait(30)
            self.prune(1, View(self.storage))
        with Repository(View(self.storage), self.secrets) as repository:
            gone = [which for which in self.erased if self.secrets.content_id(MAILS[which]) in repository.erased.now]
        for which in gone:
            left = contains(View(self.storage), self.secrets, SUBJECTS[which].encode())
            assert not left, f"{SUBJECTS[which]} is erased and still there"
        self.told["erasures that are gone from every object"] += len(gone)

    def mark(self, number: int) -> None:
        """All but the newest snapshots are forgotten, and what only they needed is marked."""
        self.forget(number, View(self.storage), Rules(keep_last=1))
        self.prune(number, View(self.storage))

    def remove(self, number: int) -> None:
        """The same, and it is removed."""
        self.mark(number)
        self.world.wait(4)
        self.prune(number, View(self.storage))

    def copy(self, number: int, view: View, second: View) -> CopyReport | None:
        machine = self.machines[number]
        second.actor = view.actor
        self.world.enter(view)
        try:
            report = copy(
                view, second, connections=1,
                clock=lambda: self.world.time(machine.skew), seconds=lambda: self.world.seconds,
            )  # fmt: skip
            assert report.problems == []
            return report
        except StorageUnavailable:
            return None
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
                    found = unerased(repository, repository.snapshot(ref))
                    kept = {
                        name: {uid: each for uid, each in box.items() if not self._is_erased(repository, each[0])}
                        for name, box in self.taken.get(ref.id, found).items()
                    }
                    assert found == kept, ref.id
                if storage is self.storage:
                    assert set(self.held) <= {ref.id for ref in refs}
                    assert len(holds.read(repository).held) >= len(self.held)
        self.check_record()

    def check_record(self, *, machines: bool = False) -> None:
        """The record, the repository and its copy agree, as an auditor sees it who comes by at any moment."""
        copied = "repository.json" in self.second.objects
        for storage in (self.storage, self.second) if copied else (self.storage,):
            for state in (self.auditor, *(each.state for each in (self.machines if machines else ()))):
                found = self._record_of(View(storage), state, is_copy=storage is self.second)
                assert not [each for each in found if each.severity is not Severity.NOTE], found

    def _record_of(self, storage: Storage, state: State | None, *, is_copy: bool = False) -> list[Finding]:
        with Repository(storage, self.secrets, sizes=SIZES) as repository:
            found = checker(state, {}, is_copy=is_copy)(storage, repository, deep=state is None)
        assert found is not None
        return found

    def remove_behind_its_back(self, which: int) -> bool:
        """Somebody takes a snapshot away, or puts one back, from under a copy of all this: a new auditor must see it.
        Whether there is one that the record tells of."""
        number = self.auditor.ledger(f"{self.secrets.repository.hex()} {self.storage.url}")
        removed = self.auditor.record_removed(number)
        there = [name for name in self.storage.objects if name.startswith(names.SNAPSHOTS) and name not in removed]
        known = sorted(set(there) - set(self.auditor.record_unknown(number, sorted(there))))
        if not known:
            return False
        name = known[which % len(known)]
        harmed = MemoryStorage()
        harmed.objects = {other: data for other, data in self.storage.objects.items() if other != name}
        found = self._record_of(harmed, None)
        assert [each.subject for each in found if each.severity is Severity.CRITICAL] == [name]
        gone = sorted(name for name, done in removed.items() if done and name in self.forgotten)
        for name in gone[:1]:
            harmed.objects = {**self.storage.objects, name: self.forgotten[name]}
            found = self._record_of(harmed, None)
            assert [each.subject for each in found if each.severity is Severity.WARNING] == [name]
        return True


    def _is_erased(self, repository: Repository, raw: bytes) -> bool:
        """Whether a message was erased, which it was only if somebody asked for that."""
        erased = self.secrets.content_id(raw) in repository.erased.now
        assert not erased or any(raw == MAILS[which] for which in self.erased)
        return erased


def _call(function: Callable[..., object], *arguments: object, **options: object) -> None:
    function(*arguments, **options)
