"""How samples become figures on a page."""

from __future__ import annotations

import pytest

from bench.figures import Comparison, Sample, between, compare, highest, octets, rates, ratio, rows, seconds, table


def _walls(contestant: str, *values: float, work: str = "first", mailbox: str = "bulk") -> list[Sample]:
    return [Sample(mailbox, work, contestant, "wall", value) for value in values]


def test_a_figure_is_the_median_of_its_rounds() -> None:
    (row,) = rows(_walls("ours", 9.0, 1.0, 2.0))
    assert row.medians == {"ours": 2.0}


def test_works_stand_in_the_order_in_which_they_were_done_and_measures_in_theirs() -> None:
    samples = [
        Sample("bulk", "second", "ours", "stored", 5),
        Sample("bulk", "first", "ours", "wall", 1),
        Sample("bulk", "second", "ours", "wall", 1),
    ]
    assert [(row.work, row.measure) for row in rows(samples)] == [
        ("second", "wall"),
        ("second", "stored"),
        ("first", "wall"),
    ]


@pytest.mark.parametrize(
    ("value", "base", "shown"), [(25, 1, "25 x"), (8.44, 1, "8.4 x"), (1, 4, "0.25 x"), (1, 0, "-")]
)
def test_a_ratio_has_no_more_figures_than_the_noise_allows(value: float, base: float, shown: str) -> None:
    assert ratio(value, base) == shown


def test_figures_are_written_in_units_a_person_reads() -> None:
    assert [seconds(value) for value in (0.123, 12.34, 123.4)] == ["0.12 s", "12.3 s", "123 s"]
    assert [octets(value) for value in (7, 1_500, 250_000_000, 1_500_000_000)] == ["7 B", "1.5 kB", "250 MB", "1.50 GB"]


def test_beside_each_figure_stands_how_many_times_that_of_the_first_contestant_it_is() -> None:
    shown = table(rows(_walls("ours", 2.0) + _walls("theirs", 16.0)), ["ours", "theirs", "absent"])
    assert shown.splitlines()[-1] == "| first | wall | 2.00 s | 16.0 s (8.0 x) |  |"


def test_a_figure_stands_alone_where_the_first_contestant_has_none() -> None:
    shown = table(rows(_walls("theirs", 16.0)), ["ours", "theirs"])
    assert shown.splitlines()[-1] == "| first | wall |  | 16.0 s |"


def test_every_line_of_a_table_has_as_many_cells() -> None:
    samples = _walls("ours", 2.0) + _walls("theirs", 16.0, work="second")
    lines = table(rows(samples), ["ours", "theirs"]).splitlines()
    assert {line.count("|") for line in lines} == {5}


def test_a_summary_has_a_column_for_each_mailbox_and_is_empty_where_nothing_was_measured() -> None:
    samples = _walls("ours", 2.0) + _walls("theirs", 16.0) + _walls("ours", 3.0, mailbox="large")
    shown = compare(samples, [Comparison("theirs by ours", "first", "wall", "theirs", "ours")])
    assert shown.splitlines() == ["| | bulk | large |", "|---|---:|---:|", "| theirs by ours | 8.0 x |  |"]


def test_a_rate_is_of_the_median_round() -> None:
    line = rates(_walls("ours", 9.0, 1.0, 2.0), "ours", "first", {"bulk": 5000})
    assert line.endswith("| 2,500 |\n")
    assert rates(_walls("ours", 1.0), "theirs", "first", {"bulk": 5000}) == ""


def test_the_highest_memory_is_that_of_the_worst_round_not_the_median() -> None:
    samples = [Sample("bulk", work, "ours", "peak", value) for work, value in (("a", 1e6), ("a", 9e6), ("b", 2e6))]
    assert "| 9.0 MB |" in highest(samples, "ours")
    assert highest(samples, "theirs") == ""


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    assert between("before [ old ] after", "[", "]", "new") == "before [\n\nnew\n\n] after"


@pytest.mark.parametrize("page", ["no markers", "[ only one", "] wrong order [", "[ ] [ ]"])
def test_a_page_without_its_markers_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="once"):
        between(page, "[", "]", "new")
