"""The user's word for a target: `imap:ACCOUNT`, `maildir:DIR`, `mbox:DIR`, `eml:DIR` or `zip:FILE`."""

from __future__ import annotations

from typing import Literal, cast, get_args

import msgspec

from backupd.errors import UsageError

Kind = Literal["imap", "maildir", "mbox", "eml", "zip"]

_FORMS = {
    "imap": "imap:ACCOUNT",
    "maildir": "maildir:DIR",
    "mbox": "mbox:DIR",
    "eml": "eml:DIR",
    "zip": "zip:FILE",
}


class TargetSpec(msgspec.Struct, frozen=True):
    """What kind of target, and which: the name of a configured account for imap, else a path."""

    kind: Kind
    place: str


def parse(text: str) -> TargetSpec:
    """Read a target as the user writes it. Raises UsageError, with what would be right."""
    kind, colon, place = text.partition(":")
    if kind not in get_args(Kind):
        why = "this kind of target does not exist" if colon else "a target begins with its kind"
        raise UsageError(why, subject=text, remedy=f"write {', '.join(_FORMS.values())}")
    if not place or "\0" in place:
        missing = "the account" if kind == "imap" else "the path"
        raise UsageError(f"the target lacks {missing}", subject=text, remedy=f"write {_FORMS[kind]}")
    return TargetSpec(cast("Kind", kind), place)
