"""The cron example: schedules that cron understands, and commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from backupd.cli.app import make_app
from backupd.cli.context import Context
from backupd.config.times import schedule

EXAMPLE = Path(__file__).parents[2] / "docs/backupd.cron"
LINES = [line.removeprefix("# ") for line in EXAMPLE.read_text().splitlines() if re.match(r"(?:# )?[\d*]", line)]


def command_of(line: str) -> list[str]:
    """The words that cron runs. An unescaped "%" would end the command."""
    command = line.split(maxsplit=6)[6]
    assert not re.search(r"(?<!\\)%", command)
    return shlex.split(command.replace("\\%", "%"))


def test_there_is_something_in_it() -> None:
    assert [command_of(line)[1] for line in LINES] == ["backup", "forget", "prune", "audit", "copy"]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[7])
def test_each_line_says_when_who_and_what(line: str) -> None:
    fields = line.split(maxsplit=6)
    assert schedule(" ".join(fields[:5]))
    assert fields[5] == "backupd"
    program, *words = command_of(line)
    assert program == "backupd"
    parsed: list[Context] = []

    def parse(context: Context, app: object, tokens: list[str]) -> int:
        app.parse_args(tokens, exit_on_error=False, print_error=False)  # type: ignore[attr-defined]
        parsed.append(context)
        return 0

    make_app(parse).meta(words, exit_on_error=False, print_error=False, result_action="return_value")
    assert parsed[0].quiet
