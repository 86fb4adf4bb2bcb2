"""What no snapshot lists any more, and is still stored: mail that was forgotten, or that a killed run left behind.

It is in no list, so it is found by reading what nobody needs. Only what lists show can tell whether it is meant: where
a query asks for more, or only some accounts are meant, or an account is held, whose mail this may be, nothing but what
the lists themselves showed of the messages that are erased is looked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from backupd.errors import Damaged
from backupd.mail import headers
from backupd.mail.query import Query
from backupd.repository import block, payload, recipe, runs
from backupd.repository.erasures import Erasures
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository
from backupd.repository.runs import Envelope
from backupd.repository.survey import Survey

_EMPTY = Envelope()

Key = tuple[bytes, ...]


class Leftovers(NamedTuple):
    """messages: ids of what is meant and listed nowhere. envelopes: by the id of a run that no list refers to, the id
    of what it would be without those that are meant."""

    messages: set[bytes]
    envelopes: dict[bytes, bytes]


class Beside:
    """Looks through what nobody needs.

    Args:
        query: None where nothing but `known` tells what is meant.
        known: keys of envelopes that are meant.
    """

    def __init__(
        self, repository: Repository, survey: Survey, erased: Erasures, query: Query | None, known: Iterable[Key],
        go_on: Callable[[], None],
    ) -> None:  # fmt: skip
        self._repository, self._survey, self._erased, self._go_on = repository, survey, erased, go_on
        self._query, self._known = query, set(known) - {key(_EMPTY)}

    def look(self) -> Leftovers:
        """Read it. What cannot be read is left out."""
        found = Leftovers(set(), {})
        listed: list[tuple[bytes, list[Envelope]]] = []
        for blob, kind, data in self._unneeded():
            try:
                if kind is BlobKind.ENVELOPES:
                    listed.append((blob, runs.decode_envelopes(data, "a run")))
                    continue
                octets = octets_of(kind, data)
                header = headers.header_of(octets)
                envelope = headers.envelope(header, headers.attachment_names(octets))
            except Damaged:
                continue
            if blob in self._erased:
                self._know(envelope)
            elif key(envelope) != key(_EMPTY) and self._query and self._query.shows(envelope, header):
                found.messages.add(blob)
                self._know(envelope)
        # Last, when all is known that is meant.
        for blob, every in listed:
            kept = [_EMPTY if self._is_meant(each) else each for each in every]
            if kept != every:
                found.envelopes[blob] = self._repository.secrets.content_id(runs.encode_envelopes(kept))
        return found

    def _know(self, envelope: Envelope) -> None:
        if key(envelope) != key(_EMPTY):
            self._known.add(key(envelope))

    def _is_meant(self, envelope: Envelope) -> bool:
        if envelope == _EMPTY:
            return False
        return key(envelope) in self._known or bool(self._query and self._query.shows(envelope))

    def _unneeded(self) -> Iterator[tuple[bytes, BlobKind, memoryview]]:
        """Blobs of content that nobody needs, wherever they lie."""
        survey, replaced = self._survey, self._erased.replaced()
        for each in survey.unneeded():
            self._go_on()
            ids = survey.ids(each)
            try:
                name, data = survey.read(ids[0][0])
                blobs = payload.parse(block.unseal(data, self._repository.secrets, name), name)
            except Damaged:
                continue
            for (_, blob), (kind, octets) in zip(ids, blobs, strict=False):
                if blob not in replaced and not any(survey.is_needed(number) for number, _ in survey.places(blob)):
                    yield blob, kind, octets


def key(envelope: Envelope) -> Key:
    """What an envelope is known by: nothing of two messages is so much alike but by design."""
    return envelope.date, envelope.from_, envelope.to, envelope.subject, envelope.message_id


def octets_of(kind: BlobKind, data: memoryview) -> bytes:
    """What a stored message has beside the contents of its parts. Raises Damaged for what is none."""
    if kind is BlobKind.RECIPE:
        pieces = recipe.decode(data, "a recipe")
        return b"".join(piece.data for piece in pieces if isinstance(piece, recipe.Literal))
    return bytes(data)
