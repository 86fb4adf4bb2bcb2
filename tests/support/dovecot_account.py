"""One account on the test server, and everything a test does to it behind backupd's back."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from imapclient.imap_utf7 import decode as from_modified_utf7

from tests.support.imap_wire import Delivery, Name, Refused, Stored, Wire, quote

if TYPE_CHECKING:
    from tests.support.dovecot import Dovecot

FORMATS: dict[str, tuple[str, ...]] = {
    "sdbox": ("userdb_mail=sdbox:~/sdbox",),
    "mdbox": ("userdb_mail=mdbox:~/mdbox",),
    "maildir": ("userdb_mail=maildir:~/Maildir",),
    "maildir-fs": ("userdb_mail=maildir:~/Maildir:LAYOUT=fs",),
    "maildir-prefix": (
        "userdb_mail=maildir:~/Maildir",
        "userdb_namespace/inbox/prefix=INBOX.",
        "userdb_namespace/inbox/separator=.",
    ),
}
"""Ways Dovecot can keep mail; they differ in the delimiter, in which names are possible, and in what a UID survives."""

FIRST_DELIVERY = 1_000_000_000
"""9 September 2001: when mail put in place by `deliver` says it arrived."""

_LISTED = re.compile(
    rb'\* LIST \(([^)]*)\) (?:"(?:\\?.)"|NIL) (?:"((?:[^"\\]|\\.)*)"|\{\d+\}\r\n(.*)|(\S+))\r\n', re.DOTALL
)

Message = bytes | Delivery | tuple[bytes, Sequence[bytes]] | tuple[bytes, Sequence[bytes], bytes | None]


def _delivery(message: Message) -> Delivery:
    if isinstance(message, bytes):
        return Delivery(message)
    raw, flags, *date = message
    return Delivery(raw, tuple(flags), date[0] if date else None)


@dataclass(frozen=True)
class Account:
    """Credentials, and helpers that act on the account directly. Names are text, or bytes as they go over the wire."""

    server: Dovecot
    username: str
    password: str
    home: Path
    format: str

    @property
    def host(self) -> str:
        return self.server.host

    @property
    def port(self) -> int:
        """Plain IMAP, with STARTTLS on offer."""
        return self.server.ports.imap

    @property
    def tls_port(self) -> int:
        """IMAP with TLS from the start."""
        return self.server.ports.imaps

    @property
    def ca_file(self) -> Path:
        """The certificate authority that signed the server's certificate (localhost, 127.0.0.1)."""
        return self.server.ca_file

    @contextmanager
    def wire(self, mailbox: Name | None = None) -> Iterator[Wire]:
        """A logged-in raw connection, with a mailbox selected (for writing) when one is named."""
        with Wire(self.host, self.port, self.username, self.password) as wire:
            if mailbox is not None:
                wire.command(b"SELECT", quote(mailbox))
            yield wire

    def doveadm(self, *arguments: str | Path | bytes, stdin: bytes = b"") -> bytes:
        """doveadm for this user: the first word or words are the command, as in doveadm("mailbox", "list")."""
        groups = 2 if arguments[0] in ("mailbox", "flags", "acl", "quota") else 1
        words = (*arguments[:groups], "-u", self.username, *arguments[groups:])
        return self.server.doveadm(*words, stdin=stdin)

    # -- mailboxes -----------------------------------------------------------------------------------------------------

    def create(self, *mailboxes: Name) -> None:
        with self.wire() as wire:
            for mailbox in mailboxes:
                wire.command(b"CREATE", quote(mailbox))

    def delete(self, mailbox: Name) -> None:
        with self.wire() as wire:
            wire.command(b"DELETE", quote(mailbox))

    def rename(self, old: Name, new: Name) -> None:
        with self.wire() as wire:
            wire.command(b"RENAME", quote(old), quote(new))

    def subscribe(self, *mailboxes: Name) -> None:
        with self.wire() as wire:
            for mailbox in mailboxes:
                wire.command(b"SUBSCRIBE", quote(mailbox))

    def unsubscribe(self, *mailboxes: Name) -> None:
        with self.wire() as wire:
            for mailbox in mailboxes:
                wire.command(b"UNSUBSCRIBE", quote(mailbox))

    def subscriptions(self) -> list[bytes]:
        """Raw names of the subscribed mailboxes, sorted."""
        return self._list(b'LIST (SUBSCRIBED) "" "*"')

    def mailboxes(self) -> list[bytes]:
        """Raw names of all mailboxes that can hold messages, sorted."""
        return self._list(b'LIST "" "*"')

    def _list(self, command: bytes) -> list[bytes]:
        with self.wire() as wire:
            found = [_LISTED.match(answer) for answer in wire.command(command)]
        hidden = (b"\\noselect", b"\\nonexistent")
        kept = [one for one in found if one and not any(word in one[1].lower() for word in hidden)]
        return sorted(
            re.sub(rb"\\(.)", rb"\1", one[2]) if one[2] is not None else (one[3] if one[3] is not None else one[4])
            for one in kept
        )

    def status(self, mailbox: Name) -> dict[str, int]:
        """MESSAGES, UIDNEXT, UIDVALIDITY and HIGHESTMODSEQ as the server gives them."""
        with self.wire() as wire:
            answers = wire.command(b"STATUS", quote(mailbox), b"(MESSAGES UIDNEXT UIDVALIDITY HIGHESTMODSEQ)")
        fields = answers[0].rsplit(b"(", 1)[1].split(b")")[0].split()
        return {name.decode(): int(value) for name, value in zip(fields[::2], fields[1::2], strict=True)}

    def reset_uidvalidity(self, mailbox: Name, value: int | None = None) -> int:
        """Give a mailbox another UIDVALIDITY, as a migrated or rebuilt server does; UIDs and mail stay. Returns it."""
        new = value if value is not None else self.status(mailbox)["UIDVALIDITY"] + 1000
        self.doveadm("mailbox", "update", "--uid-validity", str(new), encode_name_for_doveadm(mailbox))
        return new

    # -- messages ------------------------------------------------------------------------------------------------------

    def append(self, mailbox: Name, raw: bytes, flags: Sequence[bytes] = (), date: bytes | None = None) -> None:
        self.append_many(mailbox, [Delivery(raw, tuple(flags), date)])

    def append_many(self, mailbox: Name, messages: Iterable[Message]) -> None:
        """Append in order: plain bytes, or (raw, flags), or (raw, flags, date). Fast: MULTIAPPEND and LITERAL+."""
        with self.wire() as wire:
            wire.append(mailbox, (_delivery(message) for message in messages))

    def deliver(self, mailbox: Name, messages: Iterable[bytes]) -> None:
        """Put mail in place past IMAP (doveadm import): fast, in order, and it takes what APPEND refuses, such as NUL.

        The messages have no flags, and INTERNALDATEs a second apart, beginning with FIRST_DELIVERY.
        """
        folder = self.home / "import"
        for part in ("cur", "new", "tmp"):
            (folder / part).mkdir(parents=True)
        for number, raw in enumerate(messages):
            path = folder / "cur" / f"{FIRST_DELIVERY + number}.M{number}P1.test:2,"
            path.write_bytes(raw)
            os.utime(path, (FIRST_DELIVERY + number,) * 2)
        self.server.own(folder, *folder.rglob("*"))
        prefix, delimiter = ("INBOX.", ".") if self.format == "maildir-prefix" else ("", "/")
        parent = f"{prefix}delivered-now"
        self.doveadm("import", f"maildir:{folder}:INDEX=MEMORY", parent, "mailbox", "INBOX", "ALL")
        shutil.rmtree(folder)
        self.move(f"{parent}{delimiter}INBOX", "1:*", mailbox)
        self.delete(f"{parent}{delimiter}INBOX")
        with suppress(Refused):  # the parent, where it is a mailbox by itself
            self.delete(parent)

    def messages(self, mailbox: Name, uids: bytes = b"1:*") -> list[Stored]:
        """All messages of a mailbox in UID order, to be compared with what a restore brought."""
        with self.wire() as wire:
            return list(wire.fetch(mailbox, uids))

    def store(self, mailbox: Name, uids: str | int, flags: Sequence[bytes], *, how: str = "+") -> None:
        """Add ("+"), remove ("-") or set ("") flags. uids: an IMAP set such as "1:3,7"."""
        with self.wire(mailbox) as wire:
            wire.command(f"UID STORE {uids} {how}FLAGS.SILENT".encode(), b"(%s)" % b" ".join(flags))

    def expunge(self, mailbox: Name, uids: str | int) -> None:
        """Remove messages for good."""
        with self.wire(mailbox) as wire:
            wire.command(f"UID STORE {uids} +FLAGS.SILENT (\\Deleted)".encode())
            wire.command(f"UID EXPUNGE {uids}".encode())

    def move(self, mailbox: Name, uids: str | int, target: Name) -> None:
        with self.wire(mailbox) as wire:
            wire.command(f"UID MOVE {uids}".encode(), quote(target))

    def copy(self, mailbox: Name, uids: str | int, target: Name) -> None:
        with self.wire(mailbox) as wire:
            wire.command(f"UID COPY {uids}".encode(), quote(target))


def encode_name_for_doveadm(mailbox: Name) -> bytes:
    """doveadm takes mailbox names as UTF-8, not in modified UTF-7."""
    return (mailbox if isinstance(mailbox, str) else from_modified_utf7(mailbox)).encode()
