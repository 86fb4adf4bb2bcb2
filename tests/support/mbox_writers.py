"""Mbox files as other programs write them, written plainly: what backupd reads is compared with what was put in."""

from __future__ import annotations

import re
from collections.abc import Iterable

FROM_LINE = b"From alice@example.com Wed Jul 17 09:44:25 1996\n"


def quoted(raw: bytes) -> bytes:
    """As mboxrd does it: reversibly."""
    return re.sub(rb"(?m)^(>*From )", rb">\1", raw)


def mboxrd(messages: Iterable[bytes], from_line: bytes = FROM_LINE) -> bytes:
    """Quoted reversibly; messages have LF, and end with one."""
    return b"".join(from_line + quoted(each) + b"\n" for each in messages)


def mboxo(messages: Iterable[bytes]) -> bytes:
    """Only "From " is quoted."""
    return b"".join(FROM_LINE + re.sub(rb"(?m)^From ", b">From ", each) + b"\n" for each in messages)


def mboxcl2(messages: Iterable[bytes]) -> bytes:
    """Nothing is quoted; Content-Length counts the body. Messages have a header of one field at least."""
    whole = []
    for each in messages:
        header, _, body = each.partition(b"\n\n")
        whole.append(FROM_LINE + header + b"\nContent-Length: %d\n\n" % len(body) + body + b"\n")
    return b"".join(whole)
