"""`backupd audit`: proof, on a schedule, that what was stored can be restored; and what is damaged, where it is.

Each level includes the ones before (docs/audit.md says what each proves, and what it cannot). The result is a report,
whatever is found: only what keeps the audit from judging at all is raised. Whoever holds no key can still compare every
object with its name.

Nothing is written to the repository but an entry of its record. What is found to be lost is noted in this machine's
index cache, as every reader of it does, so that the next backup stores again what the server still has.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from backupd.errors import BackupdError, Damaged, Interrupted, KeyMismatch, NoRepository, WrongKey
from backupd.operations import audit_record, audit_rotation
from backupd.operations.audit_archive import ArchiveAudit
from backupd.operations.audit_bytes import Objects
from backupd.operations.audit_drill import Drill
from backupd.operations.audit_memory import Memory
from backupd.operations.audit_objects import Copies
from backupd.operations.audit_record import CheckRecord, WhyGone
from backupd.operations.audit_report import (
    LEVELS,
    NEEDED,
    AuditedAccount,
    AuditReport,
    Checked,
    Finding,
    Level,
    Severity,
    Wish,
    judge,
)
from backupd.operations.audit_scratch import MaildirScratch, Scratch
from backupd.operations.audit_source import Servers, SourceAudit
from backupd.operations.audit_state import Audit, Scope
from backupd.operations.events import Observer, Plan, ignore
from backupd.operations.standing import accepted_losses
from backupd.operations.state import State
from backupd.operations.status import Level as Standing
from backupd.operations.status import of_account, remedy_for
from backupd.operations.stopping import Stop
from backupd.repository import mending, names
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.repository.snapshots import Snapshot, SnapshotRef, timestamp
from backupd.storage.base import Storage

__all__ = ["Means", "Wish", "audit"]

_PACE_OF = 10
"""Latest audits from which the time of a cycle is reckoned."""

_NO_RECORD = "the signed record: without it, a snapshot that was removed, or put back, may go unseen"
_NO_PUBLIC_KEY = "the signed record: without a key, --record FILE gives what `backupd record export` wrote"
_NO_STATE = "runs that found nothing changed: without a state directory, only snapshots tell how old a backup is"
_FAILURES = {Level.SOURCE: "the server could not be asked", Level.DRILL: "the drill could not be held"}
_ROLES = tuple(Role)
_SEVERITY = {Standing.WARNING: Severity.WARNING, Standing.CRITICAL: Severity.CRITICAL}


def _maildir(_account: str) -> Scratch:
    return MaildirScratch()


@dataclass(frozen=True)
class Means:
    """What an audit works with.

    state: what earlier audits and backups on this machine left; None: nothing is known of them. copies: who is asked
    whether they have what is damaged here. servers: for the level of source. scratch: where a drill of an account
    restores to. check_record: compares the repository with its signed record; append_record: adds to it what an audit
    of metadata or more came to; why_gone: asks it about some objects. chance: chooses samples.
    """

    state: State | None
    clock: Callable[[], datetime]
    copies: Sequence[Storage] = ()
    servers: Servers | None = None
    scratch: Callable[[str], Scratch] = _maildir
    check_record: CheckRecord | None = None
    append_record: Callable[[Repository, AuditReport], None] | None = None
    why_gone: WhyGone | None = None
    chance: random.Random = field(default_factory=random.Random)


def audit(
    storage: Storage,
    open_repository: Callable[[], Repository] | None,
    wish: Wish,
    means: Means,
    *,
    observer: Observer = ignore,
    stop: threading.Event | None = None,
) -> AuditReport:
    """Audit a repository.

    Args:
        open_repository: None on a host that holds no key: then only the level of storage can be had, and by itself.

    Raises NoRepository; WrongKey where the key's role cannot do what the level asks for; StorageUnavailable;
    Interrupted, and then what was proved so far is remembered.
    """
    with ExitStack() as stack:
        return _Audit(storage, wish, means, observer, stop or threading.Event()).run(open_repository, stack)


class _Audit:
    """One audit, while it lasts."""

    def __init__(self, storage: Storage, wish: Wish, means: Means, observer: Observer, stop: threading.Event) -> None:
        self._storage, self._wish, self._means = storage, wish, means
        self._observer, self._stop = observer, stop
        self._started = means.clock()
        self._memory = Memory(means.state, storage.url, self._started)
        self._copies = Copies(means.copies)
        self._objects: Objects | None = None
        self._archive: ArchiveAudit | None = None
        self._findings: list[Finding] = []
        self._left_out: list[str] = []
        self._accounts: dict[str, AuditedAccount] = {}

    def run(self, open_repository: Callable[[], Repository] | None, stack: ExitStack) -> AuditReport:
        repository = self._open(open_repository, stack)
        role = repository.secrets.role if repository else Role.AUDITOR
        self._limit_to(role)
        try:
            if repository is None:
                self._without_key()
            else:
                self._with_key(repository)
        finally:
            self._memory.save()
        report = self._report(repository, role)
        self._remember(report)
        if repository and self._means.append_record and self._wish.level.includes(Level.METADATA):
            self._means.append_record(repository, report)
        return report

    def _open(self, open_repository: Callable[[], Repository] | None, stack: ExitStack) -> Repository | None:
        """The repository, opened; None without a key, and where it is so damaged that the key does not open it."""
        if not any(True for _ in self._storage.list()):
            raise NoRepository(
                "there is no repository here", subject=self._storage.url, remedy="`backupd init` makes one"
            )
        if open_repository is None:
            return None
        try:
            return stack.enter_context(open_repository())
        except (KeyMismatch, Damaged) as error:
            self._found(Severity.CRITICAL, names.DESCRIPTION, error)
        except WrongKey as error:
            self._found(Severity.UNKNOWN, self._storage.url, error)
        return None

    def _found(self, severity: Severity, subject: str, error: BackupdError) -> None:
        self._findings.append(Finding(severity, Level.METADATA, subject, error.what, error.remedy))

    def _limit_to(self, role: Role) -> None:
        """Leave out what the role cannot do. Raises WrongKey where that is the very level that was asked for."""
        level = self._wish.level
        for each in LEVELS:
            if not level.includes(each) or _ROLES.index(role) >= _ROLES.index(NEEDED[each]):
                continue
            if each is level and not self._findings:
                has = "there is none here" if role is Role.AUDITOR else "this is a writer's"
                raise WrongKey(
                    f"an audit of the level {level} needs a {NEEDED[each]}'s key, and {has}",
                    subject=self._storage.url,
                    remedy="give a level that needs less, or audit where there is such a key",
                )
            self._left_out.append(f"{each}: it needs a {NEEDED[each]}'s key")

    # The repository

    def _without_key(self) -> None:
        objects = self._list()
        # With a key that opens nothing, what was asked for may be less than all bytes.
        asked = self._wish.level.includes(Level.STORAGE)
        share = objects.share(Level.STORAGE, Role.AUDITOR, None, self._wish.budget) if asked else set[str]()
        self._observer(Plan(self._storage.url, len(share), sum(objects.there[name].size for name in share)))
        objects.unproved_names(None)
        objects.prove(share | objects.small)
        # Of the description more may be known by now than that it makes sense.
        known = {each.subject for each in self._findings}
        self._findings += [each for each in objects.findings if each.subject not in known]
        self._check_record(None)

    def _check_record(self, repository: Repository | None) -> None:
        check, deep = self._means.check_record, self._wish.level.includes(Level.STORAGE)
        if check is None:
            self._left_out += [_NO_RECORD] if repository else []
            return
        found = check(self._storage, repository, deep=deep)
        if found is None:
            self._left_out.append(_NO_PUBLIC_KEY)
        else:
            self._findings += found

    def _list(self) -> Objects:
        since = self._wish.since
        self._objects = Objects(self._storage, self._copies, self._memory, since, self._observer, self._stop)
        return self._objects

    def _with_key(self, repository: Repository) -> None:
        # In this order: what a listed snapshot refers to is in an index by now, and what an index tells of in a pack.
        newest = audit_record.newest(self._means.state, self._wish.objectives)
        refs = self._refs(repository)
        self._freshness(repository, refs)
        there = {name: frozenset(ref.id for ref in some) for name, some in refs.items()}
        self._findings += audit_record.newest_gone(repository, newest, there, self._means.why_gone)
        if not self._wish.level.includes(Level.METADATA):
            return
        unindexed = set(mending.examine(repository).unindexed)
        objects = self._list()
        objects.unproved_names(repository.secrets.repository.hex())
        self._archive = ArchiveAudit(
            repository, self._wish, objects, refs, unindexed, self._copies, self._memory, self._observer,
            self._stop, self._started,
        )  # fmt: skip
        self._archive.run()
        self._findings += objects.findings + self._archive.findings
        self._check_record(repository)
        if self._wish.level.includes(Level.SOURCE):
            self._accounts_one_by_one(repository, refs)

    def _refs(self, repository: Repository) -> dict[str, list[SnapshotRef]]:
        """Snapshots of each account; of an account that is in no configuration, under its tag."""
        accounts = {repository.secrets.account_tag(name): name for name in self._wish.objectives}
        refs: dict[str, list[SnapshotRef]] = {name: [] for name in self._wish.objectives}
        for ref in repository.refs():
            if ref.tag in accounts or not self._wish.alone:
                refs.setdefault(accounts.get(ref.tag, ref.tag), []).append(ref)
        return refs

    def _freshness(self, repository: Repository, refs: Mapping[str, Sequence[SnapshotRef]]) -> None:
        state, now = self._means.state, self._means.clock()
        if state is None:
            self._left_out.append(_NO_STATE)
        accepted = accepted_losses(repository)
        for name, objective in self._wish.objectives.items():
            status = of_account(repository, state, name, objective, now, accepted)
            self._accounts[name] = AuditedAccount(name, len(refs[name]), status)
            for reason in status.reasons:
                remedy = remedy_for(reason, name)
                self._findings.append(
                    Finding(_SEVERITY[status.level], Level.FRESHNESS, name, reason, remedy, account=name)
                )

    # Servers and drills

    def _accounts_one_by_one(self, repository: Repository, refs: Mapping[str, Sequence[SnapshotRef]]) -> None:
        for name in self._wish.objectives:
            found = _newest(repository, refs[name])
            if found is None:
                continue  # freshness and metadata have told why
            self._about(name, Level.SOURCE, self._source, repository, *found)
            if self._wish.level.includes(Level.DRILL) and repository.secrets.role is Role.READER:
                self._about(name, Level.DRILL, self._drill, repository, *found)

    def _about(
        self,
        account: str,
        level: Level,
        work: Callable[[Repository, str, SnapshotRef, Snapshot], None],
        repository: Repository,
        ref: SnapshotRef,
        snapshot: Snapshot,
    ) -> None:
        """One account that cannot be looked at stops no other."""
        try:
            work(repository, account, ref, snapshot)
        except Interrupted:
            raise
        except BackupdError as error:
            what = f"{_FAILURES[level]}: {error.what}"
            self._findings.append(Finding(Severity.UNKNOWN, level, account, what, error.remedy, account))

    def _source(self, repository: Repository, account: str, ref: SnapshotRef, snapshot: Snapshot) -> None:
        servers = self._means.servers
        if servers is None:
            return
        compared = SourceAudit(
            repository, account, ref, snapshot, bodies=self._wish.sample, budget=self._wish.budget,
            chance=self._means.chance, observer=self._observer, stop=Stop(self._stop),
        )  # fmt: skip
        try:
            if source := servers.imap(account):
                result = compared.imap(source, servers.selection(account))
            elif pop3 := servers.pop3(account):
                result = compared.pop3(pop3)
            else:
                self._left_out.append(f"source of {account}: it is in no configuration")
                return
            self._accounts[account] = msgspec.structs.replace(self._accounts[account], source=result)
        finally:
            self._findings += compared.findings

    def _drill(self, repository: Repository, account: str, ref: SnapshotRef, snapshot: Snapshot) -> None:
        drill = Drill(
            repository, account, ref, snapshot, memory=self._memory, chance=self._means.chance,
            observer=self._observer, stop=self._stop,
        )  # fmt: skip
        scratch = self._means.scratch(account)
        try:
            result = drill.run(scratch, full=self._wish.full, budget=self._wish.budget)
            self._accounts[account] = msgspec.structs.replace(self._accounts[account], drill=result)
        finally:
            self._findings += drill.findings
            if left := scratch.clear():
                what = f"the drill's mail could not be removed: {left}"
                self._findings.append(Finding(Severity.WARNING, Level.DRILL, account, what, "remove it", account))

    # The result

    def _report(self, repository: Repository | None, role: Role) -> AuditReport:
        objects, archive, wish = self._objects, self._archive, self._wish
        checked = objects.checked if objects else Checked()
        return AuditReport(
            repository=self._storage.url,
            id=repository.secrets.repository.hex() if repository else "",
            role=role,
            level=wish.level,
            started=timestamp(self._started),
            ended=timestamp(self._means.clock()),
            outcome=judge(self._findings),
            accounts=list(self._accounts.values()),
            checked=archive.checked(checked) if archive else checked,
            coverage=objects.coverage(wish.level, wish.budget, self._pace()) if objects else None,
            findings=self._findings,
            affected=archive.affected if archive else [],
            affected_more=archive.snapshots.more if archive else 0,
            left_out=self._left_out,
        )

    def _pace(self) -> float | None:
        """Seconds between the latest audits of this level, this one included."""
        if self._means.state is None:
            return None
        before = self._means.state.audits(self._storage.url, "", self._wish.level.value, _PACE_OF)
        return audit_rotation.rate([self._started, *(datetime.fromisoformat(each.started) for each in before)])

    def _remember(self, report: AuditReport) -> None:
        """Add to the history: one entry for all, and one for each account."""
        if self._means.state is None:
            return
        wish = self._wish
        alone = tuple(sorted(wish.objectives)) if wish.alone else ()
        scope = Scope(report.role.value, alone, wish.budget, wish.since, wish.full, wish.exported)

        def entry(account: str, findings: Sequence[Finding], recovery: float | None = None) -> Audit:
            return Audit(
                repository=report.repository,
                account=account,
                level=report.level.value,
                started=report.started,
                ended=report.ended,
                outcome=judge(findings),
                problems=sum(each.severity is not Severity.NOTE for each in findings),
                octets=0 if account else report.checked.octets,
                recovery=recovery,
                scope=scope,
            )

        entries = [entry("", report.findings)]
        for each in report.accounts:
            own = [one for one in report.findings if one.account == each.account]
            entries.append(entry(each.account, own, each.drill.total_seconds if each.drill else None))
        self._means.state.audited(entries)


def _newest(repository: Repository, refs: Sequence[SnapshotRef]) -> tuple[SnapshotRef, Snapshot] | None:
    """The newest snapshot that can be read, of a backup that ended."""
    for ref in reversed(refs):
        try:
            snapshot = repository.snapshot(ref)
        except BackupdError:
            continue
        if not snapshot.checkpoint:
            return ref, snapshot
    return None
