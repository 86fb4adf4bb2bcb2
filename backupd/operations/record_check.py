"""The signed record in an audit: whether it is whole, and whether what is there is what it says.

Needs no key, but the public one. What it claims to see: a snapshot or hold that went without an entry; one that is back
although an entry says it was gone; an entry that was changed, or is missing before another one; and the newest entries,
if this machine or an export has known them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

from backupd.errors import BackupdError, StorageDenied
from backupd.operations import record as record_entries
from backupd.operations.audit_record import CheckRecord, WhyGone
from backupd.operations.audit_report import AuditReport, Finding, Level, Severity
from backupd.operations.counting import count
from backupd.operations.record import some_state
from backupd.operations.record_export import Export
from backupd.operations.record_ledger import ACCEPTED, Ledger, are, entries_of
from backupd.operations.state import State
from backupd.repository import names, record
from backupd.repository.record import Signer
from backupd.repository.repository import Repository
from backupd.storage.base import Storage

_SHOWN: Final = 20
_ACCEPT: Final = "once you know why, `backupd record accept` says so"
_MEND: Final = "`backupd repair` looks for a good one in copies and versions"
_BRING_BACK: Final = "`backupd repair --removed-since TIME` brings back what copies and versions have"


def checker(
    state: State | None, accounts: Mapping[str, object], *, exported: Export | None = None, is_copy: bool = False,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> CheckRecord:
    """What an audit calls. accounts: by name; damage is told as theirs. is_copy: what is forgotten in the repository
    stays in a copy of it, and is no surprise there."""

    def check(storage: Storage, repository: Repository | None, *, deep: bool) -> list[Finding] | None:
        if repository is None and exported is None:
            return None
        tags = {repository.secrets.account_tag(name): name for name in accounts} if repository else {}
        whose = record.signer(repository.secrets) if repository else exported.signer  # type: ignore[union-attr]
        with some_state(state) as known:
            return _Check(storage, known, whose, exported, tags, clock(), is_copy=is_copy).run(repository, deep=deep)

    return check


def appender(state: State | None, clock: Callable[[], datetime]) -> Callable[[Repository, AuditReport], None]:
    """What an audit calls in the end, so that the record tells what it came to."""

    def append(repository: Repository, report: AuditReport) -> None:
        counts = {
            "findings": report.problems,
            "snapshots": report.checked.snapshots,
            "objects": report.checked.objects,
            "octets": report.checked.octets,
        }
        words = {"level": report.level.value, "outcome": report.outcome, "role": report.role.value}
        try:
            record_entries.append(repository, state, clock(), "audit", counts=counts, words=words)
        except StorageDenied as error:  # an auditor's credentials may be no writer's
            report.left_out.append(f"an entry in the signed record: {error.what}")

    return append


def why_gone(state: State | None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> WhyGone:
    """What an audit asks about snapshots that are not there. What was only announced, or is held, may not be gone; and
    a record that cannot be read, or lacks something, excuses nothing."""

    def told(repository: Repository, some: Sequence[str]) -> dict[str, str]:
        try:
            with some_state(state) as known:
                ledger = Ledger(repository.storage, known, record.signer(repository.secrets))
                if ledger.doubts(ledger.learn()):
                    return {}
                held = record_entries.held_and_gone(repository, known, ledger, clock(), ())
                accepted = known.record_gone_by(ledger.number, ACCEPTED)
                forgotten = known.record_gone_by(ledger.number, record_entries.FORGOTTEN) - held.keys()
        except BackupdError:
            return {}
        words = dict.fromkeys(forgotten, "it was forgotten by name, as the record tells")
        words |= dict.fromkeys(accepted, "somebody has accepted that, as the record tells")
        return {name: words[name] for name in some if name in words}

    return told


class _Check:
    """One comparison."""

    def __init__(
        self,
        storage: Storage,
        state: State,
        whose: Signer,
        exported: Export | None,
        tags: Mapping[str, str],
        now: datetime,
        *,
        is_copy: bool,
    ) -> None:
        self._storage, self._state, self._whose, self._exported = storage, state, whose, exported
        self._tags, self._now, self._is_copy = tags, now, is_copy
        self._ledger = Ledger(storage, state, whose)
        self._findings: list[Finding] = []

    def run(self, repository: Repository | None, *, deep: bool) -> list[Finding]:
        problems = self._ledger.learn(deep=deep)
        for problem in problems:
            if problem.accepted:  # the entries that it does not show any more are told apart
                self._found(Severity.NOTE, problem.object, f"{problem.what}; that was looked into, and accepted")
            else:
                self._found(Severity.CRITICAL, problem.object, problem.what, f"{_MEND}; {_ACCEPT}")
        if self._ledger.begun:
            self._chain()
            self._compare(repository)
        elif not problems:
            self._found(Severity.NOTE, self._storage.url, "there is no signed record yet; what writes next begins it")
        self._against_export()
        return self._findings

    def _found(self, severity: Severity, subject: str, what: str, remedy: str = "", account: str = "") -> None:
        self._findings.append(Finding(severity, Level.METADATA, subject, what, remedy, account))

    def _chain(self) -> None:
        """Whether all entries are there that anybody has known."""
        state, number = self._state, self._ledger.number
        if lost := state.record_lost(number):
            _, time, kind = lost[0]
            count = len(lost)
            what = f"{entries_of(count)} that this machine knew {are(count)} gone, the latest of {time} ({kind})"
            self._found(Severity.CRITICAL, names.LOG, what, f"{_BRING_BACK}; {_ACCEPT}")
        if wanted := state.record_wanted(number):
            what = f"{entries_of(len(wanted))} {are(len(wanted))} missing, after which others were written"
            self._found(Severity.CRITICAL, names.LOG, what, f"{_BRING_BACK}; {_ACCEPT}")

    def _against_export(self) -> None:
        exported, state = self._exported, self._state
        if exported is None:
            return
        if exported.signer != self._whose:
            what = "this repository's record has another key than the export: it is another repository's"
            self._found(Severity.CRITICAL, names.LOG, what, "compare both with your recovery kit")
            return
        vouched = {each: state.record_vouched(self._ledger.number, bytes.fromhex(each)) for each in exported.heads}
        missing = [each for each, there in vouched.items() if there is False]
        accepted = sum(there is None for there in vouched.values())
        for each in missing:
            what = f"the entry {each[:16]}, which was the last on {exported.time} by the export, is not in the record"
            self._found(Severity.CRITICAL, names.LOG, what, f"{_BRING_BACK}; {_ACCEPT}")
        if not missing:
            but = f", but for {entries_of(accepted)} whose loss was accepted" if accepted else ""
            what = f"the record has all that it had at the export of {exported.time}{but}"
            self._found(Severity.NOTE, names.LOG, what)

    # What is there

    def _compare(self, repository: Repository | None) -> None:
        there = self._there()
        missing = self._state.record_missing(self._ledger.number, there)
        unknown = self._ledger.unknown(there)
        if missing or unknown:
            # What was stored, or forgotten, since the record was read, is in it by now.
            self._ledger.learn()
            missing = self._state.record_missing(self._ledger.number, there)
            unknown = self._ledger.unknown(there)
            there = there if not missing else there | self._there()
            missing = [name for name in missing if name not in there]
        self._each(missing, self._missing)
        removed = self._state.record_removed(self._ledger.number)
        self._each(sorted(name for name, gone in removed.items() if gone and name in there), self._back)
        if repository:
            held = record_entries.held_and_gone(repository, self._state, self._ledger, self._now, there)
            self._each([name for name in held if name not in missing], self._held)
        self._abandoned(there)
        if unknown:
            objects = count(len(unknown), "snapshot, hold or erasure is", "snapshots, holds and erasures are")
            what = f"{objects} there without an entry in the record"
            why = "a machine died before it could write one, or is about to; the account's next backup records them"
            self._found(Severity.NOTE, self._storage.url, what, why)

    def _there(self) -> set[str]:
        return set(record_entries.recorded_names(self._storage))

    def _each(self, some: list[str], tell: Callable[[str, str], None]) -> None:
        """Tell of each, if they are not too many."""
        for name in sorted(some)[:_SHOWN]:
            tag = (names.parse_snapshot(name) or ("",))[0]
            tell(name, self._tags.get(tag, ""))
        if len(some) > _SHOWN:
            severity = self._findings[-1].severity
            self._found(severity, self._storage.url, f"and so it is with {len(some) - _SHOWN:,} more")

    def _missing(self, name: str, account: str) -> None:
        nouns = {names.HOLDS: "hold", names.ERASURES: "erasure"}
        noun = next((noun for prefix, noun in nouns.items() if name.startswith(prefix)), "snapshot")
        what = f"the record tells of this {noun}, of nobody who removed it, and it is not there"
        self._found(Severity.CRITICAL, name, what, f"{_BRING_BACK}; {_ACCEPT}", account)

    def _held(self, name: str, account: str) -> None:
        what = "a hold keeps this snapshot, and it is not there: whoever forgot it did not heed the hold"
        self._found(Severity.CRITICAL, name, what, f"{_BRING_BACK}; {_ACCEPT}", account)

    def _abandoned(self, there: set[str]) -> None:
        left = record_entries.abandoned(self._state, self._ledger, self._now, there)
        if left and not self._is_copy:
            some = "1 snapshot was" if len(left) == 1 else f"{len(left):,} snapshots were"
            what = f"{some} to be removed, and not: nobody would miss it if somebody did"
            why = "a forget died, or a backup may not remove its checkpoints; the next `backupd forget` ends it"
            self._found(Severity.NOTE, self._storage.url, what, why)

    def _back(self, name: str, account: str) -> None:
        if self._is_copy:
            return
        what = "it was forgotten, as the record tells, and is there again: somebody has put it back"
        remedy = "`backupd forget` removes it; or if it is meant to be there, `backupd record accept` says so"
        self._found(Severity.WARNING, name, what, remedy, account)
