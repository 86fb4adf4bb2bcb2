"""A daemon in every state at once, without a daemon: what the status, the metrics and the dashboard are made from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from backupd.daemon.board import Board
from backupd.daemon.report import Facts, LastAudit, Queue
from backupd.operations import standing
from backupd.operations.costs import Costs, Daily
from backupd.operations.standing import Standing
from backupd.operations.state import Run, State
from backupd.repository.snapshots import Loss

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
ACCOUNTS = ("fine", "failing", "held", "running", "waiting", "watched", "never", "lossy", "manual")


def kept(state: State, account: str, ago: timedelta = MINUTE, **more: object) -> None:
    """Have the state know of a good run of the account so long ago."""
    began, ended = (NOW - ago).isoformat(), (NOW - ago + timedelta(seconds=3)).isoformat()
    known = {
        "snapshot": f"20261128T115900000Z-{account}", "time": began, "complete": True, "messages": 1000,
        "octets": 50_000_000, "proved": began, "whole": began,
        "last_run": Run(account, began, ended, "stored", f"20261128T115900000Z-{account}"),
    }  # fmt: skip
    standing.keep(state, account, Standing("00" * 16, **(known | more)))  # type: ignore[arg-type]


def board() -> Board:
    """All accounts and jobs."""
    made = Board()
    made.set_accounts(dict.fromkeys(ACCOUNTS, "every 15 minutes") | {"watched": "continuous"})
    made.update("fine", next_run=NOW + 14 * MINUTE, runs=4, new_messages=12, downloaded=90_000)
    made.update(
        "failing", failures=3, failing_since=NOW - 2 * HOUR, cause="login", next_run=NOW + HOUR, failed_runs=3,
        error="mail.example.com:993: the server refused the login of failing (check username and password)",
    )  # fmt: skip
    made.update("held", held_until=NOW + 10 * MINUTE, held_for="throttled", throttled_seconds=700.0)
    made.update("running", running_since=NOW - 3 * MINUTE, planned=2000, messages=500, octets=10_000_000)
    made.update("waiting", next_run=NOW - MINUTE)
    made.update("watched", watching="idle", next_run=NOW + 15 * MINUTE)
    made.set_jobs(["prune", "copy"])
    made.update_job(
        "copy", last_run=NOW - HOUR, last_good=NOW - HOUR, seconds=12.5, outcome="ok", text="3 objects copied",
        next_run=NOW + HOUR,
    )  # fmt: skip
    made.update_job("prune", last_run=NOW - 9 * HOUR, seconds=1.0, outcome="failed", text="no space left")
    return made


def facts(folder: Path, *, made: Board | None = None) -> Facts:
    """Facts of all of it, with a state in this folder; whoever made them closes `state`."""
    state, shown = State(folder), made or board()
    for name in set(ACCOUNTS) - {"never", "lossy", "manual"}:
        kept(state, name)
    kept(state, "failing", 3 * HOUR, problems=2, complete=False)
    kept(state, "lossy", losses=[Loss(b"INBOX", "INBOX", 100, 90, "20261128T110000000Z-pinned")])
    kept(state, "manual", 2 * MINUTE)
    requests = {"writes": 3, "listings": 2, "reads": 1}
    objectives = dict.fromkeys(ACCOUNTS, HOUR) | {"manual": None}
    return Facts(
        board=lambda: shown,
        state=state,
        objectives=lambda: objectives,
        stored=lambda: Costs("s3://backup/mail", 12, 200_000_000, Daily(requests, None, 0)),
        queue=lambda: Queue(1, 60.0),
        tokens=lambda: {"fine": NOW + timedelta(days=30)},
        audits=_audits,
        clock=lambda: NOW,
        up=(30 * HOUR).total_seconds,
    )


def _audits() -> Sequence[LastAudit]:
    return [LastAudit("metadata", NOW - 7 * HOUR, 0, 3.0), LastAudit("storage", NOW - 80 * HOUR, 1, 300.0)]
