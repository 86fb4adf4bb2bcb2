"""From messages that are stored to the rows a mailbox lists them by, with a run of their envelopes."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from backupd.mail import headers
from backupd.model import MessageFacts, MessageState
from backupd.operations.messages import Stored
from backupd.repository import runs
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope, MessageRow

_RUN_OCTETS = 8 << 20
"""Of envelopes in one run: far more than 4,096 usual ones have, and far less than a block can hold."""


class _Taken(NamedTuple):
    facts: MessageFacts
    state: MessageState
    message: bytes
    size: int
    fingerprint: bytes
    envelope: int


class Taking:
    """Messages of one mailbox that were stored, until their rows are asked for."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._taken: dict[int, _Taken] = {}
        self._past = 0
        self._envelopes: list[Envelope] = []

    def __len__(self) -> int:
        """How many messages were taken, those among them whose rows were asked for."""
        return self._past + len(self._taken)

    @property
    def waiting(self) -> int:
        """How many messages `rows` would give."""
        return len(self._taken)

    def take(self, facts: MessageFacts, state: MessageState, stored: Stored) -> bytes:
        """Remember a message; gives the fingerprint of its header."""
        fingerprint = self._repository.secrets.fingerprint(stored.header)
        self._taken[facts.uid] = _Taken(facts, state, stored.id, stored.size, fingerprint, len(self._envelopes))
        # What was erased stays out of what lists show, too.
        shown = Envelope() if stored.erased else headers.envelope(stored.header, stored.attachments)
        self._envelopes.append(shown)
        return fingerprint

    def rows(self) -> list[tuple[MessageRow, MessageState]]:
        """The rows of all messages taken since the last call, in the order in which they came."""
        placed = self._put_envelopes()
        taken, self._taken, self._envelopes = self._taken, {}, []
        self._past += len(taken)
        return [
            (MessageRow(facts.uid, message, facts.internaldate, size, mark, facts.server_id, *placed[number]), state)
            for facts, state, message, size, mark, number in taken.values()
        ]

    def _put_envelopes(self) -> list[tuple[bytes, int]]:
        """(run, number in it) of each envelope. Mail with long fields and many attachments would not fit one run."""
        placed: list[tuple[bytes, int]] = []
        some: list[Envelope] = []
        octets = 0
        for envelope in self._envelopes:
            octets += sum(map(len, (*msgspec.structs.astuple(envelope)[:-1], *envelope.attachments)))
            some.append(envelope)
            if octets >= _RUN_OCTETS or len(some) + len(placed) == len(self._envelopes):
                run = self._repository.put_run(BlobKind.ENVELOPES, runs.encode_envelopes(some))
                placed += [(run, number) for number in range(len(some))]
                some, octets = [], 0
        return placed
