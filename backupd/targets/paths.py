"""Where a mailbox goes in a tree of folders or in a zip file: safe names, the same ones every time, never two for one.

Each level of the hierarchy becomes one component by `mail.names.path_component`, so that no name can lead out of the
target's folder. What would still collide gets a hash behind it: names whose bytes cannot be told from their text, names
the layout needs for itself, and names that differ in case only, which many file systems take for one.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable

from backupd.errors import UsageError
from backupd.mail.names import decode_utf7, encode_utf7, path_component, split_levels
from backupd.model import Mailbox

Parts = tuple[str, ...]
Component = Callable[[bytes], str]

_DIGEST_DIGITS = 8


def text_of_level(level: bytes) -> tuple[str, bool]:
    """One level of a name as text, and whether its bytes can be had back from that, as from proper modified UTF-7."""
    if not level.isascii():
        return level.decode("utf-8", "backslashreplace"), False
    try:
        return decode_utf7(level), True
    except ValueError:
        return level.decode("ascii"), False


def mark(level: bytes) -> str:
    """What tells a level from others of the same text. No escaped name has "%~" in it but as such a mark."""
    return "%~" + hashlib.sha256(level).hexdigest()[:_DIGEST_DIGITS]


def levels_of(mailbox: Mailbox, into: str = "") -> list[bytes]:
    """The levels of a mailbox's name below the levels of `into`; INBOX is spelled so however the server wrote it."""
    raw = mailbox.raw_name
    levels = [b"INBOX"] if raw.upper() == b"INBOX" else split_levels(raw, mailbox.delimiter)
    return [*levels_of_prefix(into), *levels]


def levels_of_prefix(into: str) -> list[bytes]:
    """The levels of `--into`, which are separated by "/". Raises UsageError."""
    try:
        return [encode_utf7(level) for level in into.split("/") if level]
    except ValueError:
        raise UsageError("not a name that mail servers know", subject=into, remedy="write --into in UTF-8") from None


def component_beside(reserved: Callable[[str], bool]) -> Component:
    """How levels become components where some names belong to the layout itself.

    Args:
        reserved: tells, of a component in lower case, whether the layout has its own use for it.
    """

    def component(level: bytes) -> str:
        text, exact = text_of_level(level)
        escaped = path_component(text)
        return escaped if exact and not reserved(escaped.casefold()) else escaped + mark(level)

    return component


class Places:
    """Gives each mailbox its path, as components below the target's folder.

    Args:
        into: the prefix the user asked for.
        component: one level as one component; different levels must give different components.
        siblings: what is in a folder of the target already, so that a later run decides as the first did.
        fold: whether names that differ in case only must be kept apart.
    """

    def __init__(
        self, into: str, component: Component, siblings: Callable[[Parts], Iterable[str]], *, fold: bool = True
    ) -> None:
        levels_of_prefix(into)
        self._into, self._component, self._siblings, self._fold = into, component, siblings, fold
        self._taken: dict[Parts, dict[str, str]] = {}

    def parts(self, mailbox: Mailbox) -> Parts:
        """The components, at least one."""
        parts: Parts = ()
        for level in levels_of(mailbox, self._into):
            name = self._component(level)
            parts = (*parts, self._apart(parts, name) if self._fold else name)
        return parts

    def _apart(self, parent: Parts, name: str) -> str:
        taken = self._taken.get(parent)
        if taken is None:
            there = sorted(self._siblings(parent))
            taken = self._taken[parent] = {each: _folded(each) for each in there}
        if name in taken:
            return name
        if _folded(name) in taken.values():
            name += mark(name.encode("utf-8", "surrogatepass"))
        taken[name] = _folded(name)
        return name


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name.casefold())
