"""One thing, and more than one."""

from __future__ import annotations

import pytest

from backupd.operations.counting import count


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 packs"), (1, "1 pack"), (2, "2 packs"), (1234567, "1,234,567 packs")]
)
def test_numbers_of_things(number: int, said: str) -> None:
    assert count(number, "pack") == said


def test_a_plural_of_its_own() -> None:
    assert (count(1, "entry", "entries"), count(2, "entry", "entries")) == ("1 entry", "2 entries")
