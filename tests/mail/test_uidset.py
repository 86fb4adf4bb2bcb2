"""Sets of UIDs behave like sets, whatever the stretches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.mail.uidset import GREATEST, UidSet

uids = st.sets(st.integers(1, 60)) | st.sets(st.integers(1, GREATEST), max_size=30)


@given(uids, uids)
def test_operations_are_those_of_sets(one: set[int], two: set[int]) -> None:
    a, b = UidSet.from_uids(one), UidSet.from_uids(two)

    assert set(a | b) == one | two
    assert set(a & b) == one & two
    assert set(a - b) == one - two
    assert list(a) == sorted(one)
    assert len(a) == len(one)
    assert (a == b) == (one == two)
    assert all((uid in a) == (uid in one) for uid in one | two)


@given(uids)
def test_equal_sets_have_equal_stretches_and_hashes(one: set[int]) -> None:
    a = UidSet.from_uids(one)
    b = UidSet.from_ranges((uid, uid) for uid in sorted(one, reverse=True))

    assert a.ranges == b.ranges
    assert hash(a) == hash(b)
    assert all(second[0] > first[1] + 1 for first, second in zip(a.ranges, a.ranges[1:], strict=False))


@given(uids, st.integers(21, 60))
def test_what_goes_over_the_wire_comes_back(one: set[int], limit: int) -> None:
    a = UidSet.from_uids(one)
    lines = list(a.to_wire(limit))

    assert all(len(line) <= limit for line in lines)
    together = UidSet.EMPTY
    for line in lines:
        together |= UidSet.parse(line)
    assert together == a


@given(uids, st.integers(1, 20))
def test_chunks_are_the_set_in_order(one: set[int], count: int) -> None:
    pieces = list(UidSet.from_uids(one).chunks(count))

    assert all(0 < len(piece) <= count for piece in pieces)
    assert all(len(piece) == count for piece in pieces[:-1])
    assert [uid for piece in pieces for uid in piece] == sorted(one)


@pytest.mark.parametrize("wire", [b"", b"*", b"1:*", b"0", b"1,,2", b"a", b"4294967296", b"1:2:3", b" 1", b"1\n"])
def test_what_is_no_set_of_uids_is_refused(wire: bytes) -> None:
    with pytest.raises(ValueError, match="UID"):
        UidSet.parse(wire)


def test_a_backward_stretch_on_the_wire_is_the_same_stretch() -> None:
    assert UidSet.parse(b"9:3") == UidSet.from_ranges([(3, 9)])


def test_a_mailbox_without_gaps_costs_one_pair() -> None:
    assert UidSet.from_uids(range(1, 1_000_001)).ranges == ((1, 1_000_000),)
