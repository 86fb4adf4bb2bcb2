"""What snapshots and objects cannot tell by themselves: whether something was removed behind our back, or put back.

Every stored object proves what it is; none proves that it still ought to be there, or that no other one is missing. The
repository's signed record of what was done to it can. Whatever reads that record is given to an audit as a
`CheckRecord`; without one the audit says what it could not know. """

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Protocol

from backupd.operations.audit_report import Finding, Level, Severity
from backupd.operations.state import State
from backupd.repository import names
from backupd.repository.repository import Repository
from backupd.storage.base import Storage

_RECORDED = "the signed record was asked: what went without an entry in it is told apart"
_NOT_RECORDED = "pruned, repaired, or removed by somebody; an audit with a key tells what is needed and not there"


class CheckRecord(Protocol):
    """Compares a repository with its record: what was removed without an entry, what is there although an entry says it
    was removed, an entry that is missing or was changed."""

    def __call__(self, storage: Storage, repository: Repository | None, *, deep: bool) -> list[Finding] | None:
        """repository: None on a host without a key. deep: read all of it, and not only what is new. None where nothing
        could be compared, since no public key is known."""
        ...


WhyGone = Callable[[Repository, Sequence[str]], Mapping[str, str]]
"""By which right these snapshots are gone, in words, of those of which the record tells one."""


def newest(state: State | None, accounts: Iterable[str]) -> dict[str, str]:
    """The newest snapshot of accounts, as the last backup on this machine left it. To be asked before snapshots are
    listed: a backup may end meanwhile."""
    found = {}
    for account in accounts if state else ():
        runs = state.runs(account, 100) if state else []
        if latest := next((run.snapshot for run in runs if run.snapshot), None):
            found[account] = latest
    return found


def newest_gone(
    repository: Repository,
    known: Mapping[str, str],
    accounts: Mapping[str, frozenset[str]],
    why_gone: WhyGone | None,
) -> list[Finding]:
    """Accounts whose newest snapshot is not there any more. No retention forgets that; somebody may have, by its name,
    and then the record tells.

    known: what it was, by account. accounts: ids of the snapshots that are there, by account.
    """
    gone = {
        names.snapshot(repository.secrets.account_tag(account), latest): (account, latest)
        for account, latest in known.items()
        if latest not in (there := accounts.get(account, frozenset())) and (not there or max(there) < latest)
    }
    excused = why_gone(repository, list(gone)) if gone and why_gone else {}
    findings = []
    for name, (account, latest) in gone.items():
        what = f"snapshot {latest}, which the last backup on this machine left as the newest, is not there"
        if why := excused.get(name):
            severity, what, remedy = Severity.NOTE, f"{what}: {why}", ""
        else:
            severity = Severity.CRITICAL
            remedy = "`backupd repair --removed-since TIME` brings back what copies and versions have"
        findings.append(Finding(severity, Level.METADATA, account, what, remedy, account))
    return findings


def gone(some: set[str], url: str) -> list[Finding]:
    """What was there at an audit before and is not now. Whether it was removed on purpose, nothing here tells."""
    kinds = {names.SNAPSHOTS: "snapshot", names.PACKS: "pack", names.INDEX: "index object"}
    kinds |= {names.HOLDS: "hold", names.ERASURES: "erasure", names.MARKS: "mark", names.NEEDS: "need"}
    kinds |= {names.LOG: "record object"}
    findings = []
    for prefix, noun in kinds.items():
        found = sorted(name.rpartition("/")[2] for name in some if name.startswith(prefix))
        if found:
            which = f" ({', '.join(found[:5])}{' and others' if len(found) > 5 else ''})" if noun == "snapshot" else ""
            how_many = f"{len(found):,} {noun}{'s' if len(found) > 1 else ''}"
            why = _RECORDED if prefix in (names.SNAPSHOTS, names.HOLDS, names.ERASURES) else _NOT_RECORDED
            what = f"{how_many} went since the last audit{which}: {why}"
            findings.append(Finding(Severity.NOTE, Level.METADATA, url, what))
    return findings
