"""What is drawn while an operation is under way."""

from __future__ import annotations

import io

import pytest

from backupd.cli import progress
from backupd.cli.context import Context
from backupd.operations.events import Advance, Notice, Plan


class Terminal(io.StringIO):
    """Standard error that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_account_mailbox_messages_and_octets(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TERM", "xterm")
    ticks = iter(range(1, 99))
    display = progress.Display(clock=lambda: next(ticks))
    with display.progress:
        display.observe(Plan("alice", 10))
        display.observe(Advance("alice", "INBOX\x1b[2J[bold]", 3, 3_000_000))
        display.observe(Notice("alice", "warning", "slow \x1b]0;title\x07"))
    drawn = terminal.getvalue()
    for part in ("alice", "INBOX\\x1b[2J[bold]", "3/10", "3.0 MB", "B/s", "slow \\x1b]0;title\\x07"):
        assert part in drawn
    assert "\x1b[2J" not in drawn


def test_more_than_was_planned_is_never_more_than_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", Terminal())
    display = progress.Display()
    display.observe(Plan("alice", 10, 100))
    display.observe(Advance("alice", "INBOX", 12, 150))
    display.draw(final=True)
    (task,) = display.progress.tasks
    assert (task.completed, task.total) == (150, 150)


def test_without_a_terminal_only_warnings_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown(Context(quiet=True)) as observe:
        observe(Plan("alice", 10))
        observe(Advance("alice", "INBOX", 1, 1))
        observe(Notice("alice", "note", "a note"))
        observe(Notice("alice", "warning", "a warning"))
    assert capsys.readouterr().err == "backupd: alice: a warning\n"
