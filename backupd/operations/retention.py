"""Retention: which snapshots of an account are kept, and by which rules. Nothing is removed here: values in,
values out.

The rules are restic's. `keep_hourly: 48` keeps the last snapshot of each of the newest 48 hours *that have one*, so an
account that is backed up no more keeps what it has. Hours, days, weeks (from Monday), months and years are those of
UTC: every machine must come to the same decision, wherever it stands. `keep_within` counts back from the account's
newest snapshot and not from now, as restic's does, so that a clock gone wrong forgets nothing.

Whatever the rules say, these stay: the newest snapshot, from which the next backup goes on; the newest complete one;
what is held or pinned; what cannot be read. Where a period has a complete snapshot, an incomplete one does not stand
for it. Checkpoints stand for nothing, and go when something newer is complete. Without any rule nothing goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

import msgspec


class Rules(msgspec.Struct, frozen=True, omit_defaults=True):
    """How many of each are kept; None and 0: the rule keeps nothing."""

    keep_last: int | None = None
    keep_hourly: int | None = None
    keep_daily: int | None = None
    keep_weekly: int | None = None
    keep_monthly: int | None = None
    keep_yearly: int | None = None
    keep_within: timedelta | None = None

    @property
    def are_none(self) -> bool:
        """Whether there is no rule at all."""
        return not any(getattr(self, name) for name in self.__struct_fields__)


class Candidate(msgspec.Struct, frozen=True):
    """What the rules look at of a snapshot. readable: whether all that follows is known."""

    id: str
    time: datetime
    complete: bool
    checkpoint: bool
    readable: bool = True


class Verdict(msgspec.Struct, frozen=True):
    """Why a snapshot is kept; it goes when there is no reason."""

    id: str
    reasons: list[str]


NO_RULES: Final = "there are no rules"
NEWEST: Final = "newest"
NEWEST_COMPLETE: Final = "newest complete"
UNREADABLE: Final = "cannot be read"
CHECKPOINT: Final = "nothing complete is newer"

_PERIODS: Final[Sequence[tuple[str, Callable[[datetime], str]]]] = (
    ("hourly", lambda time: f"{time:%Y-%m-%d %H}"),
    ("daily", lambda time: f"{time:%Y-%m-%d}"),
    ("weekly", lambda time: f"{time:%G-W%V}"),
    ("monthly", lambda time: f"{time:%Y-%m}"),
    ("yearly", lambda time: f"{time:%Y}"),
)


def judge(
    candidates: Iterable[Candidate], rules: Rules, now: datetime, protected: Mapping[str, Sequence[str]] | None = None
) -> list[Verdict]:
    """A verdict on each snapshot of one account, the oldest first.

    Args:
        now: only so that a snapshot of the future does not let `keep_within` forget those of the present.
        protected: by id, why a snapshot stays whatever the rules say: holds and pins.
    """
    newest_first = sorted(candidates, key=lambda each: each.id, reverse=True)
    reasons: dict[str, list[str]] = {each.id: list((protected or {}).get(each.id, ())) for each in newest_first}
    if rules.are_none:
        for found in reasons.values():
            found.append(NO_RULES)
    else:
        for each, reason in _kept(newest_first, rules, now):
            reasons[each.id].append(reason)
    return [Verdict(each.id, reasons[each.id]) for each in reversed(newest_first)]


def _kept(newest_first: list[Candidate], rules: Rules, now: datetime) -> Iterable[tuple[Candidate, str]]:
    """Each snapshot that is kept, with a rule that keeps it; one may come several times."""
    readable = [each for each in newest_first if each.readable]
    ended = [each for each in readable if not each.checkpoint]
    complete = [each for each in ended if each.complete]
    for number, each in enumerate(ended[: rules.keep_last or 0], 1):
        yield each, f"last {number}"
    for name, period in _PERIODS:
        for key, each in _of_periods(ended, period)[: getattr(rules, f"keep_{name}") or 0]:
            yield each, f"{name} {key}"
    if rules.keep_within and ended:
        since = min(now, ended[0].time) - rules.keep_within
        for each in ended:
            if each.time > since:
                yield each, f"within {_days(rules.keep_within)}"
    for each in readable[:1]:
        yield each, NEWEST
    for each in complete[:1]:
        yield each, NEWEST_COMPLETE
    for each in readable:
        if each.checkpoint and not (complete and complete[0].id > each.id):
            yield each, CHECKPOINT
    for each in newest_first:
        if not each.readable:
            yield each, UNREADABLE


def _of_periods(newest_first: list[Candidate], period: Callable[[datetime], str]) -> list[tuple[str, Candidate]]:
    """Each period that has a snapshot, the newest first, and the one that stands for it: the last complete one, or the
    last one where none is complete."""
    found: dict[str, Candidate] = {}
    for each in newest_first:
        key = period(each.time)
        if key not in found or (each.complete and not found[key].complete):
            found[key] = each
    return list(found.items())


def _days(span: timedelta) -> str:
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        if span.total_seconds() % seconds == 0:
            return f"{int(span.total_seconds() // seconds)}{unit}"
    raise AssertionError
