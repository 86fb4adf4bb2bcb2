"""Parity: any damage within its bounds is healed bit for bit, and what is beyond them is said to be beyond them."""

from __future__ import annotations

import hashlib
import random
from functools import reduce
from operator import xor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backupd.errors import ConfigError, ObjectExists, StorageFull
from backupd.repository import names, parity
from backupd.repository.parity_storage import ParityStorage
from tests.support.memory_storage import MemoryStorage

SHARDS = 100
CHECKSUM, FIXED, DIGEST = 8, 56, 32


def octets(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def encoded(data: bytes, per_cent: int, *, whole: int = 0) -> bytes:
    return b"".join(parity.encode([data], per_cent, whole=whole))


def header_octets(per_cent: int) -> int:
    return FIXED + CHECKSUM * (SHARDS + per_cent) + DIGEST


# -- the format --------------------------------------------------------------------------------------------------------


def _inverse(element: int) -> int:
    return next(other for other in range(256) if _product(element, other) == 1)


def _product(one: int, other: int) -> int:
    """In GF(2^8) modulo x^8 + x^4 + x^3 + x^2 + 1."""
    product = 0
    while other:
        if other & 1:
            product ^= one
        one = one << 1 ^ (0x11D if one & 0x80 else 0)
        other >>= 1
    return product


def test_parity_shards_are_what_the_format_says_they_are() -> None:
    data = octets(250)  # shards of three octets, and a few of zeros
    found = encoded(data, 4)
    shards = [data[3 * at : 3 * at + 3].ljust(3, b"\0") for at in range(SHARDS)]
    for number in range(4):
        row = [_inverse((SHARDS + number) ^ column) for column in range(SHARDS)]
        expected = bytes(
            reduce(xor, (_product(factor, shard[at]) for factor, shard in zip(row, shards, strict=True)))
            for at in range(3)
        )
        start = header_octets(4) + 3 * number
        assert found[start : start + 3] == expected
    assert found[: header_octets(4)] == found[-header_octets(4) - 4 : -4]


def test_parity_of_a_small_object_is_a_copy_of_it() -> None:
    data = octets(1000)
    assert encoded(data, 5, whole=1000).count(data) == 1
    assert parity.heal(b"", encoded(data, 5, whole=1000)) == data


# -- healing -----------------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_damage_to_as_many_shards_as_there_is_parity_is_healed_bit_for_bit(data: st.DataObject) -> None:
    size, per_cent = data.draw(st.integers(1, 3_000)), data.draw(st.integers(1, 12))
    whole = octets(size)
    shard = -(-size // SHARDS)
    protected = encoded(whole, per_cent)
    bad = data.draw(st.sets(st.integers(0, SHARDS + per_cent - 1), max_size=per_cent))
    damaged, spoilt = bytearray(whole), bytearray(protected)
    for number in bad:
        place = data.draw(st.integers(0, shard - 1))
        bit = 1 << data.draw(st.integers(0, 7))
        if number >= SHARDS:
            spoilt[header_octets(per_cent) + (number - SHARDS) * shard + place] ^= bit
        elif number * shard + place < size:
            damaged[number * shard + place] ^= bit
    assert parity.heal(damaged, spoilt) == whole
    assert parity.whose(spoilt) == (digest(whole) if spoilt == protected else None)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_whatever_is_done_what_comes_out_is_the_object_or_nothing(data: st.DataObject) -> None:
    whole = octets(data.draw(st.integers(1, 2_000)))
    protected = encoded(whole, 5, whole=data.draw(st.sampled_from([0, 500])))

    def spoilt(some: bytes) -> bytes:
        match data.draw(st.sampled_from(["as it is", "cut", "longer", "other", "bits"])):
            case "cut":
                return some[: data.draw(st.integers(0, len(some)))]
            case "longer":
                return some + data.draw(st.binary(max_size=50))
            case "other":
                return data.draw(st.binary(max_size=300))
            case "bits":
                changed = bytearray(some)
                for at in data.draw(st.lists(st.integers(0, len(some) - 1), max_size=30)):
                    changed[at] ^= 0x10
                return bytes(changed)
        return some

    damaged, spoilt_parity = spoilt(whole), spoilt(protected)
    assert parity.heal(damaged, spoilt_parity) in (whole, None)
    assert parity.whose(spoilt_parity) == (digest(whole) if spoilt_parity == protected else None)


def test_one_bad_shard_too_many_is_beyond_it() -> None:
    whole = octets(1_000)
    damaged = bytearray(whole)
    for number in range(6):
        damaged[number * 170] ^= 1
    assert parity.heal(damaged, encoded(whole, 5)) is None
    assert parity.heal(damaged, encoded(whole, 6)) == whole


def test_an_end_that_is_cut_off_is_healed_as_far_as_parity_goes_and_one_too_many_is_cut_off_again() -> None:
    whole = octets(10_000)
    assert parity.heal(whole[:9_500], encoded(whole, 5)) == whole
    assert parity.heal(whole[:9_499], encoded(whole, 5)) is None
    assert parity.heal(whole + b"more", encoded(whole, 5)) == whole


def test_parity_without_its_first_header_is_of_use() -> None:
    whole = octets(1_000)
    protected = bytearray(encoded(whole, 5))
    protected[:20] = bytes(20)
    assert parity.whose(protected) is None
    assert parity.heal(b"x" * 50 + whole[50:], protected) == whole


def test_parity_of_another_object_heals_nothing() -> None:
    assert parity.heal(octets(1_000), encoded(octets(1_001), 5)) is None


def digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


# -- storing -----------------------------------------------------------------------------------------------------------


PACK = names.pack("ab" * 32)


@pytest.fixture
def memory() -> MemoryStorage:
    return MemoryStorage()


@pytest.fixture
def storage(memory: MemoryStorage) -> ParityStorage:
    return ParityStorage(memory, 5)


def test_each_object_is_stored_with_its_parity_but_for_marks_and_the_like(
    storage: ParityStorage, memory: MemoryStorage
) -> None:
    for name in (PACK, names.DESCRIPTION, "snapshots/ab/c", "marks/a", "needs/a", "probe/a"):
        storage.put(name, [b"some ", memoryview(octets(20_000))])
    assert {name for name in memory.objects if name.startswith(names.PARITY)} == {
        f"parity/{name}" for name in (PACK, names.DESCRIPTION, "snapshots/ab/c")
    }
    assert all(
        parity.whose(memory.objects[names.parity(name)]) == digest(data)
        for name, data in memory.objects.items()
        if not name.startswith((names.PARITY, "marks/", "needs/", "probe/"))
    )


def test_parity_proves_itself_and_whose_it_is(storage: ParityStorage, memory: MemoryStorage) -> None:
    data, other = octets(20_000), octets(30_000)
    pack, snapshot, slot = names.pack(names.sha256([data])), "snapshots/0123456789abcdef/20260101T000000000Z-", "keys/a"
    snapshot += names.sha256([data])[:8]
    for name in (pack, snapshot, slot):
        storage.put(name, [data])
        assert names.proves(names.parity(name), [memory.objects[names.parity(name)]])
    storage.put("keys/b", [other])
    swapped = memory.objects["parity/keys/b"]
    assert [names.proves(names.parity(name), [swapped]) for name in (pack, snapshot)] == [False, False]
    assert names.proves("parity/keys/a", [swapped])  # a name that promises nothing


def test_the_object_comes_first_and_goes_last(storage: ParityStorage, memory: MemoryStorage) -> None:
    order: list[str] = []
    memory.before_put = order.append
    storage.put(PACK, [b"data"])
    assert order == [PACK, names.parity(PACK)]
    deleted: list[str] = []
    memory.delete = deleted.append  # type: ignore[method-assign]
    storage.delete(PACK)
    assert deleted == [names.parity(PACK), PACK]


def test_whoever_is_killed_between_both_leaves_an_object_and_the_next_attempt_its_parity(
    storage: ParityStorage, memory: MemoryStorage
) -> None:
    def killed(name: str) -> None:
        if name.startswith(names.PARITY):
            raise StorageFull("killed")

    memory.before_put = killed
    with pytest.raises(StorageFull):
        storage.put(PACK, [b"data"])
    assert set(memory.objects) == {PACK}
    memory.before_put = lambda _name: None
    storage.put(PACK, [b"data"])
    assert set(memory.objects) == {PACK, names.parity(PACK)}


def test_other_bytes_are_refused_and_parity_of_another_share_stays(
    storage: ParityStorage, memory: MemoryStorage
) -> None:
    storage.put(PACK, [octets(20_000)])
    before = dict(memory.objects)
    with pytest.raises(ObjectExists):
        storage.put(PACK, [b"other"])
    ParityStorage(memory, 10).put(PACK, [octets(20_000)])
    assert memory.objects == before


def test_what_is_replaced_gets_new_parity(storage: ParityStorage, memory: MemoryStorage) -> None:
    storage.put(PACK, [b"data"])
    memory.objects[names.parity(PACK)] = b"rot"
    storage.replace(PACK, [b"healed"])
    assert parity.whose(memory.objects[names.parity(PACK)]) == digest(b"healed")


def test_without_the_library_it_says_what_to_install(memory: MemoryStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"backupd\[parity\]"):
        ParityStorage(memory, 5)
