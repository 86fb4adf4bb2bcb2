"""Recipes: how a message is joined from literal bytes and parts (docs/format.md, "Recipes").

A recipe is a list of pieces. This module only writes and reads them; splitting and joining is the business of mail.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from backupd.errors import Damaged
from backupd.repository.decoding import UNDECODABLE


class Literal(msgspec.Struct, frozen=True, array_like=True, tag=0):
    """Bytes as they are."""

    data: bytes


class Part(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The bytes of other blobs, one after another."""

    blobs: list[bytes]


class Base64Part(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The bytes of other blobs, one after another, in base64 (RFC 4648, 4): cut into lines of line_length characters
    (0: one line) joined by line_end, with no line end after the last, and `padding` of the "=" characters kept."""

    blobs: list[bytes]
    line_length: int
    line_end: bytes
    padding: int


Piece = Literal | Part | Base64Part

MOST_PARTS = 100_000
"""Of one that needs more the index does not tell which, for an index object must have an end."""

encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Piece]).decode


def decode(data: bytes | memoryview, subject: str) -> list[Piece]:
    """Read a recipe. Raises Damaged."""
    try:
        pieces = _decode(data)
        for piece in pieces:
            _check(piece)
    except UNDECODABLE as error:
        raise Damaged(f"a recipe makes no sense: {error}", subject=subject) from error
    return pieces


def parts(pieces: Iterable[Piece]) -> bytes | None:
    """The ids of the blobs that a recipe needs, each once, one after another; None when they are too many to be told.
    """
    every = dict.fromkeys(blob for piece in pieces if not isinstance(piece, Literal) for blob in piece.blobs)
    return b"".join(every) if len(every) <= MOST_PARTS else None


def _check(piece: Piece) -> None:
    """Whoever knows the public key can seal a recipe, so joining must not meet a piece that cannot be."""
    if not isinstance(piece, Literal) and any(len(blob) != 32 for blob in piece.blobs):
        raise ValueError("a blob's id has another length")
    if isinstance(piece, Base64Part) and not (piece.line_length >= 0 and 0 <= piece.padding <= 2):
        raise ValueError("lines or padding cannot be like that")
