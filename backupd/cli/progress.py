"""Progress of long operations on a terminal: per account the mailbox, messages, octets, rate and time left.

Without a terminal, or with --quiet, nothing is drawn: warnings come as plain lines, and all else is in the summary.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import Context
from backupd.operations.events import Advance, Event, Observer, Plan

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_EVERY_SECONDS = 0.1
_RATE_SECONDS = 5.0


@contextmanager
def shown(context: Context) -> Iterator[Observer]:
    """An observer that shows what it is told as long as this lasts."""
    if context.quiet or not sys.stderr.isatty():
        yield _plain(context)
        return
    display = Display()
    with display.progress:
        try:
            yield display.observe
        finally:
            display.draw(final=True)


def _plain(context: Context) -> Observer:
    def observe(event: Event) -> None:
        if not isinstance(event, Plan | Advance) and (event.severity == "warning" or not context.quiet):
            output.remark(f"{event.account}: {event.text}")

    return observe


class _Account:
    """What is known of one account's work."""

    def __init__(self, task: TaskID) -> None:
        self.task = task
        self.mailbox = ""
        self.messages = self.octets = 0
        self.plan: Plan | None = None
        self._seen: deque[tuple[float, int]] = deque()

    def rate(self, now: float) -> str:
        """Octets a second over the last seconds, as text; empty as long as there is nothing to tell."""
        self._seen.append((now, self.octets))
        while now - self._seen[0][0] > _RATE_SECONDS:
            self._seen.popleft()
        since, octets = self._seen[0]
        return f"{output.size(int((self.octets - octets) / (now - since)))}/s" if now > since else ""


class Display:
    """Counts in its own numbers and draws ten times a second: operations advance thousands of times in one."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.progress = _progress()
        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._lock = threading.Lock()
        self._drawn = 0.0

    def observe(self, event: Event) -> None:
        with self._lock:
            account = self._account(event.account)
            if isinstance(event, Plan):
                account.plan = event
            elif isinstance(event, Advance):
                account.mailbox = event.mailbox
                account.messages += event.messages
                account.octets += event.octets
            else:
                self.progress.console.print(output.clean(f"{event.account}: {event.text}"))
            due = self._clock() - self._drawn >= _EVERY_SECONDS
        if due:
            self.draw()

    def _account(self, name: str) -> _Account:
        if name not in self._accounts:
            task = self.progress.add_task(output.clean(name), total=None, mailbox="", messages="", octets="", rate="")
            self._accounts[name] = _Account(task)
        return self._accounts[name]

    def draw(self, *, final: bool = False) -> None:
        """Bring what is shown up to date."""
        with self._lock:
            self._drawn = self._clock()
            for account in self._accounts.values():
                plan = account.plan
                by_octets = bool(plan and plan.octets)
                total = (plan.octets if by_octets else plan.messages) if plan else None
                self.progress.update(
                    account.task,
                    # A plan is an estimate: what is done is never more than all there is.
                    total=max(total or 0, account.octets if by_octets else account.messages) if plan else None,
                    completed=account.octets if by_octets else account.messages,
                    mailbox="" if final else output.clean(account.mailbox),
                    messages=f"{account.messages:,}" + (f"/{plan.messages:,}" if plan and plan.messages else ""),
                    octets=output.size(account.octets),
                    rate=account.rate(self._drawn),
                )


def _progress() -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    return Progress(
        TextColumn("{task.description}", markup=False, style="bold", table_column=Column(no_wrap=True)),
        TextColumn(
            "{task.fields[mailbox]}",
            markup=False,
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1, min_width=5),
        ),
        BarColumn(bar_width=12),
        TextColumn("{task.fields[messages]}", markup=False, justify="right", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[octets]}", markup=False, justify="right", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[rate]}", markup=False, justify="right", table_column=Column(no_wrap=True)),
        TimeRemainingColumn(compact=True),
        console=output.console(error=True),
        transient=True,
        expand=True,
    )
