"""What servers say when they want less of us, and how long to leave them alone then.

Exchange names a time, by IMAP and POP3: "Request is throttled. Suggested Backoff Time: 299000 milliseconds". Gmail and
Yahoo do not: [THROTTLED], even in an OK; [OVERQUOTA] or "Account exceeded command or bandwidth limits" when the day's
budget is used up, after which it refuses everything, for up to a day. What is not said is guessed, and the guess grows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from backupd.errors import Throttled

PATIENCE = 120.0
"""Seconds of pauses in a row that a run waits out. For longer it ends, so that others can use its place."""
SLOWER = 900.0
"""Seconds to leave an account alone whose server goes on throttling and does not say for how long."""
EXHAUSTED = 3600.0
"""The same, when it says that a quota is used up."""

_SUGGESTED = re.compile(rb"backoff time:? *(\d{1,12}) *(milliseconds|seconds)?", re.IGNORECASE)
_THROTTLED = re.compile(rb"request is throttled", re.IGNORECASE)
_EXHAUSTED = re.compile(
    rb"exceeded (?:command or )?bandwidth limit|bandwidth limit exceeded|download exceed", re.IGNORECASE
)


class Wish(NamedTuple):
    """seconds: that the server names, None where it leaves that to us. exhausted: whether waiting a little is no use.
    """

    seconds: float | None = None
    exhausted: bool = False

    @property
    def pause(self) -> float:
        """Seconds until another try, guessed if need be."""
        if self.seconds is not None:
            return self.seconds
        return EXHAUSTED if self.exhausted else SLOWER


def wish(code: bytes, text: bytes, *, refused: bool = True) -> Wish | None:
    """What an answer asks for; None if for nothing of the kind.

    code: the response code without brackets, upper case. refused: whether the answer was a refusal; a quota that is
    mentioned in an OK is none of our business.
    """
    if found := _SUGGESTED.search(text):
        return Wish(int(found[1]) / (1 if (found[2] or b"").lower() == b"seconds" else 1000))
    if code == b"THROTTLED" or _THROTTLED.search(text):
        return Wish()
    if refused and (code == b"OVERQUOTA" or _EXHAUSTED.search(text)):
        return Wish(exhausted=True)
    return None


def throttled(found: Wish, said: str, *, subject: str) -> Throttled:
    """The error for a pause that is not waited out. said: the server's words, fit to be shown."""
    what = "the account has used up what the server allows" if found.exhausted else (
        "the server is throttling this account"
    )
    asked = f" and asks to wait {found.seconds:,.0f} s" if found.seconds is not None else ""
    return Throttled(
        f"{what}{asked}: {said}" if said else what + asked,
        pause=found.pause,
        guessed=found.seconds is None,
        subject=subject,
        remedy="the next run goes on where this one stopped; fewer connections, or a daily_limit, may help",
    )
