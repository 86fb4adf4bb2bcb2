"""Reading ahead changes nothing but when things are made."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.operations.ahead import read_ahead


@given(st.lists(st.binary(max_size=20), max_size=30), st.integers(0, 40))
def test_the_same_items_come_in_the_same_order(items: list[bytes], limit: int) -> None:
    assert list(read_ahead(items, len, limit=limit)) == items


def test_no_more_is_made_than_the_limit_allows() -> None:
    made = 0
    taken = 0
    most = 0

    def items() -> Iterator[bytes]:
        nonlocal made, most
        for _ in range(100):
            made += 1
            most = max(most, made - taken)
            yield bytes(10)

    for _ in read_ahead(items(), len, limit=50):
        taken += 1
    assert taken == 100
    assert most <= 50 // 10 + 2  # the one being made, and the one being used


def test_an_error_comes_after_the_items_before_it() -> None:
    def items() -> Iterator[bytes]:
        yield b"first"
        raise KeyError("second")

    found = []
    with pytest.raises(KeyError):
        found.extend(read_ahead(items(), len, limit=100))
    assert found == [b"first"]


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    reader = read_ahead((bytes(10) for _ in range(1000)), len, limit=20)
    next(reader)
    reader.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
