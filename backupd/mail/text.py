"""What people can read in a whole message: header fields, the text of all parts, messages in it; decoded, for searches.

A message is not parsed into a tree, which any fault would hide a part of. It is read as it comes, flat: stretches of
header and body, each with what the fields before it say of charset and encoding, and each read in every way that these,
or its looks, suggest. Those of one kind are looked at together, in windows that overlap. So rather too much is found
than too little, time grows with the size alone, and memory does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from backupd.errors import Damaged
from backupd.mail import people, transfer, variants, windows
from backupd.mail.charsets import codec_of, is_wide, texts
from backupd.mail.folding import folded

_LONGEST_HEADER = 4 << 20
"""Octets of one header in which Content-Type is looked for. All of it is read as text."""

_DEEPEST = 20
"""Encoded messages within each other; unencoded ones have no depth here."""

_MOST_BOUNDARIES = 1000
_MOST_CODECS = 4
_MOST_HELD = 8 * windows.SIZE
_LONGEST_FIELD = 16 * 1024

_END_OF_HEADER = re.compile(rb"^(?:\r*\n|--(?=\S))", re.MULTILINE)
_EMPTY_LINES = re.compile(rb"[\r\n]*")
_DASHES = re.compile(rb"^--(?=\S)", re.MULTILINE)
_FIELD_NAME = re.compile(rb"[!-9;-~]{1,100}[ \t]*:")
_CONTENT_FIELD = re.compile(
    rb"^content-(type|transfer-encoding)[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)", re.IGNORECASE | re.MULTILINE
)
_CHARSET = re.compile(rb"charset[*0-9]*\s*=[\s\"]*([^\s;\"<>/]{1,80})", re.IGNORECASE)
_BOUNDARY = re.compile(rb"boundary[*0-9]*\s*=\s*(?:\"([^\"]*)\"|([^\s;]+))", re.IGNORECASE)
_FOLDED_TYPES = re.compile(rb"calendar|vcard|directory")
_CONTROLS = bytes((*range(1, 9), 11, *range(16, 27), 28, 29, 30, 31, 127))
"""Octets that text has in no charset; not those with which ISO 2022 shifts."""

_PIECE = 512


class _Kind(NamedTuple):
    """What is known of a stretch. codecs: of charsets that may be meant. encodings: see transfer.py; kinds: see
    variants.py."""

    codecs: tuple[str, ...] = ()
    encodings: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()


_PLAIN = _Kind()
_HEADER = _Kind(kinds=(variants.HEADER,))


def text(chunks: Iterable[bytes], longest: int = 0) -> Iterator[str]:
    """All that can be read of a message, folded (see folding.py), in pieces, in each way that it can be meant.

    longest: characters of what is looked for; it is whole in one of the pieces. Raises Damaged at the end if some of
    the message could not be read: what is found before is there.
    """
    stretches = _Stretches(windows.OVERLAP + 32 * longest)
    reader = _Reader(stretches)
    for block in windows.blocks(chunks):
        reader.block(block)
        yield from _read(stretches.take())
    reader.end()
    yield from _read(stretches.rest())
    if stretches.unread:
        raise Damaged("some of a message cannot be read", subject=stretches.unread, remedy="look at it: `backupd show`")


class _Window(NamedTuple):
    kind: _Kind
    octets: bytes
    continued: bool


def _read(found: Iterable[_Window]) -> Iterator[str]:
    for kind, octets, continued in found:
        for each in transfer.readings(octets, kind.encodings, continued=continued):
            if is_wide(each, kind.codecs):
                yield from _pieces(each, kind)
            elif legible := _without_binary(each):
                yield from _pieces(legible, kind)


def _pieces(octets: bytes, kind: _Kind) -> Iterator[str]:
    codecs: list[str] = list(kind.codecs)
    if b"<meta" in octets[:4096].lower():
        codecs += _codecs(_CHARSET.findall(octets[:4096]))
    for decoded in texts(octets, codecs):
        for each in variants.variants(decoded, kind.kinds):
            yield folded(each)
    if b"=?" in octets:  # encoded words: in a header, or where one is quoted
        for decoded in people.read(b" ".join(octets.split())):
            for each in variants.variants(decoded, kind.kinds):
                yield folded(each)


def _without_binary(octets: bytes) -> bytes:
    """Without stretches that are no text, but for what borders on text."""
    if len(octets) < 2 * _PIECE or not _is_binary(octets, 100):
        return octets
    pieces = [octets[start : start + _PIECE] for start in range(0, len(octets), _PIECE)]
    legible = [not _is_binary(piece, 20) for piece in pieces]
    borders = zip([False, *legible], legible, [*legible[1:], False], strict=False)
    return b"".join(piece for piece, around in zip(pieces, borders, strict=True) if any(around))


def _is_binary(octets: bytes, share: int) -> bool:
    """Whether so many of its octets are controls: one in `share`."""
    return (len(octets) - len(octets.translate(None, _CONTROLS))) * share > len(octets)


def _codecs(names: Iterable[bytes]) -> list[str]:
    """Those that are known. Of an extended value (RFC 2231, 4) each piece may be the name."""
    found = (codec_of(piece.strip()) for name in names for piece in name.split(b"'"))
    return list(dict.fromkeys(codec for codec in found if codec))


class _Stretches:
    """Stretches of a message that wait until there is enough of one kind to look at, and what could not be read."""

    def __init__(self, overlap: int) -> None:
        self._overlap, self._size = overlap, windows.SIZE + overlap
        self._held: dict[_Kind, bytearray] = {}
        self._octets = 0
        self._continued: set[_Kind] = set()
        self._full: list[_Window] = []
        self.unread = ""

    def add(self, kind: _Kind, octets: bytes) -> None:
        """Some more of this kind."""
        held = self._held.setdefault(kind, bytearray())
        held += octets
        self._octets += len(octets)
        if len(held) >= self._size:
            self._let_go(kind)
        elif self._octets > _MOST_HELD + len(self._held) * self._overlap:
            for each in list(self._held):
                self._let_go(each)

    def part(self, kind: _Kind) -> None:
        """A stretch of this kind is at its end, and what comes next does not go on with it."""
        self.add(kind, b"\n=\n" if transfer.BASE64 in kind.encodings else b"\n\n")

    def _let_go(self, kind: _Kind) -> None:
        held = self._held.pop(kind)
        self._full.append(_Window(kind, bytes(held), kind in self._continued))
        self._octets -= len(held)
        if len(held) > self._overlap:
            self._held[kind] = held[windows.tail(held, self._overlap) :]
            self._octets += len(self._held[kind])
            self._continued.add(kind)
        else:
            self._held[kind] = held
            self._octets += len(held)

    def take(self) -> list[_Window]:
        """What there is enough of."""
        full, self._full = self._full, []
        return full

    def rest(self) -> list[_Window]:
        """All that is left."""
        rest = [_Window(kind, bytes(held), kind in self._continued) for kind, held in self._held.items() if held]
        return self.take() + rest


class _Reader:
    """Reads a message, or one that is encoded in it, block by block.

    boundaries: of all multiparts so far; one that is used again where it should not be parts too much, which hides
    nothing.
    """

    def __init__(self, stretches: _Stretches, *, depth: int = 0, boundaries: dict[bytes, None] | None = None) -> None:
        self._stretches, self._depth = stretches, depth
        self._boundaries = {} if boundaries is None else boundaries
        self._blocks = windows.Blocks()
        self._in_header, self._at_start = True, True
        self._at_end_of_header = False
        self._header = bytearray()
        self._kind = _PLAIN
        self._before: tuple[str, ...] = ()
        self._is_digest = False
        self._inner: _Reader | None = None
        self._stream: transfer.Base64Stream | transfer.QuotedStream = transfer.QuotedStream()

    def feed(self, octets: bytes) -> None:
        """Some more octets, cut anywhere."""
        for block in self._blocks.feed(octets):
            self.block(block)

    def block(self, block: bytes) -> None:
        """Some more whole lines."""
        at = 0
        if self._at_end_of_header:
            self._end_header(block[:1024])
        while at < len(block):
            at = self._more_of_header(block, at) if self._in_header else self._more_of_body(block, at)

    def end(self) -> None:
        """That was all."""
        self.block(self._blocks.end())
        if self._in_header:
            self._end_header(b"")
        self._end_body()

    def _more_of_header(self, block: bytes, at: int) -> int:
        if self._at_start and (empty := _EMPTY_LINES.match(block, at)):
            at = empty.end()
            self._at_start = at == len(block)
        end = _END_OF_HEADER.search(block, at)
        octets = block[at : end.start()] if end else block[at:]
        self._stretches.add(_HEADER, octets)
        self._header += octets[: _LONGEST_HEADER - len(self._header)]
        if end is None:
            if len(self._header) >= _LONGEST_HEADER:
                self._stretches.unread = f"a header of more than {_LONGEST_HEADER:,} octets"
            return len(block)
        after = end.start() if end[0].startswith(b"--") else end.end()
        if after == len(block):
            self._at_end_of_header = True
        else:
            self._end_header(block[after : after + 1024])
        return after

    def _end_header(self, beginning: bytes) -> None:
        """Takes what the header says. beginning: of what comes after it."""
        self._at_end_of_header = False
        self._stretches.part(_HEADER)
        header, self._header = bytes(self._header).replace(b"\r\n", b"\n"), bytearray()
        found = [(name.lower(), value[:_LONGEST_FIELD]) for name, value in _CONTENT_FIELD.findall(header)]
        content = b"\n".join(value for name, value in found if name == b"type")
        lower = content.lower()
        encodings = tuple(transfer.named(b"\n".join(value for name, value in found if name != b"type")))
        for quoted, plain in _BOUNDARY.findall(content):
            if boundary := (quoted or plain).rstrip():
                self._boundaries[boundary] = None
        while len(self._boundaries) > _MOST_BOUNDARIES:
            del self._boundaries[next(iter(self._boundaries))]
        codecs = (*_codecs(_CHARSET.findall(content)), *self._before)[:_MOST_CODECS]
        self._kind = _Kind(codecs, encodings, _kinds(lower))
        self._in_header = False
        is_message = b"message/" in lower or (
            self._is_digest and not header.strip() and not beginning.startswith(b"--")
        )
        self._is_digest = self._is_digest or b"multipart/digest" in lower
        if transfer.BASE64 in encodings and not transfer.looks_like_base64(beginning):
            encodings = tuple(each for each in encodings if each != transfer.BASE64)
        if encodings and (is_message or b"multipart/" in lower or _may_be_a_message(lower)):
            self._begin_inner(encodings, is_message=b"multipart/" not in lower)
        elif is_message:
            self._in_header, self._at_start = True, True

    def _begin_inner(self, encodings: tuple[str, ...], *, is_message: bool) -> None:
        if self._depth >= _DEEPEST:
            self._stretches.unread = f"messages encoded in each other more than {_DEEPEST} times"
            return
        if transfer.UU in encodings:
            return
        self._stream = transfer.Base64Stream() if transfer.BASE64 in encodings else transfer.QuotedStream()
        self._inner = _Reader(self._stretches, depth=self._depth + 1, boundaries=self._boundaries)
        self._inner._in_header = is_message

    def _more_of_body(self, block: bytes, at: int) -> int:
        for dashes in _DASHES.finditer(block, at):
            end = block.find(b"\n", dashes.end()) + 1 or len(block)
            line = block[dashes.end() : end].rstrip()
            closes = line.endswith(b"--") and line[:-2] in self._boundaries
            is_declared = closes or line in self._boundaries
            if is_declared or _FIELD_NAME.match(block, end):
                self._body(block[at : dashes.start()])
                self._end_body()
                # Where nobody declared it, it may be text that quotes a message, and the text goes on.
                self._before = () if is_declared else self._kind.codecs
                self._kind, self._in_header, self._at_start = _PLAIN, not closes, False
                self._stretches.add(_PLAIN, block[dashes.start() : end])
                return end
        self._body(block[at:])
        return len(block)

    def _body(self, octets: bytes) -> None:
        if self._inner is None:
            self._stretches.add(self._kind, octets)
        else:
            self._inner.feed(self._stream.feed(octets))

    def _end_body(self) -> None:
        if self._inner is not None:
            self._inner.feed(self._stream.end())
            self._inner.end()
            self._inner = None
        self._stretches.part(self._kind)


def _kinds(content_type: bytes) -> tuple[str, ...]:
    """What a Content-Type, in small letters, tells of how to read a text."""
    kinds = []
    if b"delsp" in content_type:
        kinds.append(variants.FLOWED_WITHOUT_SPACES)
    if _FOLDED_TYPES.search(content_type):
        kinds.append(variants.FOLDED)
    if b"html" in content_type or b"xml" in content_type:
        kinds.append(variants.MARKUP)
    return tuple(kinds)


def _may_be_a_message(content_type: bytes) -> bool:
    return b"octet-stream" in content_type and b".eml" in content_type
