"""Some of the ten thousand harms of `python -m bench damage`: what audits claim to see they see, and place rightly;
and no repair makes anything worse, or claims too much."""

from __future__ import annotations

import pytest

from bench.damage import CELLS, CLAIMS, CONTENT, STORAGE, trials, whole
from bench.damaged import KINDS, OBJECTS

ROUNDS = 3


@pytest.mark.parametrize("part", range(4))
def test_what_audits_claim_to_see_they_see_and_place_rightly(part: int) -> None:
    seeds = [seed for seed in range(1_000_000, 1_000_000 + ROUNDS * len(CELLS)) if seed % 4 == part]

    found = trials(seeds)

    assert len(found) > 0.8 * len(seeds)
    assert [(each.object, each.what, each.unseen) for each in found if each.unseen] == []
    assert [(each.object, each.what, each.misplaced) for each in found if each.misplaced] == []
    assert sum(each.lost > 0 for each in found) > 5
    healings = [(each.what, one) for each in found for one in each.healings]
    assert [(what, one.help, one.wrong) for what, one in healings if one.wrong] == []
    assert all(one.healed for each in found if each.object in ("pack", "snapshot") for one in each.healings[:1])


def test_the_repository_that_is_harmed_has_a_past_of_every_kind() -> None:
    assert len(whole()) > 100
    assert {kind for kind, _ in CELLS} == set(KINDS)
    assert CLAIMS[CONTENT]["pack"] >= CLAIMS[STORAGE]["pack"] | {"removed"}
    assert set(CLAIMS[CONTENT]) == set(OBJECTS)
