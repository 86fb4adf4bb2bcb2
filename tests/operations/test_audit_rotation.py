"""Which share is read, and when all has been: properties of the rotation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from backupd.operations.audit_report import Finding, Level, Severity, judge
from backupd.operations.audit_rotation import Item, choose, cycle_runs, rate

sizes = st.lists(st.integers(0, 10**6), min_size=1, max_size=60)
budgets = st.floats(0.001, 1.0)


def items(some: list[int], proved: dict[int, float] | None = None) -> list[Item]:
    return [Item(f"{number:03}", size, (proved or {}).get(number)) for number, size in enumerate(some)]


@given(sizes, budgets)
def test_every_object_is_read_within_the_stated_number_of_audits(some: list[int], budget: float) -> None:
    runs = cycle_runs(some, budget)
    proved: dict[int, float] = {}
    for day in range(runs):
        for name in choose(items(some, proved), budget):
            proved[int(name)] = float(day)
    assert len(proved) == len(some)


@given(sizes, budgets, st.dictionaries(st.integers(0, 59), st.floats(0, 1e9), max_size=60))
def test_a_share_is_no_more_than_asked_for_but_never_nothing(
    some: list[int], budget: float, proved: dict[int, float]
) -> None:
    chosen = choose(items(some, proved), budget)
    octets = sum(some[int(name)] for name in chosen)
    assert chosen
    assert octets <= budget * sum(some) or len(chosen) == 1 or not octets
    assert len(set(chosen)) == len(chosen)


@given(sizes, st.dictionaries(st.integers(0, 59), st.floats(0, 1e9), max_size=60))
def test_never_comes_first_and_then_the_longest_ago(some: list[int], proved: dict[int, float]) -> None:
    order = [proved.get(int(name), -1.0) for name in choose(items(some, proved), None)]
    assert order == sorted(order)
    assert len(order) == len(some)


def test_without_a_budget_one_audit_reads_all() -> None:
    assert cycle_runs([5, 5], None) == cycle_runs([], 0.5) == 1
    assert choose([], 0.5) == []


def test_the_pace_is_the_average_of_the_latest() -> None:
    noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
    assert rate([noon]) is None
    assert rate([noon + timedelta(days=3), noon, noon + timedelta(days=1)]) == 1.5 * 86400


def test_the_gravest_counts() -> None:
    def of(*severities: Severity) -> str:
        return judge(Finding(each, Level.METADATA, "x", "y") for each in severities)

    assert of() == of(Severity.NOTE) == "ok"
    assert of(Severity.UNKNOWN, Severity.NOTE) == "unknown"
    assert of(Severity.UNKNOWN, Severity.WARNING) == "warning"
    assert of(Severity.WARNING, Severity.CRITICAL, Severity.UNKNOWN) == "critical"
