"""Which mailbox of the target account a mailbox's mail goes to. Decisions only; what the server has is given.

Names are tried in turn: as they are (with the target's delimiter and namespace), then with all but letters and digits
escaped by percent signs, then short with a hash, since servers differ in what they allow and tell it only on CREATE.
Which of them a run used the next run finds by looking which of them exists.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import NamedTuple

from backupd.mail.names import UNSAFE, encode_utf7
from backupd.model import Mailbox
from backupd.targets.paths import levels_of, levels_of_prefix, mark, text_of_level

_MAPPED_USES = frozenset({b"\\archive", b"\\drafts", b"\\junk", b"\\sent", b"\\trash"})
"""Special uses of ordinary mailboxes; \\All, \\Flagged and \\Important are views of other mailboxes' mail."""

_NOT_AS_IT_IS = re.compile(rf"%(?:[0-9A-F]{{2}}|~)|\A%\Z|{UNSAFE.pattern}")
_PERCENT = re.compile(r"%(?=[0-9A-F]{2}|~)|\A%\Z")
_UNUSUAL = re.compile(r"[^\w \-]|\A | \Z|(?<= ) ")
_NOT_ASCII_WORD = re.compile(r"[^A-Za-z0-9]+")
_SHORT_CHARACTERS, _SHORT_DIGITS = 24, 16


class Namespace(NamedTuple):
    """Where an account's own mailboxes are (RFC 2342). prefix: levels that all names but INBOX begin with."""

    prefix: tuple[bytes, ...] = ()
    delimiter: bytes | None = None


class Listed(NamedTuple):
    """A mailbox the target has. special_use: in lower case."""

    raw_name: bytes
    selectable: bool
    special_use: frozenset[bytes]


def _key(raw_name: bytes) -> bytes:
    return b"INBOX" if raw_name.upper() == b"INBOX" else raw_name


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{octet:02X}" for octet in match[0].encode("utf-8", "surrogatepass"))


def _plain(level: bytes, delimiter: str) -> bytes:
    """The level itself, with only that escaped which cannot stand in a name at all."""
    text, exact = text_of_level(level)
    # Controls even where their encoding would hide them: Dovecot writes the decoded name into its answer.
    if exact and text and not (delimiter and delimiter in text) and not _NOT_AS_IT_IS.search(text):
        return level
    escaped = UNSAFE.sub(_percent, _PERCENT.sub("%25", text)) or "%"
    if delimiter:
        escaped = escaped.replace(delimiter, f"%{ord(delimiter):02X}")
    return encode_utf7(escaped + ("" if exact else mark(level)))


def _careful(level: bytes, delimiter: str) -> bytes:
    """The level with everything escaped that some server may refuse: dots, tildes, wildcards, spaces at the ends."""
    text, exact = text_of_level(level)
    return encode_utf7((_UNUSUAL.sub(_percent, text) or "%") + ("" if exact else mark(level)))


def _short(level: bytes, delimiter: str) -> bytes:
    """A few letters of the level, and a hash: what any server takes."""
    if level == b"INBOX":
        return level
    letters = _NOT_ASCII_WORD.sub("", text_of_level(level)[0])[:_SHORT_CHARACTERS]
    return f"{letters}-{hashlib.sha256(level).hexdigest()[:_SHORT_DIGITS]}".encode()


class NameMap:
    """Names for a source's mailboxes in one target account.

    Args:
        listed: what the account has.
        namespace: its personal namespace.
        into: the prefix the user asked for, its levels separated by "/".
    """

    def __init__(self, listed: Iterable[Listed], namespace: Namespace, into: str = "") -> None:
        levels_of_prefix(into)
        self._listed = {_key(each.raw_name): each for each in listed}
        self._namespace, self._into = namespace, into
        self._settled: dict[bytes, bytes] = {}

    def candidates(self, mailbox: Mailbox) -> list[bytes]:
        """Names to try, the best first; each names the same mailbox to everybody who asks."""
        levels = levels_of(mailbox, self._into)
        prefix = list(self._namespace.prefix)
        if levels == [b"INBOX"]:
            return [b"INBOX"]
        if prefix and [_key(level) for level in levels[: len(prefix)]] == [_key(level) for level in prefix]:
            levels = levels[len(prefix) :] or levels
        delimiter = (self._namespace.delimiter or b"").decode("latin-1")
        # Without a delimiter the account has no hierarchy; a slash is then as good a character as any.
        joiner = self._namespace.delimiter or b"/"
        names = [
            joiner.join([*prefix, *(way(level, delimiter) for level in levels)]) for way in (_plain, _careful, _short)
        ]
        return list(dict.fromkeys(names))

    def name(self, mailbox: Mailbox) -> bytes:
        """Where the mail goes: what was settled, or the first of the candidates that exists, or else the best one."""
        if mailbox.raw_name in self._settled:
            return self._settled[mailbox.raw_name]
        names = self.candidates(mailbox)
        special = self._of_same_use(mailbox)
        if special is not None and not self.exists(names[0]):
            return special
        return next((name for name in names if self.exists(name)), names[0])

    def settle(self, mailbox: Mailbox, name: bytes) -> None:
        """The server took this name."""
        self._settled[mailbox.raw_name] = name
        self._listed.setdefault(_key(name), Listed(name, True, frozenset()))

    def exists(self, name: bytes) -> bool:
        """Whether the account has the mailbox, and it can hold mail."""
        listed = self._listed.get(_key(name))
        return listed is not None and listed.selectable

    def free_uses(self, mailbox: Mailbox) -> list[bytes]:
        """Special uses of a mailbox that none of the account has yet."""
        taken = {use for each in self._listed.values() for use in each.special_use}
        return [use for use in mailbox.special_use if use.lower() in _MAPPED_USES - taken]

    def _of_same_use(self, mailbox: Mailbox) -> bytes | None:
        if self._into:
            return None
        uses = {use.lower() for use in mailbox.special_use} & _MAPPED_USES
        return next((one.raw_name for one in self._listed.values() if one.selectable and uses & one.special_use), None)
