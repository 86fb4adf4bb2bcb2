"""What getmail writes into the messages it files: fields Delivered-To and Received of its own, below Return-Path.

Both tell of the download and not of the way of the message: with them it is not the one the server has any more, and
seems to have arrived when it was fetched. So they are taken out, where the second is unmistakably getmail's. What else
getmail does cannot be undone: it folds long fields anew, and adds a Return-Path where there is none.
"""

from __future__ import annotations

import re

LONGEST = 1 << 16
"""Octets at the beginning of a message that are looked at."""

_ITS_NAME = re.compile(r"\d+\.M\d+P\d+Q\d+R[0-9a-f]+\.")
_REST = rb"[^\n]*\n(?:[ \t][^\n]*\n)*"
_FIELDS = re.compile(
    rb"\A(?:Return-Path:" + _REST + rb")?((?:Delivered-To:" + _REST + rb")?"
    rb"Received: from [^\n]*(?:\n[ \t][^\n]*)* getmail6?(?=[ \t\r\n;])(?:[^\n]|\n[ \t])*\n)"
)


def its_name(name: str) -> bool:
    """Whether getmail itself put a file of this name into a Maildir, and no server after it."""
    return _ITS_NAME.match(name) is not None


def its_fields(head: bytes) -> tuple[int, int] | None:
    """Where getmail's own fields begin and end; None where there are none. head: the beginning of a message."""
    if b" getmail" not in head:
        return None
    found = _FIELDS.match(head)
    return found.span(1) if found else None
