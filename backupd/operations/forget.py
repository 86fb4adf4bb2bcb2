"""`backupd forget`: remove the snapshots that no rule, hold or pin keeps. What only they needed, `prune` removes later.

Which ones these are is decided by retention.py; facts.py says what it must know, and the repository's holds what people
said. An account that is not in the configuration is left alone unless it is named.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from backupd.errors import BackupdError, Interrupted, ObjectMissing, StorageDenied, UsageError
from backupd.operations import record, retention
from backupd.operations.events import Advance, Observer, Plan, ignore
from backupd.operations.facts import Known, known
from backupd.operations.protection import Protection
from backupd.operations.retention import Rules, Verdict
from backupd.operations.state import State
from backupd.repository import marks, names
from backupd.repository.repository import Repository
from backupd.repository.snapshots import SnapshotRef, timestamp
from backupd.storage.parallel import at_once, in_order

if TYPE_CHECKING:
    from backupd.config import Config


class Line(msgspec.Struct, frozen=True):
    """A snapshot and what becomes of it. reasons: what keeps it; none, and it goes. locked_until: it should go, and a
    lock of the bucket keeps it until then. damaged: it cannot be read, so what it had is not known."""

    id: str
    account: str
    time: str
    complete: bool
    checkpoint: bool
    messages: int
    reasons: list[str]
    locked_until: datetime | None = None
    damaged: bool = False


class ForgetReport(msgspec.Struct, frozen=True):
    """What was forgotten, or would be. snapshots: all of the accounts that were looked at, oldest first. forgotten:
    how many went, or would go; kept: how many stay. locked: how many should go and are locked, the last of them until
    `locked_until`; they go with a later call. without_rules: accounts for which there is no rule, so that all stay."""

    repository: str
    dry_run: bool
    snapshots: list[Line]
    forgotten: int
    kept: int
    locked: int
    locked_until: datetime | None
    without_rules: list[str]


def rules_of(config: Config, accounts: Iterable[str] = ()) -> dict[str, Rules]:
    """The rules for each of these accounts, or for all that are configured: an account's own, or the default. One that
    is not configured has the default's."""
    found = {}
    for name in accounts or config.accounts:
        account = config.accounts.get(name)
        section = account.retention if account and account.retention is not None else config.retention
        found[name] = Rules(**{key: getattr(section, key) for key in Rules.__struct_fields__})
    return found


def forget(
    repository: Repository,
    rules: Mapping[str, Rules],
    *,
    state: State | None = None,
    now: datetime,
    dry_run: bool = False,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> ForgetReport:
    """Forget what the rules do not keep, of the accounts they are for. No other account is looked at.

    Raises Interrupted (the next call goes on), Damaged when a hold cannot be read, StorageDenied where these
    credentials may not add to the record or remove snapshots. Needs the writer's role.
    """
    protection = Protection(repository, now)
    lines: list[tuple[SnapshotRef, Line]] = []
    for account, each in rules.items():
        there = known(repository, repository.refs(account), state)
        verdicts = retention.judge((one.candidate for one in there), each, now, protection.reasons(there))
        lines += _lines(account, there, verdicts)
    bare = [account for account, each in rules.items() if each.are_none]
    return _Forgetting(repository, state, now, dry_run, observer, stop).run(lines, bare)


def forget_snapshots(
    repository: Repository,
    refs: Sequence[SnapshotRef],
    *,
    accounts: Iterable[str] = (),
    state: State | None = None,
    now: datetime,
    dry_run: bool = False,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> ForgetReport:
    """Forget these, whatever the rules say, and whether or not they can be read. accounts: the configured ones, so that
    it can be said whose those are that cannot. Raises UsageError, and forgets none, if one of them is held or pinned;
    and what forget() raises."""
    protection = Protection(repository, now)
    named = {repository.secrets.account_tag(account): account for account in accounts}
    lines: list[tuple[SnapshotRef, Line]] = []
    for ref in dict.fromkeys(refs):
        siblings = known(repository, [each for each in repository.refs() if each.tag == ref.tag], state)
        one = next((each for each in siblings if each.ref == ref), None)
        if one is None:  # another machine was quicker
            continue
        if why := protection.reasons(siblings).get(ref.id):
            raise UsageError(
                f"this snapshot stays: {'; '.join(why)}",
                subject=ref.id,
                remedy="`backupd hold list` shows what keeps it; `backupd hold remove` and `accept-loss` end that",
            )
        account = one.facts.account if one.facts else named.get(ref.tag, "")
        lines += _lines(account, [one], [Verdict(ref.id, [])])
    return _Forgetting(repository, state, now, dry_run, observer, stop).run(lines, [])


def _lines(account: str, there: Iterable[Known], verdicts: Iterable[Verdict]) -> Iterable[tuple[SnapshotRef, Line]]:
    by_id = {each.ref.id: each for each in there}
    for verdict in verdicts:
        ref, facts = by_id[verdict.id]
        line = Line(
            id=ref.id,
            account=account,
            time=timestamp(ref.time),
            complete=bool(facts and facts.complete),
            checkpoint=bool(facts and facts.checkpoint),
            messages=facts.messages if facts else 0,
            reasons=verdict.reasons,
            damaged=facts is None,
        )
        yield ref, line


class _Forgetting:
    """The doing."""

    def __init__(
        self,
        repository: Repository,
        state: State | None,
        now: datetime,
        dry_run: bool,
        observer: Observer,
        stop: threading.Event | None,
    ) -> None:
        self._repository, self._storage, self._state, self._now = repository, repository.storage, state, now
        self._dry_run, self._observer, self._stop = dry_run, observer, stop or threading.Event()

    def run(self, lines: Sequence[tuple[SnapshotRef, Line]], without_rules: list[str]) -> ForgetReport:
        going = [ref for ref, line in lines if not line.reasons]
        self._observer(Plan(self._storage.url, len(going)))
        untils = in_order(self._locked_until, going, threads=at_once(self._storage)) if self._storage.locks else ()
        locked = {ref.name: until for ref, until in untils if until}
        doomed = [ref for ref in going if ref.name not in locked]
        announced = self._announce(doomed) if doomed and not self._dry_run else []
        gone: list[str] = []

        def forget_one(ref: SnapshotRef) -> None:
            if self._stop.is_set():
                raise Interrupted("stopped", subject=self._storage.url, remedy="the next call goes on")
            if not self._dry_run:
                self._remove(ref)
                gone.append(ref.name)

        try:
            with closing(in_order(forget_one, doomed, threads=at_once(self._storage))) as removed:
                for ref, _ in removed:
                    self._observer(Advance(self._storage.url, ref.id, 1, 0))
        except BaseException:
            # However this ends, what stays after all must be missed when it goes.
            with suppress(BackupdError):
                self._end(gone, announced)
            raise
        self._end(gone, announced)
        if not self._dry_run:
            self._note_locked(set(locked), {ref.name for ref, _ in lines})
        shown = [msgspec.structs.replace(line, locked_until=locked.get(ref.name)) for ref, line in lines]
        return ForgetReport(
            repository=self._storage.url,
            dry_run=self._dry_run,
            snapshots=shown,
            forgotten=len(going) - len(locked),
            kept=len(lines) - len(going),
            locked=len(locked),
            locked_until=max(locked.values(), default=None),
            without_rules=without_rules,
        )

    def _end(self, gone: list[str], announced: list[bytes]) -> None:
        """What went, and what others who died had announced, is in the record. Theirs also where nothing went now."""
        if self._dry_run:
            return
        if self._state and gone:
            self._state.forget_facts(self._repository.secrets.repository.hex(), gone)
        record.ended(self._repository, self._state, self._now, gone, announced)

    def _announce(self, doomed: Sequence[SnapshotRef]) -> list[bytes]:
        """What goes is in the record before it goes, by these entries."""
        going = [ref.name for ref in doomed]
        try:
            return record.append(self._repository, self._state, self._now, "forget", going=going)
        except StorageDenied as error:
            raise StorageDenied(
                f"nothing was forgotten, for the signed record cannot be added to: {error.what}",
                subject=error.subject,
                remedy="`backupd s3-policy --role pruner` prints the rights that it takes",
            ) from error

    def _locked_until(self, ref: SnapshotRef) -> datetime | None:
        try:
            until = self._storage.locks.until(ref.name) if self._storage.locks else None
        except ObjectMissing:  # another machine was quicker
            return None
        return until if until and until > self._now else None

    def _remove(self, ref: SnapshotRef) -> None:
        try:
            self._repository.remove_snapshot(ref)
        except StorageDenied as error:
            raise StorageDenied(
                f"these credentials may not remove snapshots: {error.what}",
                subject=error.subject or ref.name,
                remedy="forget needs the right to delete below snapshots/: `backupd s3-policy --role pruner` prints it",
            ) from error

    def _note_locked(self, locked: set[str], looked_at: set[str]) -> None:
        """Locks of what is to be forgotten are not to be renewed (locks.py). What is kept after all is renewed again.

        locked: names of those to be forgotten; looked_at: of all that this call decided on.
        """
        if self._storage.locks is None:
            return
        there = {ref.name for ref in self._repository.refs()}
        wanted, noted = set(locked), set[str]()
        for each in marks.read(self._storage):
            some = {name for name in each.mark.objects if name.startswith(names.SNAPSHOTS)}
            left = some & there
            if some and (not left or left & looked_at - locked):
                self._storage.delete(each.name)
                wanted |= left - looked_at
            else:
                noted |= left
        if new := sorted(wanted - noted):
            marks.put(self._storage, new, "to be forgotten when their locks have ended", self._now)
