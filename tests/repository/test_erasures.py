"""Erasures as objects: written and read, what several of them say together, and what cannot be one."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backupd.errors import Damaged
from backupd.repository import block, erasures, names
from backupd.repository.erasures import Erasure, Erasures, Register
from backupd.repository.keys import Secrets
from tests.support.memory_storage import MemoryStorage

TIME = "2026-11-01T12:00:00.000Z"
IDS = st.binary(min_size=32, max_size=32)


def of(*pairs: tuple[bytes, bytes], messages: tuple[bytes, ...] = (), created: str = TIME) -> Erasure:
    return erasures.make(created, "asked to", messages, dict(pairs))


def blob(number: int) -> bytes:
    return number.to_bytes(32, "big")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(messages=st.sets(IDS, max_size=20), runs=st.dictionaries(IDS, IDS, max_size=10), reason=st.text(max_size=50))
def test_what_is_written_is_read(secrets: Secrets, messages: set[bytes], runs: dict[bytes, bytes], reason: str) -> None:
    record = erasures.make(TIME, reason, messages, runs)
    identifier, data = erasures.seal(record, secrets, bytes)
    assert erasures.unseal(bytes(data), secrets, names.erasure(identifier)) == record
    assert Erasures({identifier: record}).messages.keys() == messages


def test_the_oldest_says_why(secrets: Secrets) -> None:
    both = Erasures({"2": of(messages=(blob(1),), created="2026-11-02T00:00:00Z"), "1": of(messages=(blob(1),))})
    assert both.messages[blob(1)].erasure == "1"
    assert str(both.messages[blob(1)]) == "erased on 2026-11-01: asked to"
    assert blob(1) in both
    assert blob(2) not in both


def test_a_run_is_followed_to_the_one_that_stands_for_it_by_now() -> None:
    both = Erasures({"1": of((blob(1), blob(2))), "2": of((blob(2), blob(3)), (blob(7), blob(8)))})
    assert both.places(blob(1)) == [blob(3), blob(2), blob(1)]
    assert both.places(blob(9)) == [blob(9)]
    assert both.replaced() == {blob(1), blob(2), blob(7)}
    assert both.forks() == []


def test_what_two_gave_for_one_run_is_a_fork_until_somebody_joins_it() -> None:
    one, two = of((blob(1), blob(2))), of((blob(1), blob(3)))
    forked = Erasures({"1": one, "2": two})
    assert forked.places(blob(1)) == [blob(3), blob(1)]
    assert forked.forks() == [(blob(3), {blob(2)})]
    assert forked.replaced() == {blob(1), blob(2)}
    for place in ("0", "3"):  # whatever the clock says of who joins it
        joined = Erasures({"1": one, "2": two, place: of((blob(2), blob(4)), (blob(3), blob(4)))})
        assert joined.forks() == []
        assert joined.places(blob(1))[0] == blob(4)
        assert joined.replaced() == {blob(1), blob(2), blob(3)}


@given(st.lists(st.dictionaries(st.integers(0, 6).map(blob), st.integers(0, 6).map(blob), max_size=4), max_size=5))
def test_no_erasures_that_can_be_written_lead_anybody_round_in_a_circle(all_of_them: list[dict[bytes, bytes]]) -> None:
    every = Erasures({str(number): of(*runs.items()) for number, runs in enumerate(all_of_them)})
    for number in range(7):
        found = every.places(blob(number))
        assert found[-1] == blob(number)
        assert len(found) == len(set(found)) <= 7
    every.forks()
    every.replaced()


@pytest.mark.parametrize(
    "record",
    [
        Erasure(2, TIME, ""),
        Erasure(1, "yesterday", ""),
        Erasure(1, "2026-11-01T12:00:00", ""),
        Erasure(1, TIME, "", messages=bytes(31)),
        Erasure(1, TIME, "", envelopes=bytes(32)),
    ],
)
def test_what_cannot_be_one_is_damage(secrets: Secrets, record: Erasure) -> None:
    data = bytes(
        block.seal(block.Kind.ERASURE, msgspec.msgpack.encode(record), secrets, bytes, level=3)
    )
    identifier = names.snapshot_id(datetime(2026, 11, 1, tzinfo=UTC), names.sha256([data]))
    with pytest.raises(Damaged):
        erasures.unseal(data, secrets, names.erasure(identifier))


def test_one_that_is_damaged_or_is_no_erasure_is_told_and_the_others_count(
    storage: MemoryStorage, secrets: Secrets
) -> None:
    for number in range(3):
        identifier, data = erasures.seal(of(messages=(blob(number),)), secrets, bytes)
        storage.put(names.erasure(identifier), [data])
    first = min(name for name in storage.objects if name.startswith(names.ERASURES))
    storage.objects[first] += b"x"
    storage.put("erasures/readme", [b"not one"])
    register = Register(storage, secrets)
    assert register.now.damaged == (first,)
    assert len(register.now.messages) == 2


def test_each_is_read_once_and_one_that_was_taken_back_is_none(storage: MemoryStorage, secrets: Secrets) -> None:
    identifier, data = erasures.seal(of(messages=(blob(1),)), secrets, bytes)
    register = Register(storage, secrets)
    assert len(register.now) == 0
    storage.put(names.erasure(identifier), [data])
    assert len(register.now) == 0
    assert len(register.look()) == 1
    known = register.now
    assert register.look() is known
    storage.delete(names.erasure(identifier))
    assert len(register.look()) == 0
