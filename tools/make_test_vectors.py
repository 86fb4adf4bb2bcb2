"""Makes tests/data/vectors.json: for each derivation and encoding of docs/format.md an input and its output.

    python tools/make_test_vectors.py > tests/data/vectors.json

Octets are in hexadecimal. What is sealed differs at each run; those in the file stay readable.
"""

from __future__ import annotations

import hashlib
import json
import sys
from datetime import UTC, datetime

import msgspec

from backupd.mail.base64lines import Wrapping, encode
from backupd.model import MessageState
from backupd.repository import block, erasures, holds, index, keys, names, parity, payload, recipe, runs, slots
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.payload import BlobKind
from backupd.repository.runs import Envelope, MessageRow
from backupd.repository.slots import Argon2

PROTECTED = bytes(range(250))
"""An object, of which there is parity: of 2 shards, and as a copy."""


class Counter:
    """Octets that are the same each time, where secrets would be random."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, count: int) -> bytes:
        self._calls += 1
        return hashlib.shake_256(b"test vectors %d" % self._calls).digest(count)


def main() -> None:
    random = Counter()
    secrets = keys.generate(bytes(range(16)), random)
    message = b"Subject: vector\r\n\r\nHello.\r\n"
    rows = [
        MessageRow(
            uid, bytes([uid]) * 32, b"17-Jul-1996 02:44:25 -0700", 99, bytes([uid]) * 16, None, b"e" * 32, uid - 3
        )
        for uid in (3, 4, 9)
    ]
    states = [
        MessageState(3, (b"\\Seen",), (), 7),
        MessageState(4, (), (), 8),
        MessageState(9, (b"$Label1", b"\\Seen"), (), 9),
    ]
    blobs = payload.join(bytes([BlobKind.PLAIN, BlobKind.PLAIN]), [message, b"part"])
    entry = PackEntry(b"p" * 32, 2000, [BlockEntry(8, 1500, 1, len(blobs), 2)], b"a" * 32 + b"b" * 32, b"\0\0", [27, 4])
    _, slot = slots.wrap(
        secrets,
        "default",
        "correct horse",
        random=random,
        now=datetime(2026, 11, 1, tzinfo=UTC),
        argon2=Argon2(1, 64, 1),
    )
    pieces: list[recipe.Piece] = [
        recipe.Literal(b"head\r\n"),
        recipe.Part([b"a" * 32]),
        recipe.Base64Part([b"b" * 32], 76, b"\r\n", 2),
    ]
    envelopes = [Envelope(b"date", b"from", b"to", b"subject", b"<id>", (b"a.pdf",))]
    records: list[holds.Record] = [
        holds.Hold(1, "2026-11-01T12:00:00.000Z", "alice", "a reason", None, "2027-11-01T12:00:00.000Z"),
        holds.Release(1, "2026-11-02T12:00:00.000Z", "20261101T120000000Z-1a2b3c4d", "another"),
        holds.Acceptance(1, "2026-11-03T12:00:00.000Z", "alice", ["20261101T120000000Z-5e6f7a8b"]),
    ]
    erasure = erasures.make("2026-11-04T12:00:00.000Z", "a reason", [b"b" * 32, b"a" * 32], {b"c" * 32: b"d" * 32})
    wrapped = b"".join(encode([bytes(range(100))], Wrapping(76, b"\r\n"), 2))
    document = {
        "secrets": {
            "repository": secrets.repository.hex(),
            "writer_secret": secrets.writer_secret.hex(),
            "public_key": secrets.public_key.hex(),
            "private_key": secrets.private_key.hex(),
        },
        "content_id": {"octets": message.hex(), "id": secrets.content_id(message).hex()},
        "metadata_id": {"octets": b"run".hex(), "id": secrets.metadata_id(b"run").hex()},
        "fingerprint": {"header": message[:19].hex(), "fingerprint": secrets.fingerprint(message[:19]).hex()},
        "account_tag": {"account": "alice", "tag": secrets.account_tag("alice")},
        "parity": [
            {"octets": PROTECTED.hex(), "object": b"".join(parity.encode([PROTECTED], 2, whole=whole)).hex()}
            for whole in (0, len(PROTECTED))
        ],
        "pack_name": {"octets": b"BKPDPAK1".hex(), "name": names.pack(names.sha256([b"BKPDPAK1"]))},
        "payload": {"kinds": [0, 0], "blobs": [message.hex(), b"part".hex()], "octets": blobs.hex()},
        "blocks": [
            {"kind": kind, "payload": blobs.hex(), "octets": block.seal(kind, blobs, secrets, random, level=3).hex()}
            for kind in (block.Kind.CONTENT, block.Kind.METADATA, block.Kind.INDEX, block.Kind.SNAPSHOT)
        ],
        "index": {"payload_of": entry_of(entry), "octets": index.seal([entry], secrets, random).hex()},
        "recipe": {
            "octets": recipe.encode(pieces).hex(),
            "pieces": [
                [0, b"head\r\n".hex()],
                [1, [(b"a" * 32).hex()]],
                [2, [(b"b" * 32).hex()], 76, b"\r\n".hex(), 2],
            ],
        },
        "base64": {"octets": bytes(range(100)).hex(), "line_length": 76, "line_end": "0d0a", "text": wrapped.hex()},
        "packed_uids": {"uids": [3, 4, 9], "packed": runs.pack_uids([3, 4, 9])},
        "membership_run": {"uids": [3, 4, 9], "octets": runs.encode_membership(rows).hex()},
        "state_run": {
            "flags": [["\\Seen"], [], ["$Label1", "\\Seen"]],
            "modseqs": [7, 8, 9],
            "octets": runs.encode_state(states).hex(),
        },
        "envelope_run": {"octets": runs.encode_envelopes(envelopes).hex()},
        "slot": {"passphrase": "correct horse", "json": slot.decode()},
        "exported_key": slots.export(secrets),
        "holds": [
            {"record": msgspec.to_builtins(each), "octets": holds.seal(each, secrets, random).hex()} for each in records
        ],
        "erasures": [
            {
                "created": erasure.created,
                "reason": erasure.reason,
                "messages": erasure.messages.hex(),
                "envelopes": erasure.envelopes.hex(),
                "octets": erasures.seal(erasure, secrets, random)[1].hex(),
            }
        ],
    }
    sys.stdout.write(json.dumps(document, indent=1) + "\n")


def entry_of(entry: PackEntry) -> dict[str, object]:
    """A pack's entry in an index, readable."""
    return {
        "name": entry.name.hex(),
        "size": entry.size,
        "blocks": [[each.offset, each.length, each.kind, each.plain_length, each.blobs] for each in entry.blocks],
        "ids": entry.ids.hex(),
        "kinds": list(entry.kinds),
        "lengths": entry.lengths,
    }


if __name__ == "__main__":
    main()
