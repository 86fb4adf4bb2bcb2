"""Transfer encodings of mail (RFC 2045, 6), with all common faults, for searches: rather too much than too little.

Whatever a header says, what looks encoded is decoded: headers lie, or are lost with a boundary. Nothing here raises,
and everything takes time in proportion to the octets.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Collection, Iterator
from typing import Final

BASE64: Final = "base64"
QUOTED: Final = "quoted-printable"
UU: Final = "uuencode"

_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
_SPACE = b" \t\r\n\v\f"
_OTHERS = bytes(set(range(256)) - set(_DIGITS + b"="))
_NO_LINE_OF_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\s]")
_LONG_LINE_OF_BASE64 = re.compile(rb"^[A-Za-z0-9+/]{20,}={0,2}\r?$", re.MULTILINE)
_SEGMENT = re.compile(rb"[A-Za-z0-9+/]{2,}")
_SOFT_BREAK = re.compile(rb"=[ \t]*(?:\r\n|\n|\r)")
_LOOKS_QUOTED = re.compile(rb"=[C-Fc-f][0-9A-Fa-f]=[89ABab][0-9A-Fa-f]|=3D|=(?:20)?\r?\n[^\r\n-]")
_UU_BEGIN = re.compile(rb"^begin [0-7]{3,4} ", re.MULTILINE)
_SHOWN_AS_IT_STANDS = 64 * 1024
"""Octets of clean base64, in a window, that are read as they stand too; in more of it there are no words."""


def named(field: bytes) -> Iterator[str]:
    """Encodings that a Content-Transfer-Encoding names, whatever else stands there."""
    field = field.lower()
    if b"base64" in field:
        yield BASE64
    if b"quoted" in field:
        yield QUOTED
    if b"uu" in field:
        yield UU


def readings(octets: bytes, encodings: Collection[str], *, continued: bool = False) -> Iterator[bytes]:
    """What a piece of a body may be: itself, and decoded in each way that is named or that it looks like.

    continued: the piece begins within the body, so that nobody knows where a group of base64 begins.
    """
    as_base64 = BASE64 in encodings
    if not (as_base64 and len(octets) > _SHOWN_AS_IT_STANDS and _is_clean(octets)):
        yield octets
    if as_base64:
        yield from _base64(octets, continued=continued)
    elif long := _LONG_LINE_OF_BASE64.findall(octets):
        yield from _base64(b"\n".join(long), continued=continued)
    if QUOTED in encodings or (b"=" in octets and _LOOKS_QUOTED.search(octets)):
        yield quoted(octets)
    if UU in encodings or (b"begin " in octets and _UU_BEGIN.search(octets)):
        yield _uu(octets)


def quoted(octets: bytes) -> bytes:
    """Quoted-printable, decoded; white space that was added after a soft line break goes with it."""
    # binascii leaves out all up to the next LF after "=" and CR, so soft breaks are none of its business.
    return binascii.a2b_qp(_SOFT_BREAK.sub(b"", octets))


def _is_clean(octets: bytes) -> bool:
    """Whether it is nothing but base64, with padding at the end alone."""
    digits = octets.translate(None, _SPACE)
    return not digits.translate(None, _DIGITS + b"=") and b"=" not in digits.rstrip(b"=")


def _base64(octets: bytes, *, continued: bool) -> Iterator[bytes]:
    digits = octets.translate(None, _OTHERS)
    if not continued and _is_clean(octets) and len(digits.rstrip(b"=")) % 4 != 1:
        yield _joined(digits)
        return
    # Lines that are all base64, without those that somebody put between.
    yield _joined(b"".join(line for line in re.split(rb"[\r\n]+", octets) if not _NO_LINE_OF_BASE64.search(line))
                  .translate(None, _OTHERS))  # fmt: skip
    # A digit too many or too few moves all that follows: it can only be in one of four places.
    for start in range(4):
        yield _joined(digits, start)


def _joined(digits: bytes, start: int = 0) -> bytes:
    """Segments between paddings, each decoded on its own."""
    if b"=" not in digits.rstrip(b"="):
        return _decoded(digits.rstrip(b"=")[start:])
    return b"".join(_decoded(segment[start:]) for segment in _SEGMENT.findall(digits))


def _decoded(digits: bytes) -> bytes:
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _uu(octets: bytes) -> bytes:
    decoded = []
    for line in octets.splitlines():
        try:
            decoded.append(binascii.a2b_uu(line))
        except binascii.Error:
            decoded.append(line + b"\n")
    return b"".join(decoded)


class Base64Stream:
    """Base64 of a message within a message, decoded as it comes."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, octets: bytes) -> bytes:
        """What is complete of it by now."""
        *ended, last = (self._rest + octets.translate(None, _OTHERS)).split(b"=")
        whole = len(last) - len(last) % 4
        self._rest = last[whole:]
        return b"".join(map(_decoded, filter(None, ended))) + _decoded(last[:whole])

    def end(self) -> bytes:
        """What is left."""
        return _decoded(self._rest)


class QuotedStream:
    """Quoted-printable of a message within a message, which comes in whole lines."""

    feed = staticmethod(quoted)

    def end(self) -> bytes:
        """Nothing is left."""
        return b""


def looks_like_base64(octets: bytes) -> bool:
    """Whether the first line that is not empty has nothing but base64."""
    line = octets.lstrip()[:200].partition(b"\n")[0]
    return bool(line) and not _NO_LINE_OF_BASE64.search(line) and b" " not in line.strip()
