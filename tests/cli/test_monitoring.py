"""The first line of an audit: what was not looked at has no value in it."""

from __future__ import annotations

import pytest

from backupd.cli import monitoring
from backupd.operations.audit_report import AuditedAccount, AuditReport, Checked, Level
from backupd.repository.keys import Role


def labels(level: Level, role: Role, checked: Checked) -> list[str]:
    """Labels of the performance data of an audit of an account of which nothing is known yet."""
    accounts = [] if role is Role.AUDITOR else [AuditedAccount("alice", 0)]
    now = "2026-11-29T12:00:00Z"
    report = AuditReport("/srv/mail", "", role, level, now, now, "ok", accounts, checked, None, [], [], 0, [])
    said, bar, data = monitoring.first_line(report).partition(" | ")
    assert said
    assert bar
    found = [each.partition("=") for each in data.split()]
    assert all(value.split(";")[0] for _, _, value in found)
    return [label for label, *_ in found]


@pytest.mark.parametrize(
    ("level", "role", "checked", "expected"),
    [
        (Level.FRESHNESS, Role.WRITER, Checked(), ["problems", "accounts"]),
        (Level.METADATA, Role.WRITER, Checked(octets=1), ["checked", "problems", "accounts", "snapshots"]),
        (Level.STORAGE, Role.AUDITOR, Checked(octets=1), ["checked", "problems"]),
    ],
)
def test_performance_data_tells_what_was_looked_at(
    level: Level, role: Role, checked: Checked, expected: list[str]
) -> None:
    assert labels(level, role, checked) == expected
