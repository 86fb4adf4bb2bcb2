"""What people can read in a whole message: everybody who is named in its address fields, and its text, decoded.

For searches. Nothing here is exact where mail is broken: what cannot be decoded is taken as it stands, so that a search
finds rather too much than too little.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from email import message_from_bytes
from email.message import Message
from typing import Final

from backupd.mail.headers import codec_of, guessed, header_of, readable
from backupd.mail.outline import fields, lines

ADDRESS_FIELDS: Final = frozenset(
    b"from sender reply-to to cc bcc resent-from resent-sender resent-reply-to resent-to resent-cc resent-bcc"
    b" return-path delivered-to x-original-to envelope-to apparently-to disposition-notification-to errors-to".split()
)  # fmt: skip
"""RFC 5322, 3.6.2, 3.6.3, 3.6.6 and 3.6.7, RFC 8098, 2.1, and what servers write who delivers it to whom."""

_LONGEST_ATTACHMENT = 16 << 20
"""Octets of base64 in a row that are kept of a large message: text is shorter."""
_BASE64_LINE = re.compile(rb"[A-Za-z0-9+/=]{20,}\s*\Z")
_WITHIN_WORDS = re.compile(
    r"</?(?:a|abbr|b|big|del|em|font|i|ins|mark|s|small|span|strong|sub|sup|u|wbr)\b[^>]*>", re.IGNORECASE
)
_TAG = re.compile(r"<[^>]*>")


def people(header: bytes) -> Iterator[str]:
    """All address fields of a header, decoded."""
    return (readable(value) for name, value in fields(header) if name.lower() in ADDRESS_FIELDS)


def text(chunks: Iterable[bytes]) -> Iterator[str]:
    """All that can be read of a message, in pieces, with single spaces: header fields, the text of all parts, and the
    whole of it as it stands. Not what is in attachments of other kinds than text and messages. Never raises."""
    raw = _without_large_attachments(chunks)
    yield _spaced(guessed(raw))
    for _, value in fields(header_of(raw)):
        yield _spaced(readable(value))
    try:
        for part in message_from_bytes(raw).walk():
            yield from map(_spaced, _part(part))
    except Exception:  # noqa: BLE001 - broken mail breaks the library in ways of its own; as it stands it was given above
        return


def _part(part: Message) -> Iterator[str]:
    for _, value in part.raw_items():
        yield readable(str(value).encode("utf-8", "surrogateescape"))
    if part.get_content_maintype() == "text" and isinstance(octets := part.get_payload(decode=True), bytes):
        codec = codec_of((part.get_content_charset() or "").encode("ascii", "replace"))
        decoded = octets.decode(codec, "replace") if codec else guessed(octets)
        yield decoded
        if part.get_content_subtype() == "html":
            yield html.unescape(_TAG.sub(" ", _WITHIN_WORDS.sub("", decoded)))


def _spaced(decoded: str) -> str:
    return " ".join(decoded.split())


def _without_large_attachments(chunks: Iterable[bytes]) -> bytes:
    kept, in_a_row = [], 0
    for line in lines(chunks):
        in_a_row = in_a_row + len(line) if _BASE64_LINE.match(line) else 0
        if in_a_row <= _LONGEST_ATTACHMENT:
            kept.append(line)
    return b"".join(kept)
