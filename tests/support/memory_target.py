"""A target in memory, which fails when it is told to."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence

from backupd.errors import ConnectionLost
from backupd.mail.headers import header_of
from backupd.model import Flags, Mailbox
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from tests.support.reading import whole


class MemoryTarget:
    """boxes: messages by raw mailbox name, in the order in which they came: bytes, flags, date.

    Args:
        rewrite: what the server makes of a message it is given.
        deadly: messages at which the connection is lost, as often as it says.
        refused: messages it does not take.
    """

    def __init__(self, fingerprint: Fingerprint, *, rewrite: Callable[[bytes], bytes] = lambda raw: raw) -> None:
        self._fingerprint, self._rewrite = fingerprint, rewrite
        self.boxes: dict[bytes, list[tuple[bytes, Flags, bytes]]] = {}
        self.deadly: dict[bytes, int] = {}
        self.refused: set[bytes] = set()
        self.after_write: Callable[[bytes], None] = lambda _raw: None
        self.batch = 1
        self.opened = 0

    description = "memory:"

    def open(self) -> MemoryTarget:
        self.opened += 1
        return self

    def name_of(self, mailbox: Mailbox) -> str:
        return mailbox.name

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        found = self.boxes.get(mailbox.raw_name, [])
        return Counter(Present(self._fingerprint(header_of(raw)), len(raw)) for raw, _, _ in found)

    def prepare(self, mailbox: Mailbox) -> None:
        self.boxes.setdefault(mailbox.raw_name, [])

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        # As a server with MULTIAPPEND: nothing of a batch is there, or told of, before the batch is complete.
        batch: list[tuple[Outgoing, bytes]] = []
        for message in messages:
            raw = whole(message.body)
            if self.deadly.get(raw, 0):
                self.deadly[raw] -= 1
                raise ConnectionLost("the server hung up", remedy="look into its log")
            batch.append((message, raw))
            if len(batch) >= self.batch:
                yield from self._store(mailbox, batch)
                batch = []
        yield from self._store(mailbox, batch)

    def _store(self, mailbox: Mailbox, batch: list[tuple[Outgoing, bytes]]) -> Iterator[Outcome]:
        taken = [(message, raw) for message, raw in batch if raw not in self.refused]
        for message, raw in taken:
            self.boxes[mailbox.raw_name].append((self._rewrite(raw), message.flags, message.internaldate))
            self.after_write(raw)
        for message, raw in batch:
            if raw in self.refused:
                yield Outcome(message, "refused", "NO [TOOBIG] too large")
            else:
                yield Outcome(message, "written")

    def close(self) -> None:
        """Nothing to end."""


class FarMemoryTarget(MemoryTarget):
    """The same, far away. unmade: mailboxes that `prepare_all` cannot make, and `prepare` can."""

    unmade: frozenset[bytes] = frozenset()
    written_at_once = 0

    def prepare_all(self, mailboxes: Sequence[Mailbox]) -> list[Mailbox]:
        made = [each for each in mailboxes if each.raw_name not in self.unmade]
        for each in made:
            self.prepare(each)
        return made

    def write_all(self, messages: Iterable[tuple[Mailbox, Outgoing]]) -> Iterator[tuple[Mailbox, Outcome]]:
        for mailbox, some in itertools.groupby(messages, lambda pair: pair[0]):
            for outcome in self.write(mailbox, (message for _, message in some)):
                self.written_at_once += outcome.result == "written"
                yield mailbox, outcome
