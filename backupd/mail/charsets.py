"""Charsets of mail: which codec a name means, and how octets are read whose charset is unknown or wrongly named."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

_NOT_OF_MAIL = {"punycode", "raw-unicode-escape", "unicode-escape", "idna"}
"""Codecs of Python that give text and yet are no charset of mail."""

_MEANT = {
    "gb2312": "gb18030", "gbk": "gb18030", "euc_kr": "cp949", "ks_c_5601-1987": "cp949", "shift_jis": "cp932",
    "big5": "cp950", "sjis": "cp932",
    "windows-874": "cp874", "unicode-1-1-utf-7": "utf-7", "unicode-1-1-utf-8": "utf-8", "macintosh": "mac-roman",
    "utf8mb4": "utf-8",
}  # fmt: skip
"""What senders use under a name: mostly more than the standard of that name has. Where a standard has more than this
(Big5 of Hong Kong, say), octets are guessed beside it."""

_VARIANT = re.compile(rb"\Ax-|-[ie]\Z", re.IGNORECASE)
"""Of x-gbk, x-mac-roman; of iso-8859-8-i and -e (RFC 1556), where the order of letters is the same."""

_MORE = rb"(?:[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]|[\xf0-\xf4][\x80-\xbf]{2})[\x80-\xbf]"
_UTF_8_OR_NOT = re.compile(rb"((?:[\x00-\x7f]++|" + _MORE + rb")++)|((?:(?!" + _MORE + rb")[\x80-\xff])++)")


def _western(octets: bytes) -> str:
    try:
        return octets.decode("windows-1252")
    except UnicodeDecodeError:
        return octets.decode("latin-1")


@lru_cache(maxsize=256)
def codec_of(name: bytes) -> str | None:
    """The codec for a charset of mail, None if it is not known."""
    plain = _VARIANT.sub(b"", name)
    for each in (name, plain):
        try:
            codec = codecs.lookup(_MEANT.get(each.decode("ascii").lower(), each.decode("ascii"))).name
            b"a".decode(codec, "replace")  # raises if the codec gives no text, or cannot replace
        except (LookupError, ValueError):
            continue
        return None if codec in _NOT_OF_MAIL else _MEANT.get(codec, codec)
    return None


def guessed(octets: bytes) -> str:
    """Text of which nobody says in which charset it is: what is no UTF-8 is Windows-1252, or else Latin-1, and all
    around it stays UTF-8."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        # Not by a handler of errors: for each that gives more than one character, Python copies all that it has.
        pieces = _UTF_8_OR_NOT.findall(octets)
        return "".join(good.decode("utf-8", "replace") if good else _western(other) for good, other in pieces)


def decoded(octets: bytes, codec: str) -> str:
    """Text in the charset of this codec, guessed where the codec itself fails. Never raises."""
    try:
        return octets.decode(codec, "replace")
    except ValueError:
        return guessed(octets)


_WIDE = ("utf-16", "utf-32")
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip


def is_wide(octets: bytes, names: Iterable[str] = ()) -> bool:
    """Whether these octets may be text in units of 16 or 32 bits: it is said so, marked so, or every other is NUL."""
    if any(octets.startswith(mark) for mark, _ in _MARKS) or any(name.startswith(_WIDE) for name in names):
        return True
    if 0 not in octets:
        return False
    few, many = sorted((octets[::2].count(0), octets[1::2].count(0)))
    return many * 32 > len(octets) and many > 4 * few


def texts(octets: bytes, names: Iterable[str] = ()) -> Iterator[str]:
    """All that octets can mean: guessed, and in the charsets that are named. names: codecs, as `codec_of` gives them.

    The name is never believed alone: many programs declare what they always declare.
    """
    plain = guessed(octets)
    seen = {plain}
    yield plain
    for name in _names(octets, list(names), plain.isascii()):
        # Of a window in the midst of a text nobody knows where its units begin.
        for start in range(2 if name.startswith("utf-16") else 4 if name.startswith("utf-32") else 1):
            text = decoded(octets[start:], name)
            if text not in seen:
                seen.add(text)
                yield text


def _names(octets: bytes, names: list[str], is_ascii: bool) -> Iterator[str]:
    if is_wide(octets, names) or codecs.BOM_UTF16_LE in octets or codecs.BOM_UTF16_BE in octets:
        if not any(name.startswith("utf-32") for name in names):
            yield from ("utf-16-le", "utf-16-be")
        for mark, name in _MARKS:
            if octets.startswith(mark):
                yield name
    if b"\x1b$" in octets:
        yield "iso2022_jp_2"
    for name in names:
        if name == "utf-32":
            yield from ("utf-32-le", "utf-32-be")
        elif name not in ("utf-8", "ascii") and not (is_ascii and _keeps_ascii(name)):
            yield name


@lru_cache(maxsize=256)
def _keeps_ascii(name: str) -> bool:
    ascii_octets = bytes((*range(9, 14), *range(32, 127)))
    return name not in ("utf-7", "hz") and decoded(ascii_octets, name) == ascii_octets.decode("ascii")
