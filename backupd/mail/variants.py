"""What people read in a text that programs wrote: without markup, marks of quoting, folds and escapes.

All ways of reading are tried, as it stands first. Every regular expression here takes time in proportion to the text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Collection, Iterator
from typing import Final
from urllib.parse import unquote_to_bytes

from backupd.mail.charsets import guessed

HEADER: Final = "header"
FOLDED: Final = "folded"
MARKUP: Final = "markup"
FLOWED_WITHOUT_SPACES: Final = "delsp"

_QUOTED_LINE = re.compile(r"^ ?[>|]", re.MULTILINE)
_MARKS_OF_QUOTING = re.compile(r"^[ >|]+", re.MULTILINE)
_SOFT_BREAK = re.compile(r" \r?\n[> ]*")
_FOLD = re.compile(r"\r?\n[ \t]")
_WIDE_FOLD = re.compile(r"\r?\n[ \t]+")
_PERCENT = re.compile(r"%[0-9A-Fa-f]{2}")
_NEXT_PIECE = re.compile(r'"? ?; ?[A-Za-z-]{1,40}\*[1-9][0-9]{0,2}\*? ?= ?"?')

_LOOKS_LIKE_MARKUP = re.compile(r"</[A-Za-z]|<(?:br|p|div|html|body|table)\b|&#?\w{2,8};", re.IGNORECASE)
_TAG = re.compile(r"""<(?=[A-Za-z/!?])(?:(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>|[^<>]*+>)""")
_TAG_OF_A_BLOCK = re.compile(
    r"<(?=/?(?:address|article|aside|blockquote|body|br|caption|center|dd|div|dl|dt|footer|form|h[1-6]|head|header|hr|html"
    r"|img|li|main|nav|ol|option|p|pre|section|select|table|tbody|td|tfoot|th|thead|title|tr|ul)\b)"
    r"""(?:(?:[^<>"']|"[^"<]*"|'[^'<]*')*+>|[^<>]*+>)""",
    re.IGNORECASE,
)
_ZEROS = re.compile(r"&#([xX]?)0+(?=[0-9A-Fa-f])")
_NO_CHARACTER = re.compile(r"&#[xX]?[0-9A-Fa-f]{8,};?")


def variants(text: str, kinds: Collection[str] = ()) -> Iterator[str]:
    """All ways to read a text. kinds: what is known of it: HEADER, FOLDED, MARKUP, FLOWED_WITHOUT_SPACES."""
    yield text
    if (">" in text or "|" in text) and _QUOTED_LINE.search(text):
        yield _MARKS_OF_QUOTING.sub("", text)
    if FLOWED_WITHOUT_SPACES in kinds:
        yield _SOFT_BREAK.sub("", text)
    if FOLDED in kinds or "BEGIN:V" in text:
        yield _FOLD.sub("", text)
    if "%" in text and _PERCENT.search(text):
        glued = _NEXT_PIECE.sub("", " ".join(text.split())) if HEADER in kinds else text
        yield guessed(unquote_to_bytes(glued.encode("utf-8", "replace")))
    if HEADER in kinds:
        plain = text.replace('"', "").replace("\\", "")
        yield plain
        if "\n " in plain or "\n\t" in plain:
            yield _WIDE_FOLD.sub("", plain)
    elif MARKUP in kinds or (("<" in text or "&" in text) and _LOOKS_LIKE_MARKUP.search(text)):
        yield from _without_markup(text)


def _without_markup(text: str) -> Iterator[str]:
    """With its attributes and comments; and without, tags taken as nothing, as spaces, and as what they mostly are."""
    yield unescaped(text)
    shown = _without_comments(text)
    if "<" in shown or shown != text:
        text = shown
        yield unescaped(_TAG.sub("", _TAG_OF_A_BLOCK.sub(" ", text)))
        yield unescaped(_TAG.sub("", text))
        yield unescaped(_TAG.sub(" ", text))


def _without_comments(text: str) -> str:
    *ended, last = text.split("-->")
    return "".join(each.partition("<!--")[0] if "<!--" in each else each + "-->" for each in ended) + last


def unescaped(text: str) -> str:
    """With characters for entities. A number that is none stays out, however long it is."""
    if "&" not in text:
        return text
    return html.unescape(_NO_CHARACTER.sub(" ", _ZEROS.sub(r"&#\1", text)))
