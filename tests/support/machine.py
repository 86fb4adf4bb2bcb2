"""A machine of its own on this one: a Debian in a container, in which systemd is process 1 and units really run.

It has this machine's network, and so reaches the test servers on 127.0.0.1. Limits of control groups are not enforced
in every place such tests run, so none is tested. Needs root, and the tree of machine_tree.py.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from tests.support import machine_tree

BOOT_SECONDS = 60.0
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Machine:
    """Boots at once. What is changed in it stays until `close`, also over a power cut.

    Args:
        state: a folder for what it changes.
        bound: (here, there): folders of this machine that it sees, and cannot change.
    """

    def __init__(self, state: Path, bound: Iterable[tuple[Path, str]] = ()) -> None:
        self.root = state / "root"
        self._state, self._bound = state, tuple(bound)
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("root", "upper", "work"):
            (state / name).mkdir(parents=True)
        options = f"lowerdir={machine_tree.TREE},upperdir={state / 'upper'},workdir={state / 'work'}"
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, self.root], check=True)
        try:
            self.boot()
        except BaseException:
            self.close()
            raise

    def boot(self) -> None:
        """Switch it on, and wait until systemd has started all there is to start."""
        bound = [f"--bind-ro={here}:{there}" for here, there in self._bound]
        with (self._state / "console").open("ab") as console:
            self._process = subprocess.Popen(
                ["systemd-nspawn", "--quiet", f"--directory={self.root}", f"--machine=backupd-{os.getpid()}",
                 "--register=no", "--keep-unit", "--boot", "--console=pipe", *bound],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, start_new_session=True,
            )  # fmt: skip
        self.until(lambda: self.run("systemctl", "is-system-running", check=False) in ("running", "degraded"))

    def run(self, *command: str | Path, stdin: str = "", check: bool = True) -> str:
        """Run a command in it as root; what it printed, stripped. check: it must succeed."""
        done = self.try_to_run(*command, stdin=stdin)
        assert done.returncode == 0 or not check, f"{command}: exit {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def try_to_run(self, *command: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it as root."""
        first = self._first()
        enter = ["nsenter", "-t", str(first), "-m", "-u", "-i", "-n", "-p", "-C", "--"] if first else ["false"]
        clean = ["env", "-i", f"PATH={_PATH}", "LANG=C.UTF-8", "SYSTEMD_PAGER="]
        return subprocess.run(
            [*enter, *clean, *map(str, command)], input=stdin, capture_output=True, text=True, check=False, timeout=120
        )

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--property", name, "--value", unit)

    def journal(self, unit: str) -> str:
        """What a unit has said since the machine was made."""
        return self.run("journalctl", "--no-pager", "--output=short-precise", "--unit", unit)

    def file(self, path: str) -> Path:
        """A file of the machine, from outside."""
        return self.root / path.lstrip("/")

    def until(self, event: Callable[[], bool], seconds: float = BOOT_SECONDS) -> float:
        """Wait for an event in the machine; the seconds it took."""
        began = time.monotonic()
        while not event():
            assert self._process is not None
            assert self._process.poll() is None, f"the machine has ended:\n{self.console()}"
            assert time.monotonic() - began < seconds, f"it never came:\n{self.console()}"
            time.sleep(0.05)
        return time.monotonic() - began

    def console(self) -> str:
        """The end of what it said on its console."""
        return (self._state / "console").read_text(errors="replace")[-3000:]

    def power_cut(self) -> None:
        """Its power goes: nothing in it does anything more. `boot` switches it on again."""
        if first := self._first():
            with contextlib.suppress(ProcessLookupError):
                os.kill(first, signal.SIGKILL)
        if self._process:
            self._process.wait(30)
        self._process = None

    def close(self) -> None:
        """Switch it off for good."""
        try:
            self.power_cut()
        finally:
            subprocess.run(["umount", "--lazy", self.root], check=False)

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _first(self) -> int | None:
        """Its process 1, as this machine counts."""
        if self._process is None or self._process.poll() is not None:
            return None
        pid = self._process.pid
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        except FileNotFoundError:
            return None
        return int(children[0]) if children else None
