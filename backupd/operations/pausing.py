"""Pauses that servers want are kept over the end of a run, and of the process: remembered in the state, and obeyed.

A server that says for how long is left alone for so long. Where we guess, the pause doubles with every run that ends
so, up to a day, which is what Gmail closes an account for.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from backupd.errors import Throttled
from backupd.operations.state import Pause, State

LONGEST_GUESS = timedelta(days=1)
LONGEST = timedelta(days=7)
"""What a server may ask for; more is a mistake of it, or of its clock."""
_CLOCKS_DIFFER = timedelta(minutes=5)


def pause_of(error: Throttled, before: Pause | None, now: datetime) -> Pause:
    """How long to leave the account alone after this. before: the last pause, if no run went well since."""
    times = before.times if before else 0
    asked = timedelta(seconds=min(error.pause, LONGEST.total_seconds()))
    if error.guessed:
        asked = min(asked * 2 ** min(times, 10), max(asked, LONGEST_GUESS))
        times += 1
    return Pause(since=now, until=now + asked, why=error.what, times=times)


def left(pause: Pause | None, now: datetime) -> timedelta:
    """How much of the pause is left; nothing of one that a clock which was put back would make longer."""
    if pause is None or now < pause.since - _CLOCKS_DIFFER:
        return timedelta()
    return max(timedelta(), pause.until - now)


def remember(state: State, account: str, error: Throttled, now: datetime) -> None:
    """Keep the pause for the next run, and have the error say until when it lasts."""
    pause = pause_of(error, state.not_before(account), now)
    state.leave_alone(account, pause)
    error.pause = (pause.until - now).total_seconds()
    error.remedy = f"what was read is kept, and a run after {shown(pause.until)} goes on from there"


def forget(state: State, account: str) -> None:
    """A run went well."""
    if state.not_before(account):
        state.may_go_on(account)


def obey(state: State, account: str, now: datetime) -> None:
    """Raises Throttled while the account is to be left alone."""
    pause = state.not_before(account)
    rest = left(pause, now)
    if pause and rest:
        raise Throttled(
            f"left alone until {shown(pause.until)}: {pause.why}",
            pause=rest.total_seconds(),
            subject=account,
            remedy="it goes on then; `backupd backup --now` goes on at once",
        )


def shown(time: datetime) -> str:
    """A time for a message."""
    return f"{time:%Y-%m-%d %H:%M} UTC"
