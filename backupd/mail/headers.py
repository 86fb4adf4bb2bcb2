"""Header fields: where the header ends, what a listing shows of it, and how that is read by people.

What is kept (an Envelope) is raw and taken by one regular expression a message, since every message of a backup passes
through here. Decoding happens later, in `readable`, for those few that somebody looks at.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

from backupd.mail.charsets import codec_of, guessed
from backupd.mail.names import UNSAFE
from backupd.repository.runs import Envelope

LONGEST_VALUE = 2000
"""Octets kept of a field or a file name; a line may have 998 (RFC 5322, 2.1.1), and a listing shows less."""

MOST_ATTACHMENTS = 64
"""File names kept of a message."""

_LONGEST_FIELD = 16 * 1024
"""Octets of a Content-Type or Content-Disposition field that are looked at."""

_EMPTY_LINE = re.compile(rb"\n\r?\n")
_VALUE = rb"[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
# Its first letters are looked at before: that most fields are others is then known at once.
_ENVELOPE_FIELD = re.compile(rb"\n(?=[DFTSMdftsm])(?i:(date|from|to|subject|message-id))" + _VALUE)
_CONTENT_FIELD = re.compile(rb"\n(?i:content-(?:type|disposition))" + _VALUE)
_CONTENT_FIELD_AT_START = re.compile(_CONTENT_FIELD.pattern.removeprefix(rb"\n"))
_CUT_CHARACTER = re.compile(rb"[\xc0-\xff][\x80-\xbf]{0,2}\Z")

_PARAMETER = re.compile(rb""";\s*([^\s=;"]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|"?([^;]*))""", re.DOTALL)
_NAME_OF_FILE = re.compile(rb"(filename|name)(?:\*(\d{1,3}))?(\*)?\Z")
_QUOTED_PAIR = re.compile(rb'\\(["\\])')

_ENCODED_WORD = re.compile(rb"=\?([^?\s]{1,60})\?([BbQq])\?([^?]*)(?:\?=|\??\Z)")
_BETWEEN_WORDS = re.compile(rb"\s*\Z")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_QUOTED_OCTET = re.compile(rb"=([0-9A-Fa-f]{2})")
_EXTENDED_VALUE = re.compile(rb"([A-Za-z0-9_.:+-]{0,60})'[A-Za-z0-9-]*'(.*)\Z", re.DOTALL)
_SPACES = re.compile(r"[\t\r\n]+ *")


def header_of(raw: bytes | memoryview) -> bytes:
    """The octets up to the first empty line and with it, whether lines end by CRLF or LF: BODY[HEADER] of IMAP.

    All of the message if no line is empty; nothing but the empty line if it is the first.
    """
    start = bytes(raw[:2])
    if start.startswith(b"\n"):
        return b"\n"
    if start == b"\r\n":
        return start
    end = _EMPTY_LINE.search(raw)
    return bytes(raw if end is None else raw[: end.end()])


def envelope(header: bytes, attachments: Sequence[bytes] = ()) -> Envelope:
    """What a listing shows: the first field of each name, raw, unfolded, no longer than LONGEST_VALUE octets each."""
    fields: dict[bytes, bytes] = {}
    for name, value in _ENVELOPE_FIELD.findall(b"\n" + header):
        name = name.lower()
        if name not in fields:
            value = value.strip()
            fields[name] = value if len(value) <= LONGEST_VALUE and b"\n" not in value else _plain(value)
    take = fields.get
    return Envelope(
        take(b"date", b""),
        take(b"from", b""),
        take(b"to", b""),
        take(b"subject", b""),
        take(b"message-id", b""),
        tuple(map(_shortened, attachments[:MOST_ATTACHMENTS])) if attachments else (),
    )


def _plain(value: bytes) -> bytes:
    """The value of a field without folding (RFC 5322, 2.2.3) and the white space around it."""
    return _shortened(value.replace(b"\r\n", b"").replace(b"\n", b"").strip())


def _shortened(value: bytes) -> bytes:
    if len(value) <= LONGEST_VALUE:
        return value
    return _CUT_CHARACTER.sub(b"", value[:LONGEST_VALUE])


def attachment_names(raw_parts: bytes) -> tuple[bytes, ...]:
    """The file names in a message or in what is left of it when the contents of its parts are taken out.

    One name a part, in their order, each once: "filename" of Content-Disposition (RFC 2183, 2.3) or else "name" of
    Content-Type. Raw as they were sent, for `readable`; the pieces of a long one (RFC 2231, 3) are joined.
    """
    if not _may_have_names(raw_parts):
        return ()
    names: dict[bytes, None] = {}
    of_part: dict[bytes, bytes] = {}
    end_of_last = 0
    for field in _content_fields(raw_parts):
        if of_part and _EMPTY_LINE.search(raw_parts, end_of_last, field.start() + 1):
            names[_best(of_part)] = None
            of_part = {}
            if len(names) >= MOST_ATTACHMENTS:
                break
        end_of_last = field.end()
        if b"name" in field[1].lower():
            of_part |= _names_in(field[1][:_LONGEST_FIELD])
    if of_part:
        names[_best(of_part)] = None
    return tuple(names)[:MOST_ATTACHMENTS]


def _may_have_names(raw_parts: bytes) -> bool:
    """A quick look at all fields at once, with which most messages are done."""
    fields = _CONTENT_FIELD.findall(raw_parts)
    return b"name" in b"".join(fields).lower() or _CONTENT_FIELD_AT_START.match(raw_parts) is not None


def _content_fields(raw_parts: bytes) -> Iterator[re.Match[bytes]]:
    first = _CONTENT_FIELD_AT_START.match(raw_parts)
    if first is not None:
        yield first
    yield from _CONTENT_FIELD.finditer(raw_parts)


def _best(of_part: dict[bytes, bytes]) -> bytes:
    return of_part.get(b"filename") or of_part[b"name"]


def _names_in(field: bytes) -> dict[bytes, bytes]:
    """The parameters "filename" and "name" of a field; the extended form, in a charset, before the plain one."""
    pieces: dict[tuple[bytes, bool], list[tuple[int, bool, bytes]]] = {}
    for name, quoted, token in _PARAMETER.findall(field.replace(b"\r\n", b"").replace(b"\n", b"")):
        meant = _NAME_OF_FILE.match(name.lower())
        if meant is not None:
            value = _QUOTED_PAIR.sub(rb"\1", quoted) if quoted else token.strip()
            in_pieces_or_charset = meant[2] is not None or meant[3] is not None
            kind = (meant[1], in_pieces_or_charset)
            pieces.setdefault(kind, []).append((int(meant[2] or 0), meant[3] is not None, value))
    joined: dict[bytes, bytes] = {}
    for (name, _), values in sorted(pieces.items()):
        value = _joined(sorted(values, key=lambda piece: piece[0]))
        if value:
            joined[name] = _shortened(value)
    return joined


def _joined(pieces: list[tuple[int, bool, bytes]]) -> bytes:
    """One value of its pieces. Where some are percent-encoded and others are not, all become so."""
    extended = any(in_charset for _, in_charset, _ in pieces)
    return b"".join(
        value.replace(b"%", b"%25") if extended and not in_charset else value for _, in_charset, value in pieces
    )


def readable(value: bytes) -> str:
    """A raw field or file name for people: RFC 2047, RFC 2231, UTF-8 or, if nothing else, Windows-1252. Never raises.

    Controls, marks that reorder or hide text, and line ends are taken out.
    """
    extended = _EXTENDED_VALUE.match(value)
    if extended is not None and (known := codec_of(extended[1] or b"utf-8")) and (extended[1] or b"%" in value):
        decoded = unquote_to_bytes(extended[2]).decode(known, "replace")
    else:
        decoded = "".join(_decoded_words(value))
    return UNSAFE.sub("", _SPACES.sub(" ", decoded)).strip()


def _decoded_words(value: bytes) -> Iterator[str]:
    for codec, octets in encoded_words(value):
        yield octets.decode(codec, "replace") if codec else guessed(octets)


def encoded_words(value: bytes, *, of_unknown_charsets: bool = False) -> Iterator[tuple[str, bytes]]:
    """Encoded words (RFC 2047, 2) and what stands between: each with its codec, and without one where none is known.

    Neighbours in one charset come as one, as many programs split them in the middle of a character. One in an unknown
    charset is better shown as it stands than as something else; whoever searches wants its octets.
    """
    codec, octets, position = "", bytearray(), 0
    is_word = False
    for word in _ENCODED_WORD.finditer(value):
        name = codec_of(word[1].partition(b"*")[0])
        if name is None and not of_unknown_charsets:
            continue
        between = value[position : word.start()]
        apart = not is_word or not _BETWEEN_WORDS.match(between)
        if apart or codec != (name or ""):
            yield codec, bytes(octets)
            octets.clear()
        if apart:
            yield "", between
        codec, is_word, position = name or "", True, word.end()
        octets += _base64_octets(word[3]) if word[2] in b"Bb" else _quoted_octets(word[3])
    yield codec, bytes(octets)
    yield "", value[position:]


def _base64_octets(text: bytes) -> bytes:
    """Base64 with all its common faults: stray characters, missing padding, a cut end."""
    digits = _NOT_BASE64.sub(b"", text)
    if len(digits) % 4 == 1:
        digits = digits[:-1]
    return binascii.a2b_base64(digits + b"=" * (-len(digits) % 4))


def _quoted_octets(text: bytes) -> bytes:
    return _QUOTED_OCTET.sub(lambda octet: bytes.fromhex(octet[1].decode("ascii")), text.replace(b"_", b" "))
