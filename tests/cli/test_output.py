"""Text for terminals and for programs."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.cli import output
from backupd.cli.commands.backup import exit_code
from backupd.errors import BackupdError, Busy, Interrupted, LoginRefused
from backupd.operations.backup import BackupReport


@given(st.text())
def test_nothing_that_could_steer_a_terminal_gets_through(text: str) -> None:
    cleaned = output.clean(text)
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in cleaned)
    assert not set(cleaned) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c")


@pytest.mark.parametrize(
    ("octets", "text"),
    [(0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (99_499, "99.5 kB"), (99_949, "100 kB"), (999_600, "1.0 MB")],
)
def test_sizes_are_short(octets: int, text: str) -> None:
    assert output.size(octets) == text


def test_spans_of_time_are_in_their_largest_units() -> None:
    spans = [timedelta(seconds=42), timedelta(minutes=5), timedelta(hours=3, minutes=20), timedelta(days=12)]
    assert [output.age(span) for span in spans] == ["42 s", "5 min", "3 h 20 min", "12 days"]


def test_an_odd_date_is_shown_as_it_is() -> None:
    assert output.mail_date(" 7-Jul-2026 02:44:25 +0200") == "2026-07-07 02:44"
    assert output.mail_date("yesterday") == "yesterday"


def test_raw_names_stay_readable_in_json() -> None:
    assert output.encode({"name": b"a\xff"}) == b'{"name":"a\\\\xff"}'


def report(problems: int = 0) -> BackupReport:
    counts = dict.fromkeys(
        ("mailboxes", "messages", "octets", "new", "downloaded", "recognised", "vanished", "changed", "stored"), 0
    )
    return BackupReport(
        "a", None, None, "", "", not problems, **counts, problems=[None] * problems, losses=[], notes=[]
    )  # type: ignore[arg-type, list-item]


@pytest.mark.parametrize(
    ("results", "code"),
    [
        ([], 0),
        ([report()], 0),
        ([report(), report(2)], 3),
        ([report(2), LoginRefused("no")], 1),
        ([Busy("busy"), Busy("busy")], 11),
        ([Busy("busy"), LoginRefused("no")], 1),
        ([Busy("busy"), report()], 1),
        ([report(), Interrupted("stop")], 130),
    ],
)
def test_the_exit_code_of_several_accounts_is_the_worst(results: list[BackupReport | BackupdError], code: int) -> None:
    assert exit_code(results) == code


def test_nothing_is_cut_but_what_may_be_and_the_last_column_takes_more_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(output, "_WIDE", 40)
    columns = [output.Column("ID"), output.Column("NAME", shrink=True), output.Column("STATE", shrink=True)]
    output.table(columns, [["1234567890", "a name that is long", "complete, pinned by a loss, held"]])
    text = capsys.readouterr().out
    assert "1234567890  a name that …  complete,\n" in text
    assert " ".join(text.split("complete,")[1].split()) == "pinned by a loss, held"
    dated = [*columns, output.Column("DATE")]
    output.table(dated, [["1234567890", "a name that is long", "complete", "2026-11-29 08:00"]])
    assert "1234567890  a name th…  complete  2026-11-29 08:00\n" in capsys.readouterr().out


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=8), st.integers(20, 200)
)
def test_columns_that_may_give_way_do_so_and_the_others_never(columns: list[tuple[int, bool]], width: int) -> None:
    titles = [output.Column("T", shrink=shrink) for _, shrink in columns]
    made = output.make_table(titles, [["x" * wide for wide, _ in columns]], width=width)
    widths = [column.width or 0 for column in made.columns]
    for (wide, shrink), got in zip(columns, widths, strict=True):
        assert got == wide or (shrink and got < wide)
    fits = sum(widths) + 2 * (len(columns) - 1) <= width
    assert fits or all(got <= 10 for (_, shrink), got in zip(columns, widths, strict=True) if shrink)
