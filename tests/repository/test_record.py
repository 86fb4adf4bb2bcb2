"""Entries of the signed record: what is encoded is what is decoded, and nothing else is believed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.errors import Damaged
from backupd.repository import names, record
from backupd.repository.keys import generate
from backupd.repository.record import FORMAT, Entry

NOW = datetime(2026, 6, 1, tzinfo=UTC)
SECRETS = generate(bytes(16), lambda count: bytes(range(7, count + 7)))
WHOSE = record.signer(SECRETS)

digests = st.binary(min_size=32, max_size=32)
texts = st.text(max_size=40)
entries = st.builds(
    Entry,
    format=st.just(FORMAT),
    repository=st.just(WHOSE.repository),
    key=st.just(WHOSE.key),
    time=st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
    kind=texts,
    after=st.lists(digests, max_size=3),
    adds=st.lists(st.tuples(texts, digests | st.just(b"")), max_size=3),
    going=st.lists(texts, max_size=3),
    gone=st.lists(texts, max_size=3),
    despite=st.lists(digests, max_size=2),
    lost=st.lists(digests, max_size=2),
    counts=st.dictionaries(texts, st.integers(0, 2**63), max_size=3),
    words=st.dictionaries(texts, texts, max_size=3),
    sealed=st.binary(max_size=50),
)


@given(st.lists(entries, max_size=4))
def test_what_is_joined_is_what_is_cut_and_each_signature_is_good(some: list[Entry]) -> None:
    signed = [record.sign(each, SECRETS) for each in some]
    data = record.join(each.octets for each in signed)
    name = record.name_of(data, NOW)
    assert names.log_time(name) == NOW
    assert [record.verify(octets, WHOSE, name) for octets in record.cut(data, name)] == signed


@given(entries, st.data())
def test_no_bit_of_an_entry_can_be_changed(entry: Entry, data: st.DataObject) -> None:
    octets = record.sign(entry, SECRETS).octets
    place = data.draw(st.integers(0, len(octets) * 8 - 1))
    changed = bytearray(octets)
    changed[place // 8] ^= 1 << place % 8
    with pytest.raises(Damaged):
        record.verify(bytes(changed), WHOSE, "an entry")


@given(st.binary(max_size=300))
def test_whatever_lies_there_is_read_or_damaged_and_never_crashes(data: bytes) -> None:
    for octets in (data, record.MAGIC + data):
        name = record.name_of(octets, NOW)
        try:
            for each in record.cut(octets, name):
                record.verify(each, WHOSE, name)
        except Damaged:
            continue
        assert octets == record.MAGIC  # nothing but an empty object is believed


@pytest.mark.parametrize("change", [{"repository": bytes(15) + b"x"}, {"key": bytes(32)}, {"format": 2}])
def test_entries_of_others_are_not_believed(change: dict[str, object]) -> None:
    plain = {"format": FORMAT, "repository": WHOSE.repository, "key": WHOSE.key, "time": NOW.isoformat(), "kind": "x"}
    signed = record.sign(Entry(**{**plain, **change}), SECRETS)  # type: ignore[arg-type]
    with pytest.raises(Damaged):
        record.verify(signed.octets, WHOSE, "an entry")


def test_a_reason_is_sealed_and_read_by_holders_of_a_key() -> None:
    sealed = record.seal({"reason": "because"}, SECRETS, bytes)
    entry = Entry(FORMAT, WHOSE.repository, WHOSE.key, NOW.isoformat(), "x", sealed=sealed)
    assert b"because" not in sealed
    assert record.unseal(entry, SECRETS, "an entry") == {"reason": "because"}
    assert record.seal({}, SECRETS, bytes) == b""
