"""Who is named in a header: addresses in any of their spellings, and parts of names.

An address is not parsed out of a field and compared, since each fault of a field would hide it. It is looked for where
it stands, with nothing before and behind it that would make it another one. So it is found in any field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from backupd.mail import windows
from backupd.mail.charsets import guessed
from backupd.mail.folding import folded
from backupd.mail.headers import encoded_words

ADDRESS_FIELDS = (
    rb"(?:resent-|x-|x-envelope-|envelope-|x-original-|x-google-original-|original-|delivered-|x-delivered-|x-forwarded-"
    rb"|mail-|mail-followup-|mail-reply-|apparently-|x-apparently-|final-|disposition-notification-|return-receipt-"
    rb"|x-confirm-reading-|x-rcpt-|x-real-|x-orig-|errors-|followup-|x-receiver-)?"
    rb"(?:from|sender|reply-to|to|cc|bcc|for|recipient|recipients)"
    rb"|return-path|author|x-authenticated-sender|x-authenticated-user|x-auth-user|x-beenthere|x-failed-recipients"
    rb"|x-receiver|x-rcpt-to|x-loop|list-post|list-owner"
)
"""RFC 5322, 3.6.2, 3.6.3, 3.6.6 and 3.6.7, RFC 8098, 2.1, RFC 9057, and what servers and programs write of the kind."""

_FIELD = rb"[ \t]*:([^\n]*(?:\n+[ \t][^\n]*)*)"
_IDENTIFICATION = re.compile(
    rb"^(?:resent-)?(?:message-id|references|in-reply-to|content-id|original-message-id|x-[a-z-]*message-id)" + _FIELD,
    re.IGNORECASE | re.MULTILINE,
)
_EMPTY_LINE = re.compile(rb"^\r*\n", re.MULTILINE)
_NAME = re.compile(rb"^[!-9;-~]{1,100}[ \t]*:", re.MULTILINE)
_AROUND_AT = re.compile(r" ?@ ?")
_AROUND_SIGNS = re.compile(r" ?([@.]) ?")
_QUOTES = str.maketrans("", "", '"\\')
_LABEL = re.compile(r"(?<![\w-])xn--([a-z0-9-]{1,59})(?![\w-])")
_PARENTHESIS = re.compile(r"([()])")
_TURNED_AROUND = re.compile(r"\b([\w'-]{1,40}), ([\w'-]{1,40})\b")
_OF_AN_ADDRESS = "._+-"
_OF_AN_ADDRESS_AFTER_A_LETTER = "'&"


def named(value: str) -> Callable[[Iterable[bytes]], bool]:
    """A test of fields that name people, raw: a whole address means just this one, `@example.com` all of a domain, and
    anything else a part of what people read there."""
    if "@" in value:
        wanted = _address(value)
        return lambda fields: any(_stands_in(wanted, each) for field in fields for each in _with_addresses(field))
    part = folded(value)
    return lambda fields: any(part in each for field in fields for each in _with_names(field))


def shown(value: bytes) -> Iterator[str]:
    """A header field, raw, as people read it, folded: encoded words as they are declared, and guessed."""
    for text in read(b" ".join(value.split())):
        yield folded(text)


def read(value: bytes) -> Iterator[str]:
    """The same as it is, of an unfolded value."""
    if b"=?" not in value:
        yield guessed(value)
        return
    words = list(encoded_words(value, of_unknown_charsets=True))
    plain = "".join(octets.decode(codec, "replace") if codec else guessed(octets) for codec, octets in words)
    yield plain
    if (again := "".join(guessed(octets) for _, octets in words)) != plain:
        yield again


def header(chunks: Iterable[bytes], value: str) -> Iterator[bytes]:
    """The header of a message in pieces that overlap, however long it is, lines ended by LF. Empty lines before it are
    skipped. value: what is looked for."""
    overlap = windows.OVERLAP + 32 * len(value)
    window, begun = bytearray(), False
    for block in windows.blocks(chunks):
        block = block if begun else block.lstrip(b"\r\n")
        begun = begun or bool(block)
        end = _EMPTY_LINE.search(block)
        window += block if end is None else block[: end.start()]
        if end is not None:
            break
        if len(window) >= windows.SIZE + overlap:
            yield _unix(window)
            rest = windows.tail(window, overlap)
            # A field that goes on is still one of that name.
            goes_on = window[rest : rest + 1].isspace()
            names = [found[0] for found in _NAME.finditer(window, 0, rest)][-1:] if goes_on else []
            window = bytearray(b"".join(names)) + window[rest:]
    yield _unix(window)


def _unix(window: bytes | bytearray) -> bytes:
    return bytes(window).replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def fields_of(header: Iterable[bytes], names: bytes) -> Iterator[bytes]:
    """The values of all fields of these names (a pattern) in a header, as `header` gives it."""
    pattern = re.compile(rb"^(?:" + names + rb")" + _FIELD, re.IGNORECASE | re.MULTILINE)
    return (found[1] for window in header for found in pattern.finditer(window))


def sought_in(header: Iterable[bytes], value: str) -> Iterator[bytes]:
    """Where in a header a person is looked for. An address: everywhere. A domain: everywhere but in ids of messages,
    which have it of the server. A name: in fields for addresses."""
    if "@" not in value:
        return fields_of(header, ADDRESS_FIELDS)
    if value.strip().startswith("@"):
        return (_IDENTIFICATION.sub(b"", window) for window in header)
    return iter(header)


def _with_names(field: bytes) -> Iterator[str]:
    """A field as people read it; without quotes; and the name before the surname."""
    for text in shown(field):
        yield text
        plain = " ".join(text.translate(_QUOTES).split())
        if plain != text:
            yield plain
        if ", " in plain:
            yield _TURNED_AROUND.sub(r"\2 \1", plain)


def _with_addresses(field: bytes) -> Iterator[str]:
    """A field in all spellings of what may be an address in it."""
    for text in shown(field):
        if "@" not in text:
            continue
        for plain in (text, _without_comments(text)) if "(" in text else (text,):
            spelled = _in_letters(plain.translate(_QUOTES))
            yield spelled
            if " " in spelled:
                yield _AROUND_AT.sub("@", spelled)
                yield _AROUND_SIGNS.sub(r"\1", spelled)


def _address(value: str) -> str:
    return _AROUND_SIGNS.sub(r"\1", _in_letters(folded(value).translate(_QUOTES))).strip("<> ").rstrip(".")


def _in_letters(text: str) -> str:
    """With domains in the letters that they stand for (RFC 5890)."""
    return _LABEL.sub(_letters, text) if "xn--" in text else text


def _letters(label: re.Match[str]) -> str:
    try:
        return folded(label[1].encode("ascii").decode("punycode"))
    except ValueError:
        return label[0]


def _without_comments(text: str) -> str:
    """RFC 5322, 3.2.2; they nest."""
    kept, depth = [], 0
    for piece in _PARENTHESIS.split(text):
        if piece == "(":
            depth += 1
        elif piece == ")":
            depth = max(depth - 1, 0)
        elif not depth:
            kept.append(piece)
    return "".join(kept)


def _stands_in(wanted: str, text: str) -> bool:
    at = text.find(wanted)
    while at >= 0:
        if (wanted.startswith("@") or not _goes_on_before(text, at)) and not _goes_on(text, at + len(wanted)):
            return True
        at = text.find(wanted, at + 1)
    return False


def _goes_on_before(text: str, at: int) -> bool:
    """Whether what ends here belongs to the local part behind it."""
    before = text[max(at - 2, 0) : at]
    if before[-1:] and before[-1] in _OF_AN_ADDRESS_AFTER_A_LETTER:
        return before[:-1].isalnum()
    return before[-1:].isalnum() or (before[-1:] != "" and before[-1] in _OF_AN_ADDRESS)


def _goes_on(text: str, at: int) -> bool:
    """Whether the domain before goes on here."""
    after = text[at : at + 2]
    if after.startswith("."):
        return after[1:].isalnum()
    return after[:1].isalnum() or (after[:1] != "" and after[0] in "-_")
