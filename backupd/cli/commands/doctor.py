"""`backupd doctor`."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Here

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

_MARKS = {"ok": "ok      ", "warning": "WARNING ", "problem": "PROBLEM "}
_STYLES = {"ok": "green", "warning": "yellow", "problem": "red"}


def command(*, context: Here) -> int:
    """Check configuration, logins, TLS, capabilities, repository and clock, and say what to mend.

    Changes nothing, but stores a few bytes below probe/ in a bucket to see what it does with them.

    The exit code is 1 when something must be mended; warnings do not count.
    """
    from rich.text import Text

    from backupd.cli.patient import patient
    from backupd.operations.doctor import doctor

    console = output.console()
    findings = []
    for finding in doctor(patient(context), now=lambda: datetime.now(UTC)):
        findings.append(finding)
        if context.json or (context.quiet and finding.level == "ok"):
            continue
        mark = Text(_MARKS[finding.level], style=_STYLES[finding.level])
        console.print(_indented(mark, Text(output.clean(f"{finding.subject}: {finding.what}"))))
        if finding.remedy:
            console.print(_indented(Text(), Text(output.clean(f"-> {finding.remedy}"), style="bold")))
    counts = Counter(finding.level for finding in findings)
    code = 1 if counts["problem"] else 0
    if context.json:
        output.document({"findings": findings, "exit_code": code})
    context.say()
    context.say(
        f"{output.count(counts['problem'], 'problem')}, {output.count(counts['warning'], 'warning')}, "
        f"{counts['ok']:,} checks passed"
    )
    return code


def _indented(mark: Text, text: Text) -> Table:
    """A mark and a text beside it, which keeps its indent where it is wrapped."""
    from rich.table import Table

    grid = Table.grid()
    grid.add_column(min_width=len(_MARKS["ok"]))
    grid.add_column()
    grid.add_row(mark, text)
    return grid
