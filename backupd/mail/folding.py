"""One form for all that people read as the same: what is looked for and what is searched are brought into it.

Capital letters, composed and decomposed characters, full-width letters and ligatures, marks that nobody sees, kinds of
spaces, apostrophes and hyphens make no difference. Accents do: Jurgen is not Jürgen.
"""

from __future__ import annotations

import re
import unicodedata

_CONTROLS = bytes((*range(9), *range(14, 28), 127))
_UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u115f\u1160\u17b4\u17b5"
    "\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000110bd\U000110cd"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
"""Controls other than white space, the category Cf, and what else Unicode calls ignorable by default."""

_ALIKE = {
    "'": re.compile("[\u2018\u2019\u201a\u201b\u2032\u02b9\u02bb-\u02bd\u0060\u00b4]"),
    '"': re.compile("[\u201c-\u201f\u2033\u00ab\u00bb]"),
    "-": re.compile("[\u2010-\u2015\u2212]"),
}
_LONGEST_WORD = 256
"""Characters that are normalised at once: sorting marks, which it does, takes time by the square of their number."""

_JOINING = re.compile("[\u1160-\u11ff\uff9e\uff9f]")
"""What becomes one with the character before it, though Unicode gives it no combining class."""


def folded(text: str) -> str:
    """The text in that form, white space as single spaces and none around. Folding again changes nothing that matters
    to a search: both sides are folded once."""
    if text.isascii():
        plain = text.replace("`", "'").lower().encode("ascii").translate(None, _CONTROLS).decode("ascii")
        return " ".join(plain.split())
    for plain, alike in _ALIKE.items():
        text = alike.sub(plain, text)
    words = _UNSEEN.sub("", text).split()
    if any(len(word) > _LONGEST_WORD for word in words):
        words = [_normal(piece) for word in words for piece in _pieces(word)]
        # A long word was marked by a space where it was cut: see _pieces.
        return " ".join(" ".join(words).replace(" \0", "").split())
    return " ".join(_normal(" ".join(words)).split())


def _normal(text: str) -> str:
    once = unicodedata.normalize("NFKC", text).casefold()
    return unicodedata.normalize("NFKC", once).replace("i\u0307", "i").replace("\u0131", "i")


def _pieces(word: str) -> list[str]:
    """A long word in pieces; all but the first begin with NUL, which no folded text has."""
    pieces, start = [], 0
    while start < len(word):
        end = start + _LONGEST_WORD
        while end < min(len(word), start + _LONGEST_WORD + 40) and _joins(word[end]):
            end += 1
        pieces.append(("\0" if start else "") + word[start:end])
        start = end
    return pieces


def _joins(character: str) -> bool:
    return unicodedata.combining(character) != 0 or _JOINING.match(character) is not None
