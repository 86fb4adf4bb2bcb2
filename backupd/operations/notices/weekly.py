"""The weekly summary: that all is well is worth one message a week, or nobody would notice that there are none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from backupd.operations.notices.wording import Text, span
from backupd.operations.state import Run, State
from backupd.operations.status import AccountStatus, Level, Status, status
from backupd.redaction import scrub
from backupd.repository.repository import Repository

WEEKDAY, HOUR = 0, 8
"""Monday, at 8 in the morning, local time."""

MOST_NAMED = 12
MOST_RUNS = 1000
"""Of an account; the history of one that is always backed up is not longer."""

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


class Week(msgspec.Struct, frozen=True):
    """What is summed up. runs: of all accounts since `begins`. jobs: audits and the like, and what came of the last."""

    begins: datetime
    ends: datetime
    status: Status
    runs: Sequence[Run]
    jobs: Mapping[str, str] = {}


def due(last: datetime, now: datetime, zone: tzinfo | None = None) -> bool:
    """Whether a Monday morning has come since the last summary. Both aware."""
    here = now.astimezone(zone)
    monday = (here - timedelta(days=(here.weekday() - WEEKDAY) % 7)).replace(
        hour=HOUR, minute=0, second=0, microsecond=0
    )
    if monday > here:
        monday -= timedelta(days=7)
    return last < monday


def summary(week: Week, machine: str, zone: tzinfo | None = None) -> Text:
    """The week as a message."""
    accounts = week.status.accounts
    bad = [account for account in accounts if account.level is not Level.OK]
    fine = len(accounts) - len(bad)
    if not bad:
        subject = f"a good week: {_count(len(accounts), 'account')} backed up"
    else:
        subject = f"{len(bad):,} of {_count(len(accounts), 'account')} need attention"
    lines = [f"{_count(fine, 'account')} well, {len(bad):,} not."]
    worst_first = sorted(bad, key=lambda each: (each.level is not Level.CRITICAL, each.account))
    lines += [f"- {account.account}: {'; '.join(account.reasons[:2])}" for account in worst_first[:MOST_NAMED]]
    if len(bad) > MOST_NAMED:
        lines.append(f"- and {len(bad) - MOST_NAMED:,} more: backupd status")
    lines.append("")
    lines += _figures(week, accounts)
    lines += [f"{name}: {text}" for name, text in week.jobs.items()]
    until = week.ends.astimezone(zone)
    lines += ["", f"backupd on {machine}, week to {until:%Y-%m-%d %H:%M}"]
    severity = "success" if not bad else "failure" if week.status.level is Level.CRITICAL else "warning"
    return Text(subject, scrub("\n".join(lines)), severity)  # type: ignore[arg-type]


def _figures(week: Week, accounts: Sequence[AccountStatus]) -> list[str]:
    outcomes = Counter(run.outcome for run in week.runs)
    news, failed = outcomes["stored"], outcomes["failed"]
    went = _count(news + outcomes["unchanged"], "backup")
    lines = [f"Runs: {went} went well, {news:,} of them with news; {failed:,} failed."]
    ages = [(account.age, account.account) for account in accounts if account.age is not None]
    if ages:
        age, name = max(ages)
        lines.append(f"Oldest last backup: {name}, {span(age)} ago.")
    messages, octets = sum(each.messages for each in accounts), sum(each.octets for each in accounts)
    costs = week.status.repository
    lines.append(f"Mail: {_count(messages, 'message')}, {_size(octets)}; the repository takes {_size(costs.octets)}.")
    return lines


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _size(octets: float) -> str:
    for unit in _UNITS:
        if octets < 999.5 or unit == _UNITS[-1]:
            return f"{octets:.0f} {unit}" if unit == "B" or octets >= 99.5 else f"{octets:.1f} {unit}"
        octets /= 1000
    raise AssertionError


def gather(
    repository: Repository,
    state: State,
    objectives: Mapping[str, timedelta | None],
    begins: datetime,
    ends: datetime,
    jobs: Mapping[str, str] | None = None,
) -> Week:
    """The week from what is stored; takes a second for a thousand accounts. objectives: of each account."""
    runs = [run for name in objectives for run in state.runs(name, MOST_RUNS)]
    since = begins.astimezone(UTC)
    latest = [run for run in runs if datetime.fromisoformat(run.started) >= since]
    return Week(begins, ends, status(repository, state, objectives, ends), latest, jobs or {})
