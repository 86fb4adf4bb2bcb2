"""Objects that somebody made on purpose: they are damage or open nothing, cost little, and nothing else goes wrong."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.pretty import pretty_repr

from backupd.errors import Damaged, WrongKey
from backupd.repository import block, index, keys, names, recipe, runs, slots, snapshots
from backupd.repository.block import Kind
from backupd.repository.index import BlockEntry, PackEntry
from backupd.repository.keys import Secrets
from backupd.repository.repository import unlock
from backupd.repository.slots import Argon2
from backupd.repository.snapshots import SnapshotRef
from tests.repository.conftest import PASSPHRASE
from tests.support.memory_storage import MemoryStorage

SECRETS = keys.generate(bytes(range(16)), os.urandom)
NOWHERE = SnapshotRef("20260101T000000000Z-00000000", "0" * 16)
NESTED = b'{"x":' + b"[" * 200_000
NO_TEXT = b'{"label":"\xff\xfe","id":"\xff"}'


def slot_name(storage: MemoryStorage) -> str:
    return next(name for name in storage.objects if name.startswith("keys/"))


class TestSlots:
    @pytest.mark.parametrize(
        "costs",
        [
            Argon2(0, 64, 1), Argon2(-1, 64, 1), Argon2(2**63 - 1, 64, 1), Argon2(2**31, 64, 1), Argon2(1, 64, 0),
            Argon2(1, 64, 9), Argon2(1, 2**40, 1), Argon2(1, 2**62, 2**33), Argon2(1, 7, 1), Argon2(1, -8, -1),
        ],
    )  # fmt: skip
    def test_costs_that_would_take_for_ever_are_refused_before_they_are_paid(
        self, storage: MemoryStorage, secrets: Secrets, costs: Argon2
    ) -> None:
        name = slot_name(storage)
        slot = json.loads(storage.objects[name]) | {"argon2": msgspec.to_builtins(costs)}
        with pytest.raises(Damaged, match="unknown kind"):
            slots.parse(json.dumps(slot).encode(), name)

    @pytest.mark.parametrize(
        "change",
        [
            {"salt": ""}, {"salt": "AAAA"}, {"wrapped": ""}, {"wrapped": "AAAAAAAAAAAAAAAA"}, {"label": "\x1b[31m"},
            {"label": "../x"}, {"role": "auditor"}, {"role": "writer"}, {"argon2": None}, {"format": 2}, {"salt": 1},
        ],
    )  # fmt: skip
    def test_an_altered_slot_opens_nothing(
        self, storage: MemoryStorage, secrets: Secrets, change: dict[str, object]
    ) -> None:
        name = slot_name(storage)
        storage.objects[name] = json.dumps(json.loads(storage.objects[name]) | change).encode()
        with pytest.raises(WrongKey, match="opens no slot"):
            unlock(storage, PASSPHRASE)

    def test_a_slot_that_opens_is_found_among_damaged_ones(self, storage: MemoryStorage, secrets: Secrets) -> None:
        for number, data in enumerate([b"", NESTED, NO_TEXT, b"{}", storage.objects[slot_name(storage)][:-9]]):
            storage.put(f"keys/a{number}-00000000.json", [data])
        assert unlock(storage, PASSPHRASE) == secrets

    @given(st.binary(max_size=200) | st.sampled_from([NESTED, NO_TEXT]))
    def test_any_bytes_are_damage(self, data: bytes) -> None:
        with pytest.raises(Damaged, match="keys/x"):
            slots.parse(data, "keys/x")


class TestSecretsAreNotShown:
    def test_by_rich_either(self) -> None:
        shown = pretty_repr(SECRETS) + pretty_repr([SECRETS], expand_all=True) + str(SECRETS)
        for secret in (SECRETS.writer_secret, SECRETS.private_key, SECRETS.private_key[:32]):
            assert repr(secret) not in shown
            assert secret.hex() not in shown

    @pytest.mark.parametrize(
        "secret", ["geheim\udcff", "BACKUPD-SECRETS-1 reader", "BACKUPD-SECRETS-1 reader Z2VoZWlt", "geheim"]
    )
    def test_by_the_error_a_wrong_one_raises_or_what_caused_it(
        self, storage: MemoryStorage, secrets: Secrets, secret: str
    ) -> None:
        with pytest.raises(WrongKey) as caught:
            unlock(storage, secret)
        error: BaseException | None = caught.value
        while error:
            assert "geheim" not in str(error) + repr(error.args)
            assert "Z2VoZWlt" not in repr(error.args)
            error = error.__cause__


class TestNames:
    @pytest.mark.parametrize("time", ["20269999T999999999Z", "20260230T000000000Z", "00000101T000000000Z"])
    def test_a_snapshots_name_without_a_possible_time_is_none(self, time: str) -> None:
        assert names.parse_snapshot(f"snapshots/{'0' * 16}/{time}-00000000") is None
        assert names.proves(f"snapshots/{'0' * 16}/{time}-00000000", [b""]) is None


def sealed(kind: Kind, payload: bytes) -> bytes:
    return block.seal(kind, payload, SECRETS, os.urandom, level=1)


DEEP = b"\x81\xa1x" + b"\x91" * 200_000
MANY = b"\x81\xa5packs\xdd\xff\xff\xff\xff"


class TestMadeByAThiefOfTheWritersKey:
    """Whoever holds the writer secret can make metadata that opens. It must not stop a reader from reading the rest."""

    @pytest.mark.parametrize("payload", [DEEP, MANY, b"", b"\xc0", b"\x81\xa5packs\x91\x81\xa4name\xc4\x01x"])
    def test_an_index_that_cannot_be_decoded(self, payload: bytes) -> None:
        with pytest.raises(Damaged, match="index"):
            index.unseal(sealed(Kind.INDEX, payload), SECRETS, "index/x")

    @pytest.mark.parametrize(
        ("offset", "length", "count", "size"),
        [
            (8, 2**40, 1, 2**41), (8, -1, 1, 100), (8, 0, 1, 100), (-8, 20, 1, 100), (90, 20, 1, 100),
            (8, 20, 1, 2**63), (2**70, 20, 1, 2**71), (8, 20, 1, -1),
        ],
    )  # fmt: skip
    def test_an_index_of_a_pack_that_cannot_be(self, offset: int, length: int, count: int, size: int) -> None:
        entries = [{
            "name": bytes(32), "size": min(size, 2**64 - 1), "ids": bytes(32 * count), "kinds": bytes(count),
            "lengths": [1] * count, "blocks": [[min(offset, 2**64 - 1), length, 1, 20, count]],
        }]  # fmt: skip
        with pytest.raises(Damaged, match="index"):
            index.unseal(sealed(Kind.INDEX, msgspec.msgpack.encode({"packs": entries})), SECRETS, "index/x")

    def test_an_index_with_fewer_than_no_blobs(self) -> None:
        blocks = [BlockEntry(8, 20, 1, 20, 2), BlockEntry(28, 20, 1, 20, -1)]
        entry = PackEntry(bytes(32), 100, blocks, bytes(32), bytes(1), [1])
        with pytest.raises(Damaged, match="index"):
            index.unseal(index.seal([entry], SECRETS, os.urandom), SECRETS, "index/x")

    @pytest.mark.parametrize("uids", [[1, 2**60], [1, 2**64 - 1], [1, -1], [5, 1, -3, 1], [1], [1, 3]])
    def test_a_run_with_more_uids_than_rows(self, uids: list[int]) -> None:
        state = {"uids": uids, "flag_sets": [[]], "flags": [0, 0]}
        with pytest.raises(Damaged):
            runs.decode_state(msgspec.msgpack.encode(state), "x")
        with pytest.raises(Damaged):
            runs.state_uids(msgspec.msgpack.encode(state), "x")
        membership = {
            "uids": uids, "messages": bytes(64), "dates": [b"", b""], "sizes": [1, 1], "fingerprints": bytes(32),
            "envelope_runs": bytes(32), "envelope_run": [0, 0], "envelope": [0, 0],
        }  # fmt: skip
        with pytest.raises(Damaged):
            runs.decode_membership(msgspec.msgpack.encode(membership), "x")
        with pytest.raises(Damaged):
            runs.sizes(msgspec.msgpack.encode(membership), "x")
        with pytest.raises(Damaged):
            runs.references(msgspec.msgpack.encode(membership), "x")

    @pytest.mark.parametrize(
        "more",
        [
            {"flags": [0, 1]}, {"flags": [0, -1]}, {"labels": [0, 1]}, {"labels": [0], "label_sets": [[]]},
            {"modseqs": [1, 2, 3]}, {"gone": [0]}, {"gone": [-1, 1]}, {"gone": [0, -1]}, {"gone": [5]},
        ],
    )
    def test_a_state_run_whose_columns_do_not_fit(self, more: dict[str, object]) -> None:
        data = msgspec.msgpack.encode({"uids": [1, 2], "flag_sets": [[]], "flags": [0, 0], **more})
        for read in (runs.decode_state, runs.state_uids):
            with pytest.raises(Damaged):
                read(data, "x")

    @pytest.mark.parametrize(
        "read",
        [
            lambda data: runs.decode_state(data, "x"),
            lambda data: runs.state_uids(data, "x"),
            lambda data: runs.decode_membership(data, "x"),
            lambda data: runs.sizes(data, "x"),
            lambda data: runs.references(data, "x"),
            lambda data: runs.state_uid_ranges(data, "x"),
            lambda data: runs.decode_envelopes(data, "x"),
            lambda data: recipe.decode(data, "x"),
            lambda data: snapshots.unseal(sealed(Kind.SNAPSHOT, data), NOWHERE, SECRETS),
        ],
    )
    @pytest.mark.parametrize("data", [DEEP, MANY, b"\xdd\xff\xff\xff\xff", b"\x91" * 200_000, b"\x81\xa1\xff\x01"])
    def test_whatever_is_decoded(self, read: Callable[[bytes], object], data: bytes) -> None:
        with pytest.raises(Damaged):
            read(data)

    def test_a_snapshot_without_a_time(self) -> None:
        snapshot = snapshots.Snapshot(
            1, "a", None, "yesterday", "", snapshots.Origin("imap", "", 1, "", ()), True, False, 0, 0, []
        )
        with pytest.raises(Damaged, match="makes no sense"):
            snapshots.unseal(
                sealed(Kind.SNAPSHOT, msgspec.msgpack.encode(snapshot)),
                NOWHERE,
                SECRETS,
            )


@pytest.mark.parametrize("octets", [b"\0", b"\xff"])
def test_a_block_key_sealed_to_a_point_of_low_order_is_damage(octets: bytes) -> None:
    whole = sealed(Kind.CONTENT, b"x" * 50)
    for first, last in ((16, 16 + 1088), (16 + 1088, 16 + 1120), (16 + 1120, 16 + 1168)):
        forged = whole[:first] + octets * (last - first) + whole[last:]
        with pytest.raises(Damaged):
            block.unseal(forged, SECRETS, "x")
