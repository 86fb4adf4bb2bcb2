"""Asking ahead: while answers about one mailbox come in, the next mailboxes are opened and read already.

An account of a thousand small folders takes a round trip or two for each of them otherwise, which is what it costs over
a long line. A session is told what will be wanted next, and sends the commands for some of it behind those it waits
for. Answers come in the order of commands. So as long as exactly what was told is asked for, nothing is lost. As soon
as something else has to be sent, what was begun is read to its end and thrown away, and nothing more is asked ahead.
That is rare (a message that does not come as it should), and AHEAD_MESSAGES bounds what it costs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from backupd.wire.imap_commands import Part
from backupd.wire.imap_connection import ImapConnection

AHEAD_STEPS = 32
"""Mailboxes begun at once: with four connections over a line of 100 ms, more than a thousand a second."""
AHEAD_MESSAGES = 500
"""Messages asked for ahead at once; a mailbox that has more new ones than that is worth its round trip."""


class Step(NamedTuple):
    """What will be wanted of one mailbox. key: of what is wanted, all of it; messages: how many it brings."""

    key: Hashable
    commands: list[list[Part]]
    messages: int = 0


class Ahead:
    """What is expected of a connection, and how much of it is begun."""

    def __init__(self, connection: ImapConnection) -> None:
        self._connection = connection
        self._expected: deque[Step] = deque()
        self._begun: deque[tuple[Step, list[bytes]]] = deque()

    def __bool__(self) -> bool:
        """Whether anything is begun, so that no other command may be sent before `settle`."""
        return bool(self._begun)

    def expect(self, steps: Iterable[Step]) -> None:
        """These come next, in this order, in place of all that was expected before; nothing else is under way."""
        self.settle()
        self._expected = deque(steps)
        self.go_on()

    def take(self, key: Hashable) -> list[bytes] | None:
        """The tags of this step's commands, whose answers are the next to be read; the caller then calls `go_on`.

        None if the step is not begun. Then nothing else is begun either, and the caller sends the commands.
        """
        if self._begun and self._begun[0][0].key == key:
            return self._begun.popleft()[1]
        if self._begun:
            self.settle()
        while self._expected and self._expected.popleft().key != key:
            pass
        return None

    def go_on(self) -> None:
        """Begin what has room. To be called when all commands of the step that is under way have been sent."""
        messages = sum(step.messages for step, _ in self._begun)
        while self._expected and len(self._begun) < AHEAD_STEPS:
            messages += self._expected[0].messages
            if messages > AHEAD_MESSAGES:
                return
            step = self._expected.popleft()
            self._begun.append((step, [self._connection.send(*command) for command in step.commands]))

    def settle(self) -> None:
        """Read the answers to all that was begun, throw them away, and expect nothing more."""
        begun = [tag for _, tags in self._begun for tag in tags]
        self.clear()
        for tag in begun:
            for _ in self._connection.fetches(tag):
                pass

    def clear(self) -> None:
        """Expect nothing, and wait for nothing: the connection is closed."""
        self._begun.clear()
        self._expected.clear()
