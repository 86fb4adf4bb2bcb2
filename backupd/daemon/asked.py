"""What is said over the control socket: where it is, and what a request and its answer look like."""

from __future__ import annotations

import msgspec

CONTROL_SOCKET = "control.sock"
"""In the state directory; for its owner alone."""


class Trigger(msgspec.Struct, forbid_unknown_fields=True):
    """The body of a /trigger. accounts: none means all."""

    accounts: list[str] = []


class Triggered(msgspec.Struct):
    """The answer. runs: of each account that will be backed up, how many of its runs will have ended when that is done;
    runs are counted from the daemon's start. unknown: accounts that there are not; nothing is done then."""

    runs: dict[str, int]
    unknown: list[str]
