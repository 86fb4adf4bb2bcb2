"""The convention of monitoring plugins (Nagios, Icinga, Checkmk ...): a first line, performance data, exit codes.

    BACKUPD OK - metadata: 12 accounts, 345 snapshots, 3.2 MB read, nothing amiss | age=812s;;3600;0 problems=0;;;0

Whatever keeps a check from judging is UNKNOWN, a mistake on the command line or in the configuration too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.errors import BackupdError

if TYPE_CHECKING:
    from backupd.operations.audit_report import AuditReport, Finding

OK, WARNING, CRITICAL, UNKNOWN = 0, 1, 2, 3
CODES = {"ok": OK, "warning": WARNING, "critical": CRITICAL, "unknown": UNKNOWN}

_PLUGINS = frozenset({"audit"})
_TAKING_A_VALUE = frozenset({"--config", "--copy"})
_LONGEST = 300
"""Characters of what the line says: old transports cut a line at 1,024 octets, performance data and all."""


def is_plugin(tokens: Sequence[str]) -> bool:
    """Whether these are the arguments of a command that a monitor calls."""
    words = iter(tokens)
    for word in words:
        if word in _TAKING_A_VALUE:
            next(words, None)
        elif not word.startswith("-"):
            return word in _PLUGINS
    return False


def first_line(report: AuditReport) -> str:
    """The line of a report, with performance data."""
    said = f"BACKUPD {report.outcome.upper()} - {_shortened(_said(report))}"
    return f"{said} | {' '.join(_performance(report))}"


def unknown(error: BackupdError) -> str:
    """The line of an error that keeps the check from judging."""
    return f"BACKUPD UNKNOWN - {_shortened(str(error))}"


def _said(report: AuditReport) -> str:
    from backupd.operations.audit_report import LEVELS

    checked = report.checked
    parts = [output.count(len(report.accounts), "account")] if report.accounts else []
    parts += [output.count(checked.snapshots, "snapshot")] if checked.snapshots else []
    parts += [f"{output.size(checked.octets)} read"] if checked.octets else []
    drills = [each.drill for each in report.accounts if each.drill]
    parts += [f"{output.count(sum(each.messages for each in drills), 'message')} restored"] if drills else []
    grave = sorted(
        (each for each in report.findings if each.severity != "note"),
        key=lambda each: (("critical", "warning", "unknown").index(each.severity), LEVELS.index(each.level)),
    )
    if not grave:
        return f"{report.level}: {', '.join([*parts, 'nothing amiss'])}"
    return f"{report.level}: {output.count(len(grave), 'problem')}: {'; '.join(_told(each) for each in grave[:3])}"


def _told(finding: Finding) -> str:
    return f"{finding.subject}: {finding.what}"


def _shortened(text: str) -> str:
    """One line without the character that begins performance data."""
    text = " ".join(output.clean(text).split()).replace("|", "/")
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."


def _performance(report: AuditReport) -> Iterator[str]:
    """label=value[unit];warning;critical;minimum;maximum. What was not looked at has no value, not even 0."""
    known = [each.status for each in report.accounts if each.status and each.status.age is not None]
    ages = [(each.age or 0.0, each.objective) for each in known]
    if ages:
        # The account that is nearest to its objective, or furthest beyond it.
        age, objective = max(ages, key=lambda each: (each[0] / each[1] if each[1] else 0.0, each[0]))
        yield f"age={age:.0f}s;;{objective or 0:.0f};0" if objective else f"age={age:.0f}s;;;0"
    if report.level != "freshness":
        yield f"checked={report.checked.octets}B;;;0"
    yield f"problems={report.problems};;;0"
    if report.role != "auditor":
        yield f"accounts={len(report.accounts)};;;0"
        if report.level != "freshness":
            yield f"snapshots={report.checked.snapshots};;;0"
    if report.coverage and report.coverage.octets:
        yield f"coverage={100 * report.coverage.proved / report.coverage.octets:.1f}%;;;0;100"
    drills = [each.drill for each in report.accounts if each.drill]
    if drills:
        yield f"recovery={max(each.total_seconds for each in drills):.1f}s;;;0"
