"""One login to a POP3 account, as the contract of sources wants it: pipelined where the server can (RFC 2449, 6.6)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from backupd.errors import ProtocolError, Throttled
from backupd.sources.base import Identity
from backupd.sources.pop3.base import Header, Listed, Refused, Retrieved
from backupd.wire.pop3_connection import Pop3Connection, may_pass, names_of
from backupd.wire.pop3_stream import MOST_OCTETS, Reply
from backupd.wire.spool import SpooledBody

WINDOW = 64
"""Commands under way: their octets fit the socket's buffer, whatever the server does meanwhile."""
WINDOW_OCTETS = 8 << 20
"""Octets of messages asked for ahead."""
MOST_MESSAGES = 5_000_000
"""A listing of more is no listing, and would take all memory."""
LONGEST_UIDL = 4096
"""RFC 1939, 7 allows 70; more is taken as it is, and what is endless as none."""

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def _numbered(line: bytes) -> tuple[int, bytes]:
    """The number a line of LIST or UIDL begins with, and the rest; 0 for what can be no number."""
    number, _, rest = line.strip().partition(b" ")
    return (int(number) if number.isdigit() and len(number) < 10 else 0), rest


class Session:
    """A `backupd.sources.pop3.base.Pop3Session`."""

    def __init__(self, connection: Pop3Connection, host: str, port: int) -> None:
        self._connection, self._host, self._port = connection, host, port
        self._sizes_are_wrong = False

    @property
    def identity(self) -> Identity:
        """Which server this is."""
        said = self._connection.capabilities.get("IMPLEMENTATION")
        return Identity(
            kind="pop3",
            host=self._host,
            port=self._port,
            server=" ".join(said) if said else "",
            capabilities=names_of(self._connection.capabilities.items()),
        )

    def listing(self) -> list[Listed]:
        """All messages, by number."""
        connection = self._connection
        reply = connection.command(b"LIST")
        if not reply.ok:
            if connection.command(b"STAT").text.split()[:1] == ["0"]:  # some refuse to list what is empty
                return []
            raise connection.refusal("the server does not list the mailbox", reply)
        sizes = {}
        for line in connection.text_lines():
            number, rest = _numbered(line)
            if number:
                size = rest.split()[0] if rest.split() else b""
                sizes[number] = int(size) if size.isdigit() and len(size) < 16 else -1
                if len(sizes) > MOST_MESSAGES:
                    raise connection.stream.broken(ProtocolError(f"it lists more than {MOST_MESSAGES:,} messages"))
        if not sizes:
            return []
        names = {}
        reply = connection.command(b"UIDL")
        if not reply.ok and may_pass(reply):
            raise connection.refusal("the server does not name its messages", reply)
        for line in connection.text_lines() if reply.ok else ():
            number, name = _numbered(line)
            if number in sizes and len(name) <= LONGEST_UIDL:
                names[number] = name.strip()
        return [Listed(number, names.get(number, b""), sizes[number]) for number in sorted(sizes)]

    def headers(self, numbers: Iterable[int]) -> Iterator[Header]:
        """TOP n 0 of each."""

        def answer(number: int, again: bool) -> Header:
            reply = self._connection.reply()
            if not reply.ok:
                self._stop_if_throttled(reply)
                return Header(number, None)
            end = b"\n" if self._connection.stream.bare else b"\r\n"
            text = self._connection.text()
            if not isinstance(text, bytes):
                return Header(number, None)
            if text.startswith(end):
                return Header(number, end)
            head, empty, _ = text.partition(end * 2)  # some give of the body too, though asked for none of it
            return Header(number, head + empty)

        return self._pipelined(numbers, lambda number: b"TOP %d 0" % number, lambda number: 0, answer)

    def retrieve(self, some: Iterable[Listed]) -> Iterator[Retrieved | Refused]:
        """RETR of each."""
        return self._pipelined(some, lambda each: b"RETR %d" % each.number, lambda each: max(each.size, 0), self._take)

    def _take(self, listed: Listed, again: bool) -> Retrieved | Refused | None:
        """The answer to RETR; None when it is to be asked again."""
        reply = self._connection.reply()
        if not reply.ok:
            self._stop_if_throttled(reply)
            return Refused(listed.number, f"the server does not give it: {reply.text or 'no reason is given'}")
        body = self._connection.text(max(MOST_OCTETS, 2 * listed.size))
        size = body.size if isinstance(body, SpooledBody) else len(body)
        if not size and listed.size:  # Exchange does so, now and then
            lists = f"{listed.size:,}" if listed.size > 0 else "an unknown number of"
            said = f"the server lists {lists} octets and gives none"
            return Refused(listed.number, said) if again else None
        if listed.size < 0 or size == listed.size:
            return Retrieved(listed.number, body)
        # A text ends with CRLF even where the message did not. Only a size that has proved to be right can tell.
        if size == listed.size + 2 and not self._sizes_are_wrong and not self._connection.stream.bare:
            return Retrieved(listed.number, body.cut(2) if isinstance(body, SpooledBody) else body[:-2])
        said = f"{listed.size:,} octets were listed and {size:,} came; sizes of this server are wrong"
        note = "" if self._sizes_are_wrong else said
        self._sizes_are_wrong = True
        return Retrieved(listed.number, body, note)

    def _stop_if_throttled(self, reply: Reply) -> None:
        """Raises Throttled where the server wants to be left alone: the other messages would be refused as well."""
        error = self._connection.refusal("the server does not give it", reply)
        if isinstance(error, Throttled):
            raise error

    def _pipelined(
        self,
        items: Iterable[Item],
        command: Callable[[Item], bytes],
        weigh: Callable[[Item], int],
        answer: Callable[[Item, bool], Answer | None],
    ) -> Iterator[Answer]:
        """Answers in the order of the items; commands go ahead of them where the server allows that.

        answer: reads one; None to ask once more, and then it is called with True.
        """
        most = WINDOW if self._connection.has("PIPELINING") else 1
        todo = deque(items)
        waiting: deque[Item] = deque()
        octets = 0
        try:
            while todo or waiting:
                if len(waiting) <= most // 2:
                    commands = []
                    while todo and len(waiting) < most and (not waiting or octets + weigh(todo[0]) <= WINDOW_OCTETS):
                        waiting.append(todo.popleft())
                        octets += weigh(waiting[-1])
                        commands.append(command(waiting[-1]))
                    if commands:
                        self._connection.send(*commands)
                found = answer(waiting[0], False)
                item = waiting.popleft()
                octets -= weigh(item)
                if found is not None:
                    yield found
                    continue
                # Asked once more when all that is under way has been read: answers come in the order of commands.
                held: list[tuple[Item, Answer | None]] = [(item, None)]
                while waiting:
                    found = answer(waiting[0], False)
                    held.append((waiting.popleft(), found))
                octets = 0
                for item, found in held:
                    if found is None:
                        self._connection.send(command(item))
                        found = answer(item, True)
                    if found is not None:
                        yield found
        finally:
            if waiting:  # nobody will read these answers, and they must not be taken for those of other commands
                self._connection.close()

    def delete(self, number: int) -> bool:
        """DELE. It goes with `quit`."""
        return self._connection.command(b"DELE %d" % number).ok

    def quit(self) -> None:
        """QUIT, and its +OK."""
        reply = self._connection.command(b"QUIT")
        self._connection.close()
        if not reply.ok:
            raise self._connection.refusal("the server did not end the session as it should", reply)

    def close(self) -> None:
        """Close without QUIT."""
        self._connection.close()

