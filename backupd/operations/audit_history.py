"""Of all audits that were held, those that still say something: values, and judgement of values.

A failure stands until a later audit has looked at all that the failed one did. One that looked at less (a lower level,
a share of the bytes, one account of many, with a key that tells less) may not have seen what was wrong, however well it
went; and one that could not judge has refuted nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from backupd.operations.audit_report import NEEDED, Level
from backupd.operations.audit_state import Audit, AuditState
from backupd.repository.keys import Role

_ROLES = tuple(Role)


class LastOfLevel(NamedTuple):
    """What is to be said of a level. last: its latest audit. failed: the latest of its audits that failed, if nothing
    has made up for it since; it may be the last one itself. made_up: the later audit that did, of the last one."""

    last: Audit
    failed: Audit | None
    made_up: Audit | None

    @property
    def outcome(self) -> Audit:
        """The audit whose outcome counts for the level."""
        return self.failed or self.made_up or self.last


def latest(state: AuditState, repository: str) -> list[LastOfLevel]:
    """Of each level that was ever held of the repository at this address, the deepest first."""
    return judge([each for level in Level for each in state.audits(repository, "", level.value)])


def judge(audits: Sequence[Audit]) -> list[LastOfLevel]:
    """Of each level. audits: of one repository, those of a level the newest first."""
    found = []
    for level in reversed(Level):
        some = [each for each in audits if each.level == level]
        if not some:
            continue
        failures = [each for each in some if each.outcome != "ok"]
        failed = next((each for each in failures if not _made_up_for(each, audits)), None)
        found.append(LastOfLevel(some[0], failed, _made_up_for(some[0], audits) if some[0] in failures else None))
    return found


def supersedes(later: Audit, earlier: Audit) -> bool:
    """Whether the later one has looked at all that the earlier one did, and could judge it."""
    if later.outcome == "unknown" and earlier.outcome in ("warning", "critical"):
        return False
    if later.number <= earlier.number or later.repository != earlier.repository or not _includes(later, earlier):
        return False
    mine, theirs = later.scope, earlier.scope
    return (
        (not mine.accounts or (bool(theirs.accounts) and set(theirs.accounts) <= set(mine.accounts)))
        and (mine.budget is None or (theirs.budget is not None and mine.budget >= theirs.budget))
        and (mine.since is None or (theirs.since is not None and mine.since <= theirs.since))
        and mine.full >= theirs.full
        and mine.exported >= theirs.exported
    )


def _includes(later: Audit, earlier: Audit) -> bool:
    """Whether the level does, with the key it was held with: without one, an audit of storage sees no metadata."""
    level = Level(earlier.level)
    role, before, needed = (_ROLES.index(Role(each)) for each in (later.scope.role, earlier.scope.role, NEEDED[level]))
    return role >= before and (later.level == level or (Level(later.level).includes(level) and role >= needed))


def _made_up_for(failed: Audit, audits: Sequence[Audit]) -> Audit | None:
    later = (each for each in audits if supersedes(each, failed))
    return max(later, key=lambda each: each.number, default=None)
