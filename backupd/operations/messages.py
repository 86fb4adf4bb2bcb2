"""Messages into the repository and out again.

A message without base64 is one blob. Any other is a recipe and its parts, each part a blob of its own, so that an
attachment is stored once whoever sent it on. Whichever way, the message's id is the keyed hash of its own bytes, and
what a recipe gives is compared before the recipe is accepted: byte-exactness is proved when mail comes in,
not hoped for when it is needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, NamedTuple

from blake3 import blake3

from backupd.errors import Damaged, Erased, ObjectMissing, StorageError, StorageFull, Transient
from backupd.mail import base64lines, headers, split
from backupd.mail.base64lines import Encoder, Wrapping
from backupd.mail.split import Literal, PartStart, Piece
from backupd.model import Body
from backupd.repository import recipe
from backupd.repository.keys import Role
from backupd.repository.payload import BlobKind
from backupd.repository.repository import Repository

IN_MEMORY = 16 * 1024 * 1024
"""Octets up to which a message is held in memory as a whole."""

_HEADER_LIMIT = 1024 * 1024
_CHUNK = 1024 * 1024
_INLINE = 64 * 1024
"""Octets up to which bytes as they are stand in the recipe itself; more become a blob of their own."""


class Stored(NamedTuple):
    """A message in the repository. id: its blob id; size: its octets; attachments: raw file names of its parts. erased:
    it is not stored, for it was erased."""

    id: bytes
    size: int
    header: bytes
    attachments: tuple[bytes, ...]
    erased: bool = False


class MessageStore:
    """Stores and loads messages. Safe to use from several threads."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._secrets = repository.secrets

    def store(self, body: bytes | Body) -> Stored:
        """Store a message unless it is there, or was erased. Durable after the repository's next flush."""
        if isinstance(body, bytes):
            return self._store_whole(body)
        if body.size <= IN_MEMORY:
            return self._store_whole(b"".join(body.chunks()))
        return self._store_large(body)

    def _store_whole(self, raw: bytes) -> Stored:
        message = self._secrets.content_id(raw)
        if self._repository.erasure_of(message):
            return Stored(message, len(raw), headers.header_of(raw), (), erased=True)
        if not split.has_base64(raw):
            self._repository.put(message, BlobKind.PLAIN, raw)
            return Stored(message, len(raw), headers.header_of(raw), headers.attachment_names(raw))
        if self._repository.relies(message):
            return Stored(message, len(raw), headers.header_of(raw), headers.attachment_names(raw))
        maker = _RecipeMaker(self._secrets.content_id)
        blobs, literals = [], []
        at, proved = 0, True
        for event in split.split([raw]):
            if isinstance(event, Literal):
                literals.append(event.data)
            joined, blob = maker.take(event)
            proved = proved and raw.startswith(joined, at)
            at += len(joined)
            blobs += blob
        if maker.parts and proved and at == len(raw):
            # Parts first: a recipe is never there without them.
            for blob_id, data in blobs:
                self._repository.put(blob_id, BlobKind.PLAIN, data)
            self._repository.put_recipe(message, maker.pieces)
        else:
            self._repository.put(message, BlobKind.PLAIN, raw)
        names = headers.attachment_names(b"".join(literals))
        return Stored(message, len(raw), headers.header_of(raw), names)

    def _store_large(self, body: Body) -> Stored:
        """In two passes with bounded memory: the first finds the id, the second stores and proves the parts."""
        identity, header = self._secrets.content_hasher(), b""
        for chunk in body.chunks():
            identity.update(chunk)
            if len(header) < _HEADER_LIMIT:
                header += chunk[: _HEADER_LIMIT - len(header)]
        message = identity.digest()
        if self._repository.erasure_of(message):
            return Stored(message, body.size, headers.header_of(header), (), erased=True)
        known = self._repository.relies(message)
        maker = _RecipeMaker(self._secrets.content_id)
        names: dict[bytes, None] = {}
        proof = self._secrets.content_hasher()
        for event in split.split(body.chunks()):
            if isinstance(event, Literal):
                names |= dict.fromkeys(headers.attachment_names(event.data))
            if not known:
                joined, blobs = maker.take(event)
                proof.update(joined)
                for blob_id, data in blobs:
                    self._repository.put(blob_id, BlobKind.PLAIN, data)
        if not known:
            if proof.digest() != message:
                raise Damaged("a message changed while it was read", remedy="run the backup again")
            self._repository.put_recipe(message, maker.pieces)
        return Stored(message, body.size, headers.header_of(header), tuple(names)[: headers.MOST_ATTACHMENTS])

    def blobs_of(self, body: bytes | Body) -> tuple[bytes, set[bytes]]:
        """A message's id, and the ids of all blobs that `store` makes of it. Nothing is stored."""
        identity, proof = self._secrets.content_hasher(), self._secrets.content_hasher()
        maker = _RecipeMaker(self._secrets.content_id)
        parts: set[bytes] = set()

        def chunks() -> Iterator[bytes]:
            for chunk in [body] if isinstance(body, bytes) else body.chunks():
                identity.update(chunk)
                yield chunk

        for event in split.split(chunks()):
            joined, blobs = maker.take(event)
            proof.update(joined)
            parts.update(blob_id for blob_id, _ in blobs)
        message = identity.digest()
        large = not isinstance(body, bytes) and body.size > IN_MEMORY
        is_recipe = large or (maker.parts and proof.digest() == message)
        return message, {message, *parts} if is_recipe else {message}

    def id_of(self, body: bytes | Body) -> bytes:
        """A message's id. Nothing is stored."""
        identity = self._secrets.content_hasher()
        for chunk in [body] if isinstance(body, bytes) else body.chunks():
            identity.update(chunk)
        return identity.digest()

    def load(self, message: bytes) -> bytes | Body:
        """The message of this id, proved to be it. Raises Damaged when it, or a part of it, is missing or altered, and
        Erased."""
        found = self._read(message)
        return found if isinstance(found, bytes) else self._load(message, found)

    def open(self, message: bytes, size: int) -> bytes | Body:
        """As `load`, but a message too large for memory is kept nowhere: it is joined, and proved, each time it is
        read, and its chunks end with Damaged if it is not what was stored. size: its octets."""
        found = self._read(message)
        if isinstance(found, bytes):
            return found
        if size <= IN_MEMORY:
            return self._load(message, found)
        return _Joined(message, size, lambda: self._join(found), self._secrets.content_hasher)

    def _read(self, message: bytes) -> bytes | list[recipe.Piece]:
        """A message, or how to join it."""
        if gone := self._repository.erased.now.messages.get(message):
            raise Erased(str(gone), subject=_named(message), remedy="nothing brings it back")
        kind, data = self._repository.read(message)
        if kind is BlobKind.PLAIN:
            return bytes(data)
        if kind is not BlobKind.RECIPE:
            raise Damaged(f"a blob is a {kind.name}, not a message", subject=_named(message))
        return recipe.decode(data, _named(message))

    def _load(self, message: bytes, pieces: list[recipe.Piece]) -> bytes | Body:
        identity = self._secrets.content_hasher()
        joined: bytes | Body = _gathered(_hashed(self._join(pieces), identity))
        if identity.digest() != message:
            raise Damaged("a message does not join to its id", subject=_named(message))
        return joined

    def is_whole(self, message: bytes) -> bool:
        """Whether the message is there with all its parts, as far as this key can tell: a writer's cannot look into
        recipes, and believes the index. Bytes are not checked but those of recipes. Of what was erased nothing is
        missing."""
        if message in self._repository.erased.now:
            return True
        if not self._repository.has(message):
            return False
        if self._secrets.role is not Role.READER:
            return self._repository.index.is_whole(message)
        try:
            kind, data = self._repository.read(message)
            pieces = recipe.decode(data, _named(message)) if kind is BlobKind.RECIPE else []
        except (Damaged, ObjectMissing):
            return False
        blobs = (blob for piece in pieces if not isinstance(piece, recipe.Literal) for blob in piece.blobs)
        return all(self._repository.has(blob) for blob in blobs)

    def identify(self, data: bytes | memoryview) -> bytes:
        """The id of the message that a recipe describes. Raises Damaged when a part of it is missing."""
        identity = self._secrets.content_hasher()
        for _ in _hashed(self._join(recipe.decode(data, "a recipe")), identity):
            pass
        return identity.digest()

    def _join(self, pieces: Iterable[recipe.Piece]) -> Iterator[bytes | memoryview]:
        for piece in pieces:
            if isinstance(piece, recipe.Literal):
                yield piece.data
            elif isinstance(piece, recipe.Part):
                yield from self._octets(piece.blobs)
            else:
                wrapping = Wrapping(piece.line_length, piece.line_end)
                yield from base64lines.encode(self._octets(piece.blobs), wrapping, piece.padding)

    def _octets(self, blobs: Iterable[bytes]) -> Iterator[bytes | memoryview]:
        for blob_id in blobs:
            kind, data = self._repository.read(blob_id)
            if kind is not BlobKind.PLAIN:
                raise Damaged(f"a blob is a {kind.name}, not a part", subject=_named(blob_id))
            yield data


class _RecipeMaker:
    """Turns what splitting finds into a recipe, and joins it again on the way, for the proof."""

    def __init__(self, identify: Callable[[bytes], bytes]) -> None:
        self._identify = identify
        self.pieces: list[recipe.Piece] = []
        self.parts = 0
        self._ids: list[bytes] = []
        self._wrapping = Wrapping(0, b"")
        self._encoder = Encoder(self._wrapping)

    def take(self, event: split.Event) -> tuple[bytes, list[tuple[bytes, bytes]]]:
        """(the bytes that joining gives for this event, blobs to be stored)."""
        if isinstance(event, Literal):
            return event.data, self._literal(event.data)
        if isinstance(event, PartStart):
            self._wrapping, self._encoder, self._ids = event.wrapping, Encoder(event.wrapping), []
            return b"", []
        if isinstance(event, Piece):
            blob = (self._identify(event.octets), event.octets)
            self._ids.append(blob[0])
            return self._encoder.encode(event.octets), [blob]
        self.parts += 1
        self.pieces.append(recipe.Base64Part(self._ids, *self._wrapping, event.padding))
        return self._encoder.end(event.padding), []

    def _literal(self, data: bytes) -> list[tuple[bytes, bytes]]:
        if len(data) <= _INLINE:
            self.pieces.append(recipe.Literal(data))
            return []
        blob_id = self._identify(data)
        self.pieces.append(recipe.Part([blob_id]))
        return [(blob_id, data)]


class _Joined:
    """A large message that is joined each time it is read; a Body."""

    def __init__(
        self,
        message: bytes,
        size: int,
        join: Callable[[], Iterator[bytes | memoryview]],
        hasher: Callable[[], blake3],
    ) -> None:
        self._message, self._size, self._join, self._hasher = message, size, join, hasher

    @property
    def size(self) -> int:
        return self._size

    def chunks(self) -> Iterator[bytes]:
        """Raises Damaged, at the latest at the end, when it is not the message that was stored."""
        identity = self._hasher()
        try:
            for octets in _hashed(self._join(), identity):
                for start in range(0, len(octets), _CHUNK):
                    yield bytes(octets[start : start + _CHUNK])
        except StorageError as error:
            if isinstance(error, Transient):
                raise
            raise Damaged(f"a part of it cannot be read: {error}", subject=_named(self._message)) from error
        if identity.digest() != self._message:
            raise Damaged("a message does not join to its id", subject=_named(self._message))


class _File:
    """A large message in an unlinked temporary file; a Body."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._size = file, size

    @property
    def size(self) -> int:
        return self._size

    def chunks(self) -> Iterator[bytes]:
        for start in range(0, self._size, _CHUNK):
            yield os.pread(self._file.fileno(), min(_CHUNK, self._size - start), start)


def _hashed(chunks: Iterable[bytes | memoryview], identity: blake3) -> Iterator[bytes | memoryview]:
    for chunk in chunks:
        identity.update(chunk)
        yield chunk


def _gathered(chunks: Iterable[bytes | memoryview]) -> bytes | Body:
    """The chunks as one: in memory, or on disk when there are more than belongs there."""
    held: list[bytes | memoryview] = []
    size = 0
    file: IO[bytes] | None = None
    try:
        for chunk in chunks:
            size += len(chunk)
            held.append(chunk)
            if size > IN_MEMORY:
                file = file or tempfile.TemporaryFile(prefix="backupd-")  # noqa: SIM115 - lives as long as the body
                file.writelines(held)
                held = []
        if file is None:
            return b"".join(held)
        file.flush()
    except OSError as error:
        raise StorageFull(
            f"a large message cannot be kept in a temporary file: {error.strerror}",
            subject=tempfile.gettempdir(),
            remedy="free some space there, or point TMPDIR elsewhere",
        ) from error
    return _File(file, size)


def _named(blob_id: bytes) -> str:
    return f"blob {blob_id.hex()[:16]}"
