"""Being told of changes by an IMAP server, on a connection that is used for nothing else.

With NOTIFY (RFC 5465) one connection is told of all mailboxes, and none has to be open. With IDLE (RFC 2177) one is
told of the mailbox that is open in it. `watch` logs in as everybody does, and waits for the server to be ready. What it
gives is then looked at when its socket has something to say, and never waited on: one thread looks after a thousand of
them, and no server can hold it up, whatever it sends or leaves half sent.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from backupd.errors import ConnectionLost, ServerError, ServerRefused
from backupd.mail.names import encode_utf7
from backupd.sources.imap.notices import Kind, Notices, Said
from backupd.wire import throttling
from backupd.wire.imap_commands import string
from backupd.wire.imap_connection import Answer, ImapConnection, connect
from backupd.wire.imap_settings import ImapSettings
from backupd.wire.stream import show

How = Literal["notify", "idle"]

EVENTS = (
    b"MessageNew MessageExpunge FlagChange MailboxName SubscriptionChange",
    b"MessageNew MessageExpunge FlagChange MailboxName",
    b"MessageNew MessageExpunge FlagChange",
    b"MessageNew MessageExpunge",
)
"""What is asked for, and for how much less where the server refuses an event (RFC 5465, 3.1: [BADEVENT])."""

LONGEST_WAIT = 30.0
"""Seconds the server may be silent while it is reached, and when it is asked for a sign of life."""
BUFFER_OCTETS = 1 << 14
_READS_AT_ONCE = 4
"""Of BUFFER_OCTETS each, before others have their turn."""
MOST_OCTETS = 2 << 20
"""Between two signs of life. A server that says more makes work for nothing: a look at the mailboxes costs less."""


class Watch:
    """A connection that waits for changes. It never blocks; for one thread, which calls `look` when the socket is
    ready (or `more` is set), and `tick` at `due`.

    how: what it is told by. due: clock seconds at which `tick` is to be called. more: whether there may be more to be
    read than the socket shows. wants_to_write: whether something waits until the socket takes more.
    """

    def __init__(
        self,
        sock: socket.socket,
        address: str,
        how: How,
        *,
        now: float,
        interval: Callable[[], float],
        patience: float = LONGEST_WAIT,
        left_over: bytes = b"",
    ) -> None:
        """interval: seconds until the next sign of life is asked for; chosen anew each time. patience: seconds for
        its answer. left_over: what came before, and nobody has looked at yet."""
        sock.setblocking(False)
        self.sock, self._address, self.how = sock, address, how
        self._interval, self._patience = interval, patience
        self._notices = Notices()
        self._left_over = left_over
        self._out = b""
        self.wants_to_write = False
        self._tags = 0
        self._awaited = b""
        """The tag of the command under way, but for an IDLE that waits."""
        self._state: Literal["waiting", "leaving idle", "entering idle", "asking"] = "waiting"
        self._octets = 0
        self.more = True
        self.due = now + interval()

    def look(self, now: float) -> bool:
        """Take in what has come, and tell whether anything changed. Raises ConnectionLost, ProtocolError, Throttled;
        the connection is of no use then.
        """
        self._flush()
        changed = False
        for _ in range(_READS_AT_ONCE):
            octets = self._read()
            if octets is None:
                self.more = False
                return changed
            self._octets += len(octets)
            if self._octets > MOST_OCTETS:
                raise self._lost("the server does not stop to tell of changes")
            for said in self._notices.feed(octets):
                changed = self._heard(said, now) or changed
        self.more = True
        return changed

    def _read(self) -> bytes | None:
        """What has come; None if nothing more has."""
        if self._left_over:
            octets, self._left_over = self._left_over, b""
            return octets
        try:
            octets = self.sock.recv(BUFFER_OCTETS)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            return None
        except OSError as error:
            raise self._lost(f"the connection broke: {show((error.strerror or str(error)).encode())}") from None
        if not octets:
            raise self._lost("the server closed the connection")
        return octets

    def _heard(self, said: Said, now: float) -> bool:
        if said.kind is Kind.GONE:
            if wish := throttling.wish(said.status.code, said.status.text):
                raise throttling.throttled(wish, show(said.status.text), subject=self._address)
            raise self._lost(f"the server ended the session: {show(said.status.text)}")
        if said.kind is Kind.DONE:
            self._ended(said, now)
        elif said.kind is Kind.GO_ON and self._state == "entering idle":
            self._rest(now)
        return said.kind is Kind.CHANGE

    def _ended(self, said: Said, now: float) -> None:
        if said.tag != self._awaited or self._state == "entering idle":
            raise self._lost(f"the server waits no longer: {show(said.status.text) or show(said.tag)}")
        if self._state == "leaving idle":
            self._idle(now)
        else:
            self._rest(now)

    def _rest(self, now: float) -> None:
        """The server has given its sign of life."""
        self._state, self._octets = "waiting", 0
        self.due = now + self._interval()

    def tick(self, now: float) -> None:
        """Ask for a sign of life (servers end sessions that say nothing for half an hour), or miss it.

        Raises ConnectionLost.
        """
        if now < self.due:
            return
        if self._state != "waiting":
            raise self._lost("the server has given no sign of life")
        self.due = now + self._patience
        if self.how == "idle":
            self._state = "leaving idle"
            self._send(b"DONE\r\n")
        else:
            self._state = "asking"
            self._command(b"NOOP")

    def begin_idle(self, tag: bytes) -> None:
        """An IDLE with this tag is under way."""
        self._awaited = tag

    def _idle(self, now: float) -> None:
        self._state, self.due = "entering idle", now + self._patience
        self._command(b"IDLE")

    def _command(self, words: bytes) -> None:
        self._tags += 1
        self._awaited = b"w%d" % self._tags
        self._send(self._awaited + b" " + words + b"\r\n")

    def _send(self, octets: bytes) -> None:
        self._out += octets
        self._flush()

    def _flush(self) -> None:
        self.wants_to_write = False
        while self._out:
            try:
                self._out = self._out[self.sock.send(self._out) :]
            except ssl.SSLWantReadError:
                return
            except (BlockingIOError, ssl.SSLWantWriteError):
                self.wants_to_write = True
                return
            except OSError as error:
                raise self._lost(f"the connection broke: {show((error.strerror or str(error)).encode())}") from None

    def _lost(self, what: str) -> ConnectionLost:
        return ConnectionLost(what, subject=self._address)

    def close(self) -> None:
        """Say goodbye if that takes no time, and close; never raises."""
        with contextlib.suppress(ServerError):
            if self._state == "waiting" and not self._out:
                if self.how == "idle":
                    self._send(b"DONE\r\n")
                self._command(b"LOGOUT")
        self.abandon()

    def abandon(self) -> None:
        """Close at once; never raises."""
        with contextlib.suppress(OSError):
            self.sock.close()


def watch(
    settings: ImapSettings,
    mailbox: str = "INBOX",
    *,
    now: Callable[[], float],
    interval: Callable[[], float],
    notify: bool = True,
) -> Watch | None:
    """Connect, log in, and have the server tell of changes: of all mailboxes where it can, else of this one.

    Args:
        mailbox: its name for people, with "/" between levels.
        now: clock seconds, as for `Watch`.
        interval: see `Watch`.
        notify: whether to be told of all mailboxes, if the server can.

    Returns None where the server tells of nothing. Blocks for as long as a login takes, and not for longer than some
    minutes. Raises ConnectionFailed, CertificateRefused, LoginRefused, Throttled, ServerRefused (no such mailbox) and
    what a connection raises.
    """
    wait = min(settings.timeout, LONGEST_WAIT)
    connection = connect(replace(settings, timeout=wait), buffer_octets=BUFFER_OCTETS)
    try:
        tag = b""
        how: How = "notify"
        if not (notify and _notified(connection)):
            how = "idle"
            tag = _idle(connection, mailbox)
            if not tag:
                connection.logout()
                return None
    except BaseException:
        connection.close()
        raise
    stream = connection.stream
    found = Watch(
        stream.sock,
        connection.address,
        how,
        now=now(),
        interval=interval,
        patience=wait,
        left_over=bytes(stream.view[stream.start : stream.end]),
    )
    found.begin_idle(tag)
    return found


def _notified(connection: ImapConnection) -> bool:
    """Have all mailboxes of the account watched; whether the server does."""
    if not connection.has(b"NOTIFY"):
        return False
    for events in EVENTS:
        answer = connection.wait(connection.send(b"NOTIFY SET (personal (%s))" % events))
        if answer.status.kind == b"OK":
            return True
        _heed(connection, answer)
        if answer.status.code != b"BADEVENT":
            return False
    return False


def _idle(connection: ImapConnection, mailbox: str) -> bytes:
    """Open the mailbox and wait in it; the tag of the IDLE, or nothing where the server cannot."""
    if not connection.has(b"IDLE"):
        return b""
    name = string(_raw_name(connection, mailbox))
    answer = connection.wait(connection.send(b"EXAMINE", name))
    if answer.status.kind != b"OK":
        _heed(connection, answer)
        raise ServerRefused(
            f"cannot be watched: {show(answer.status.text)}", code=answer.status.code, subject=mailbox
        )
    tag = connection.send(b"IDLE")
    if connection.continuation() is not None:
        return tag
    _heed(connection, connection.wait(tag))
    return b""


def _heed(connection: ImapConnection, answer: Answer) -> None:
    if wish := throttling.wish(answer.status.code, answer.status.text):
        raise throttling.throttled(wish, show(answer.status.text), subject=connection.address)


def _raw_name(connection: ImapConnection, name: str) -> bytes:
    """The name as the server has it."""
    if name.upper() == "INBOX":
        return b"INBOX"
    raw = encode_utf7(name)
    if b"/" not in raw:
        return raw
    listed = connection.command(b'LIST "" ""')  # RFC 3501, 6.3.8: tells the delimiter
    delimiter = next((one.values[1] for one in listed.of(b"LIST") if len(one.values) > 1), None)
    return raw.replace(b"/", delimiter) if isinstance(delimiter, bytes) and delimiter else raw
