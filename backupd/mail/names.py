"""Names of mailboxes: modified UTF-7, what people see, and what a file system can hold.

The bytes of the server stay the identity of a mailbox. Everything here is derived from them, for a screen or a folder.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
import unicodedata
from urllib.parse import unquote_to_bytes

LONGEST_COMPONENT = 200
"""Octets of UTF-8 in a path component at the most; file systems allow 255, the rest is left for suffixes."""

_NOT_PRINTABLE_ASCII = re.compile(r"[^\x20-\x7e]+")
_SHIFTED = re.compile(rb"&([A-Za-z0-9+,]*)-|&")

_INVISIBLE = r"\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufff9-\ufffb"
"""Controls, marks that turn the direction of text around or cannot be seen, and surrogates.

Not the joiners U+200C and U+200D: Persian, Indic scripts and emoji need them.
"""

UNSAFE = re.compile(f"[{_INVISIBLE}]")
"""A character that must never reach a terminal, a log or a file name as it is."""

_NOT_IN_PATHS = re.compile(rf'[{_INVISIBLE}%/\\<>:"|?*]|\A\.|[. ]\Z')
_NOT_IN_ASCII_PATHS = re.compile(rf"{_NOT_IN_PATHS.pattern}|[^\x00-\x7f]")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³])\s*(?:\.|\Z)", re.IGNORECASE)
_EMPTY = "%"
_CUT = "%~"
_UNIT = re.compile(r"%[0-9A-F]{2}|.", re.DOTALL)
_DIGEST_OCTETS = 16


def decode_utf7(raw: bytes) -> str:
    """Decode modified UTF-7 (RFC 3501, 5.1.3).

    Raises:
        ValueError: it is not what `encode_utf7` makes of any name. That includes needless shifts such as "&AGE-" for
            "a", which the RFC forbids: so two different names are never shown as one.
    """
    name = _SHIFTED.sub(_unshifted, raw).decode("utf-8", "surrogatepass")
    if encode_utf7(name) != raw:
        raise ValueError("not in modified UTF-7")
    return name


def _unshifted(match: re.Match[bytes]) -> bytes:
    shifted = match[1]
    if shifted is None:
        raise ValueError("a shift that does not end")
    if not shifted:
        return b"&"
    try:
        units = base64.b64decode(shifted + b"=" * (-len(shifted) % 4), altchars=b"+,", validate=True)
    except binascii.Error as error:
        raise ValueError("a shift that is not base64") from error
    return units.decode("utf-16-be").encode()


def encode_utf7(name: str) -> bytes:
    """Encode as modified UTF-7 (RFC 3501, 5.1.3).

    Raises:
        ValueError: the name holds a lone surrogate, which is no character.
    """
    return _NOT_PRINTABLE_ASCII.sub(_shift, name.replace("&", "&-")).encode("ascii")


def _shift(match: re.Match[str]) -> str:
    encoded = base64.b64encode(match[0].encode("utf-16-be"), altchars=b"+,")
    return f"&{encoded.rstrip(b'=').decode('ascii')}-"


def display_name(raw: bytes, utf8: bool = False) -> str:
    r"""The name for people, whatever the server sent. Never raises.

    What cannot be decoded stays visible as \xff; controls and marks that would reorder or hide text as \u202e.

    Args:
        raw: the name as the server writes it.
        utf8: the server speaks UTF-8 (RFC 9051, 5.1, or RFC 6855), so "&" has no meaning of its own.
    """
    if utf8 or not raw.isascii():  # some servers send UTF-8 without having been asked to
        decoded = raw.decode("utf-8", "backslashreplace")
    else:
        try:
            decoded = decode_utf7(raw)
        except ValueError:
            decoded = raw.decode("ascii")
    return UNSAFE.sub(_visible, decoded)


def _visible(match: re.Match[str]) -> str:
    return match[0].encode("unicode-escape").decode("ascii")


def split_levels(raw_name: bytes, delimiter: bytes | None) -> list[bytes]:
    """The levels of the hierarchy, the outermost first; one level when the server has no delimiter (NIL).

    Joining them by the delimiter gives the name again, so empty levels are kept.
    """
    return raw_name.split(delimiter) if delimiter else [raw_name]


def path_component(name: str) -> str:
    """The name as one component of a path that every common file system takes, by percent-escapes.

    It is never empty, "." or "..", never hidden, never a Windows device, and holds no separator and no control.
    Different names give different components, except that file systems which ignore case may still take two for one:
    callers that write to such compare first. `path_component_decode` gives the name back, unless it was too long for
    LONGEST_COMPONENT and was cut: then a hash of the whole name is at its end.
    """
    if not name:
        return _EMPTY
    escaped = _NOT_IN_PATHS.sub(_percent, name)
    if unicodedata.normalize("NFC", escaped) != escaped:  # some file systems would store another spelling
        escaped = _NOT_IN_ASCII_PATHS.sub(_percent, name)
    if _DEVICE.match(escaped):
        escaped = f"%{ord(escaped[0]):02X}{escaped[1:]}"
    return escaped if len(escaped.encode()) <= LONGEST_COMPONENT else _cut(name, escaped)


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogatepass"))


def _cut(name: str, escaped: str) -> str:
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[: 2 * _DIGEST_OCTETS]
    room = LONGEST_COMPONENT - len(_CUT) - len(digest)
    kept: list[str] = []
    for unit in _UNIT.findall(escaped):  # neither an escape nor a character is cut in two
        room -= len(unit.encode())
        if room < 0:
            break
        kept.append(unit)
    return "".join((*kept, _CUT, digest))


def path_component_decode(component: str) -> str:
    """The name that `path_component` was given.

    Raises:
        ValueError: `path_component` did not make it, or cut the name.
    """
    if component == _EMPTY:
        return ""
    name = unquote_to_bytes(component.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogatepass")
    if path_component(name) != component:
        raise ValueError(f"{component!r} is not the whole of an escaped name")
    return name
