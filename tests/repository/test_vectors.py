"""The vectors of docs/format.md: what was written once is what this version derives, and reads."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backupd.mail.base64lines import Wrapping, encode
from backupd.model import MessageState
from backupd.repository import (
    block,
    erasures,
    holds,
    index,
    marks,
    names,
    needs,
    parity,
    payload,
    recipe,
    record,
    runs,
    slots,
)
from backupd.repository.keys import Secrets
from backupd.repository.payload import BlobKind
from tests.support.memory_storage import MemoryStorage

VECTORS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "vectors.json").read_text())


def octets(*path: str | int) -> bytes:
    found: Any = VECTORS
    for step in path:
        found = found[step]
    return bytes.fromhex(found)


@pytest.fixture(scope="module")
def secrets() -> Secrets:
    return Secrets(**{name: octets("secrets", name) for name in VECTORS["secrets"]})


def test_derivations(secrets: Secrets) -> None:
    secrets.check()
    assert secrets.content_id(octets("content_id", "octets")) == octets("content_id", "id")
    assert secrets.metadata_id(octets("metadata_id", "octets")) == octets("metadata_id", "id")
    assert secrets.fingerprint(octets("fingerprint", "header")) == octets("fingerprint", "fingerprint")
    assert secrets.account_tag(VECTORS["account_tag"]["account"]) == VECTORS["account_tag"]["tag"]
    assert names.pack(names.sha256([octets("pack_name", "octets")])) == VECTORS["pack_name"]["name"]


@pytest.mark.parametrize("number", range(4))
def test_blocks(secrets: Secrets, number: int) -> None:
    vector = VECTORS["blocks"][number]
    found = block.unseal(bytes.fromhex(vector["octets"]), secrets, "x", expect=block.Kind(vector["kind"]))
    assert found == bytes.fromhex(vector["payload"])


def test_payload() -> None:
    vector = VECTORS["payload"]
    blobs = [bytes.fromhex(blob) for blob in vector["blobs"]]
    assert payload.join(bytes(vector["kinds"]), blobs) == octets("payload", "octets")
    assert [bytes(data) for _, data in payload.parse(octets("payload", "octets"), "x")] == blobs
    assert BlobKind(vector["kinds"][0]) is BlobKind.PLAIN


def test_index(secrets: Secrets) -> None:
    (entry,) = index.unseal(octets("index", "octets"), secrets, "x")
    wanted = VECTORS["index"]["payload_of"]
    assert entry.name.hex() == wanted["name"]
    blocks = [[each.offset, each.length, each.kind, each.plain_length, each.blobs] for each in entry.blocks]
    assert blocks == wanted["blocks"]
    assert (entry.size, entry.ids.hex(), list(entry.kinds), entry.lengths) == (
        wanted["size"], wanted["ids"], wanted["kinds"], wanted["lengths"]
    )  # fmt: skip


@pytest.mark.parametrize("number", range(2))
def test_parity(number: int) -> None:
    whole, protected = (bytes.fromhex(VECTORS["parity"][number][key]) for key in ("octets", "object"))
    assert b"".join(parity.encode([whole], 2, whole=0 if number == 0 else len(whole))) == protected
    assert parity.heal(b"\xff" + whole[1:], protected) == whole
    assert parity.whose(protected) == hashlib.sha256(whole).digest()


def test_recipe_and_base64() -> None:
    literal, part, encoded = recipe.decode(octets("recipe", "octets"), "x")
    assert isinstance(literal, recipe.Literal)
    assert isinstance(part, recipe.Part)
    assert isinstance(encoded, recipe.Base64Part)
    wanted = VECTORS["recipe"]["pieces"]
    assert literal.data.hex() == wanted[0][1]
    assert [blob.hex() for blob in part.blobs] == wanted[1][1]
    assert [b.hex() for b in encoded.blobs] == wanted[2][1]
    assert [encoded.line_length, encoded.line_end.hex(), encoded.padding] == wanted[2][2:]
    text = b"".join(encode([octets("base64", "octets")], Wrapping(76, octets("base64", "line_end")), 2))
    assert text == octets("base64", "text")


def test_runs() -> None:
    assert runs.pack_uids(VECTORS["packed_uids"]["uids"]) == VECTORS["packed_uids"]["packed"]
    rows = runs.decode_membership(octets("membership_run", "octets"), "x")
    assert [row.uid for row in rows] == VECTORS["membership_run"]["uids"]
    assert runs.encode_membership(rows) == octets("membership_run", "octets")
    states = runs.decode_state(octets("state_run", "octets"), "x")
    flags, modseqs = VECTORS["state_run"]["flags"], VECTORS["state_run"]["modseqs"]
    assert states == [
        MessageState(uid, tuple(flag.encode() for flag in some), (), modseq)
        for uid, some, modseq in zip([3, 4, 9], flags, modseqs, strict=True)
    ]
    (envelope,) = runs.decode_envelopes(octets("envelope_run", "octets"), "x")
    assert (envelope.subject, envelope.attachments) == (b"subject", (b"a.pdf",))


def test_slot_and_exported_key(secrets: Secrets) -> None:
    slot = slots.parse(VECTORS["slot"]["json"].encode(), "x")
    assert slots.unwrap(slot, VECTORS["slot"]["passphrase"]) == secrets
    assert slots.imported(VECTORS["exported_key"]) == secrets


def test_holds(secrets: Secrets) -> None:
    for vector in VECTORS["holds"]:
        data = bytes.fromhex(vector["octets"])
        name = names.hold(f"20261101T120000000Z-{names.sha256([data])[:8]}")
        assert msgspec.to_builtins(holds.unseal(data, secrets, name)) == vector["record"]


def test_erasures(secrets: Secrets) -> None:
    for vector in VECTORS["erasures"]:
        data = bytes.fromhex(vector["octets"])
        name = names.erasure(f"20261104T120000000Z-{names.sha256([data])[:8]}")
        record = erasures.unseal(data, secrets, name)
        assert (record.format, record.created, record.reason) == (1, vector["created"], vector["reason"])
        assert (record.messages.hex(), record.envelopes.hex()) == (vector["messages"], vector["envelopes"])


def _hexadecimal(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: _hexadecimal(each) for name, each in value.items()}
    return [_hexadecimal(each) for each in value] if isinstance(value, (list, tuple)) else value


def test_the_record(secrets: Secrets) -> None:
    vector = VECTORS["record"]
    whose = record.Signer(secrets.repository, octets("record", "public_key"))
    assert record.signer(secrets) == whose
    assert record.name_of(octets("record", "object"), datetime(2026, 11, 2, 12, tzinfo=UTC)) == vector["name"]
    entries = list(record.cut(octets("record", "object"), vector["name"]))
    assert record.join(entries) == octets("record", "object")
    for wanted, found in zip(vector["entries"], entries, strict=True):
        signed = record.verify(found, whose, "x")
        assert (signed.id.hex(), signed.octets.hex()) == (wanted["id"], wanted["octets"])
        assert _hexadecimal(msgspec.structs.asdict(signed.entry)) == wanted["fields"]
        assert record.sign(signed.entry, secrets) == signed  # Ed25519 has no chance in it
    assert record.unseal(signed.entry, secrets, "x") == vector["reasons"]


@pytest.mark.parametrize("kind", ["mark", "need"])
def test_marks_and_needs(kind: str) -> None:
    vector = VECTORS[kind]
    storage = MemoryStorage()
    storage.put(vector["name"], [octets(kind, "octets")])
    when = datetime(2026, 11, 2, 12, tzinfo=UTC)
    if kind == "mark":
        assert marks.put(storage, vector["objects"], vector["why"], when) == vector["name"]
        (found,) = marks.read(storage)
        assert (found.mark.objects, found.mark.why) == (vector["objects"], vector["why"])
    else:
        assert needs.put(storage, vector["mark"], vector["objects"], when) == vector["name"]
        (need,) = needs.read(storage)
        assert (need.need.objects, need.need.mark) == (vector["objects"], vector["mark"])
