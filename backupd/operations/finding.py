"""What `backupd doctor` finds."""

from __future__ import annotations

from typing import Literal

import msgspec

from backupd.errors import BackupdError

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked. subject: what was looked at; what: what was found; remedy: what to do about it."""

    level: Level
    subject: str
    what: str
    remedy: str = ""


def of_error(subject: str, error: BackupdError, level: Level = "problem") -> Finding:
    """An error as a finding."""
    told = not error.subject or subject in (error.subject, f"account {error.subject}")
    what = error.what if told else f"{error.subject}: {error.what}"
    return Finding(level, subject, what, error.remedy)
