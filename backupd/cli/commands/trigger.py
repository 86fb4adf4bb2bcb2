"""`backupd trigger`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from backupd.cli import output
from backupd.cli.context import INTERRUPTED, Context, Here
from backupd.errors import BackupdError, NoDaemon

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping

    from backupd.daemon.control import Control
    from backupd.daemon.report import AccountReport, Report
    from backupd.operations.events import Observer

FAILED = 1
INCOMPLETE = 3
LOOK_SECONDS = 0.5


def command(*accounts: str, wait: bool = False, context: Here) -> int:
    """Have the daemon back up accounts now, whatever their schedule; also while they are held, and in quiet hours.

    Parameters
    ----------
    accounts
        Their names in the configuration; none means all.
    wait
        Wait until it is done; the exit code is then that of the runs: 1 when one failed, 3 when some mail could not be
        read.
    """
    from backupd.daemon.control import Control

    context.not_at_a_copy("trigger")
    names = list(dict.fromkeys(accounts))
    for name in names:
        context.config.account(name)
    control = Control(Path(context.config.state_dir))
    runs = control.trigger(names).runs
    if wait:
        return _wait(context, control, runs)
    if context.json:
        output.document({"triggered": list(runs)})
    context.say(f"{output.count(len(runs), 'account')} will be backed up; backupd status shows how it goes")
    return 0


def _wait(context: Context, control: Control, runs: Mapping[str, int]) -> int:
    from backupd.cli.progress import shown

    with shown(context) as observer, context.stopping() as stop:
        done = _Following(control, runs, observer).until(stop)
    code = _exit_code(done) if len(done) == len(runs) else INTERRUPTED
    if context.json:
        documents = [{"account": name, **_outcome(account)} for name, account in done.items()]
        output.document({"runs": documents, "exit_code": code})
    for name, account in done.items():
        if account.now.failures:
            output.remark(f"{name}: {account.now.error}")
        elif account.problems:
            output.remark(f"{name}: {output.count(account.problems, 'problem')}; the log and backupd ls tell which")
        else:
            context.say(f"{name}: {output.count(account.messages, 'message')}, backed up")
    return code


class _Following:
    """Looks at the daemon until all runs that were asked for have ended."""

    def __init__(self, control: Control, runs: Mapping[str, int], observer: Observer) -> None:
        self._control, self._observer = control, observer
        self._ahead = dict(runs)
        self._pid: int | None = None
        self._seen: dict[str, tuple[int, int]] = {}

    def until(self, stop: threading.Event) -> dict[str, AccountReport]:
        """How the accounts stand whose runs have ended when all have, or when we are to stop.

        Raises BackupdError where the daemon or an account goes away meanwhile.
        """
        done: dict[str, AccountReport] = {}
        while True:
            report = self._look()
            found = {account.account: account for account in report.accounts}
            for name, count in list(self._ahead.items()):
                if (account := found.get(name)) is None:
                    raise BackupdError("the account is no longer in the daemon's configuration", subject=name)
                if account.now.runs + account.now.failed_runs >= count:
                    done[name] = account
                    del self._ahead[name]
                else:
                    self._tell(account)
            if not self._ahead or stop.wait(LOOK_SECONDS):
                return done

    def _look(self) -> Report:
        report = self._control.status(list(self._ahead))
        pid = report.daemon.pid if report.daemon else None
        if self._pid is not None and pid != self._pid:
            raise NoDaemon("the daemon was started anew meanwhile", remedy="its schedule goes on; or trigger once more")
        self._pid = pid
        return report

    def _tell(self, account: AccountReport) -> None:
        from backupd.operations.events import Advance, Plan

        live = account.now
        if live.running_since is None:
            return
        messages, octets = self._seen.get(account.account, (0, 0))
        if live.messages >= messages:  # else it is another run
            self._observer(Plan(account.account, live.planned))
            self._observer(Advance(account.account, "", live.messages - messages, max(0, live.octets - octets)))
            self._seen[account.account] = (live.messages, live.octets)


def _outcome(account: AccountReport) -> dict[str, object]:
    live = account.now
    error = {"error": live.error, "cause": live.cause} if live.failures else {}
    return {
        "outcome": "failed" if live.failures else "done",
        "snapshot": account.snapshot,
        "messages": account.messages,
        "problems": account.problems,
        **error,
    }


def _exit_code(done: Mapping[str, AccountReport]) -> int:
    if any(account.now.failures for account in done.values()):
        return FAILED
    return INCOMPLETE if any(account.problems for account in done.values()) else 0
