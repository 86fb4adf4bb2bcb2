"""What a prune does with each pack is decided from values, and these are all there is to know."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from backupd.repository.planning import Limits, PackUse, Plan, plan


@st.composite
def uses(draw: st.DrawFn) -> list[PackUse]:
    sizes = draw(st.lists(st.integers(1, 1000), max_size=40))
    return [PackUse(number, size, draw(st.integers(0, size))) for number, size in enumerate(sizes)]


LIMITS = st.builds(
    Limits,
    fewest=st.integers(1, 10),
    small=st.sampled_from([0, 100, 500, 2000]),
    max_unused=st.sampled_from([0, 0.0, 0.05, 0.5, 300, 10**9]),
    max_repack=st.none() | st.integers(0, 5000),
)


def moved(packs: list[PackUse], found: Plan) -> list[PackUse]:
    return [pack for pack in packs if pack.number in {*found.small, *found.partly}]


@given(uses(), LIMITS)
def test_what_nothing_needs_goes_and_nothing_else(packs: list[PackUse], limits: Limits) -> None:
    found = plan(packs, limits)
    assert sorted(found.gone) == [pack.number for pack in packs if not pack.needed]
    every = [*found.gone, *found.small, *found.partly]
    assert len(every) == len(set(every))


@given(uses(), LIMITS)
def test_no_more_is_moved_than_may_be(packs: list[PackUse], limits: Limits) -> None:
    if limits.max_repack is not None:
        assert sum(pack.needed for pack in moved(packs, plan(packs, limits))) <= limits.max_repack


@given(uses(), LIMITS)
def test_what_stays_unused_is_what_may_be_or_it_says_so(packs: list[PackUse], limits: Limits) -> None:
    found = plan(packs, limits)
    staying = [pack for pack in packs if pack.needed and pack not in moved(packs, found)]
    assert found.unused == sum(pack.unused for pack in staying)
    needed = sum(pack.needed for pack in packs)
    most = limits.max_unused if isinstance(limits.max_unused, int) else limits.max_unused * needed
    assert found.over == (found.unused > most)
    assert not (found.over and limits.max_repack is None)


@given(uses(), LIMITS)
def test_the_emptiest_packs_are_moved_and_no_more_of_them_than_it_takes(packs: list[PackUse], limits: Limits) -> None:
    limits = limits._replace(max_repack=None)
    found = plan(packs, limits)
    partly = [packs[number] for number in found.partly]
    staying = [pack for pack in packs if pack.needed and pack not in moved(packs, found)]
    shares = [pack.unused / pack.size for pack in partly]
    assert shares == sorted(shares, reverse=True)
    assert not partly or not staying or shares[-1] >= max(pack.unused / pack.size for pack in staying)
    if partly:  # without the last of them it would not have been enough
        needed = sum(pack.needed for pack in packs)
        most = limits.max_unused if isinstance(limits.max_unused, int) else limits.max_unused * needed
        assert found.unused + partly[-1].unused > most


@given(uses(), LIMITS)
def test_small_packs_are_joined_when_there_are_enough_of_them(packs: list[PackUse], limits: Limits) -> None:
    found = plan(packs, limits)
    small = [pack.number for pack in packs if pack.needed and pack.size < limits.small]
    assert set(found.small) <= set(small)
    if len(small) < limits.fewest:
        assert found.small == []
    elif limits.max_repack is None:
        assert sorted(found.small) == small


@given(uses(), LIMITS, st.randoms(use_true_random=False))
def test_two_machines_decide_the_same(packs: list[PackUse], limits: Limits, chance: object) -> None:
    other = list(packs)
    chance.shuffle(other)  # type: ignore[attr-defined]
    assert plan(other, limits) == plan(packs, limits)


def test_a_hundred_thousand_packs_are_decided_on_at_once() -> None:
    """An account that was backed up every quarter of an hour for three years, and never pruned."""
    packs = [PackUse(number, 1000 + number % 7, 900) for number in range(100_000)]
    assert len(plan(packs, Limits(small=2000)).small) == 100_000
