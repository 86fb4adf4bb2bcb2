"""Names of a folder are put in order, and notes found, without being held in memory."""

from __future__ import annotations

import os
from contextlib import closing

from hypothesis import given, strategies

from backupd.sources.local.scratch import Listing, Table, natural

NAMES = strategies.binary(max_size=12).map(lambda octets: os.fsdecode(octets.translate(None, b"\0/")))


@given(strategies.lists(strategies.integers(0, 10**12), unique=True))
def test_numbers_in_names_are_compared_as_numbers(numbers: list[int]) -> None:
    with closing(Listing(("cur", f"{number}.host:2,S") for number in numbers)) as listing:
        assert [name for _, name in listing] == [f"{number}.host:2,S" for number in sorted(numbers)]


@given(strategies.sets(strategies.tuples(strategies.sampled_from(["cur", "new"]), NAMES)))
def test_any_name_comes_back_once_and_is_known(names: set[tuple[str, str]]) -> None:
    with closing(Listing(names)) as listing:
        assert sorted(listing) == sorted(names)
        assert all(each in listing for each in names)
        assert ("tmp", "x") not in listing


def test_of_two_rows_with_one_name_the_last_counts() -> None:
    with closing(Table([(b"a", b"1"), (b"b", b"2"), (b"a", b"3")])) as table:
        assert (table.get(b"a"), table.get(b"b"), table.get(b"c")) == (b"3", b"2", None)


def test_names_sort_by_their_numbers() -> None:
    assert sorted([b"10-a", b"9-b", b"x", b"9"], key=natural) == [b"9", b"9-b", b"10-a", b"x"]
