"""A POP3 account in memory, as a source: every fault can be provoked at will, and every command is remembered.

It offers what tests of operations need of a server; that a real one behaves so is the business of tests/sources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from backupd.errors import ConnectionFailed, ConnectionLost
from backupd.mail.headers import header_of
from backupd.sources.base import Identity
from backupd.sources.pop3.base import Header, Listed, Refused, Retrieved


class SimulatedPop3:
    """A maildrop, and what happens to it. It is a Pop3Source itself.

    mail: messages with their UIDLs, in the server's order. commands: all that were sent, in all sessions.
    """

    address = "pop.example.com:995"

    def __init__(self, *, uidl: bool = True, top: bool = True) -> None:
        self.uidl, self.top = uidl, top
        self.mail: list[tuple[bytes, bytes]] = []
        self.commands: list[str] = []
        self.refused: dict[bytes, str] = {}
        self.deadly: dict[bytes, int] = {}
        self.stalls = False
        """Whether deadly messages are waited for in vain, and do not break the connection by themselves."""
        self.in_use = 0
        self.pause: float | None = None
        self.lose_quit = False
        self.wrong_size: Callable[[bytes], int] = len
        self.on_message: Callable[[bytes], None] = lambda _uidl: None
        self.host = "pop.example.com"
        self.capabilities: tuple[str, ...] = ("TOP", "UIDL")
        self.on_quit: Callable[[], None] = lambda: None
        self._number = 0

    def put(self, *messages: bytes) -> list[bytes]:
        """New mail; its UIDLs."""
        names = []
        for raw in messages:
            self._number += 1
            names.append(b"%08d" % self._number)
            self.mail.append((names[-1], raw))
        return names

    def remove(self, *names: bytes) -> None:
        """Some other client deletes mail."""
        self.mail = [(name, raw) for name, raw in self.mail if name not in names]

    def rename(self) -> None:
        """A migration: every message has another UIDL."""
        self.mail = [(b"new-" + name, raw) for name, raw in self.mail]

    def count(self, command: str) -> int:
        """How often the command was sent."""
        return sum(each.split()[0] == command for each in self.commands)

    def open(self) -> Session:
        if self.in_use:
            self.in_use -= 1
            raise ConnectionFailed("[IN-USE] the mailbox is in use", subject=self.address, pause=self.pause)
        return Session(self)


class Session:
    """One login."""

    def __init__(self, account: SimulatedPop3) -> None:
        self._account = account
        self._mail = list(account.mail)
        self._marked: set[bytes] = set()
        self._ended = False

    @property
    def identity(self) -> Identity:
        return Identity("pop3", self._account.host, 995, "simulated", self._account.capabilities)

    def listing(self) -> list[Listed]:
        self._account.commands += ["UIDL", "LIST"]
        uidl = self._account.uidl
        return [
            Listed(number, name if uidl else b"", self._account.wrong_size(raw))
            for number, (name, raw) in enumerate(self._mail, 1)
        ]

    def headers(self, numbers: Iterable[int]) -> Iterator[Header]:
        for number in numbers:
            self._account.commands.append(f"TOP {number}")
            yield Header(number, header_of(self._mail[number - 1][1]) if self._account.top else None)

    def retrieve(self, some: Iterable[Listed]) -> Iterator[Retrieved | Refused]:
        for listed in some:
            name, raw = self._mail[listed.number - 1]
            self._account.on_message(name)
            self._account.commands.append(f"RETR {listed.number}")
            if self._account.deadly.get(name):
                self._account.deadly[name] -= 1
                stalls = self._account.stalls
                raise ConnectionLost("the connection broke", subject=self._account.address, waited=stalls)
            if name in self._account.refused:
                yield Refused(listed.number, self._account.refused[name])
            else:
                yield Retrieved(listed.number, raw)

    def delete(self, number: int) -> bool:
        self._account.commands.append(f"DELE {number}")
        self._marked.add(self._mail[number - 1][0])
        return True

    def quit(self) -> None:
        self._account.commands.append("QUIT")
        self._account.on_quit()
        self._ended = True
        if self._account.lose_quit:
            raise ConnectionLost("the connection broke", subject=self._account.address)
        self._account.remove(*self._marked)

    def close(self) -> None:
        if not self._ended:
            self._account.commands.append("(closed)")
        self._ended = True
