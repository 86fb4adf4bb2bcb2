"""`backupd systemd`: puts the service's files in place, and takes them away again.

What an administrator has changed is never overwritten: each file carries a checksum of itself in its first line, and
where that does not fit, or is not there, the new file is put beside it as FILE.new. Nothing is enabled or started here;
what is left to do is said (systemd_steps.py).
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from backupd.errors import BackupdError, StorageDenied, StorageError
from backupd.operations import systemd_units as units
from backupd.operations.systemd_units import File

_SECONDS = 90

Run = Callable[[Sequence[str]], str]
"""Runs a program and gives what it printed. Raises ProgramFailed."""


class ProgramFailed(BackupdError):
    """A program of the system is not there, or says no."""


class State(StrEnum):
    """How a file stands, or what became of it."""

    NEW = "new"
    SAME = "same"
    UPDATED = "updated"
    KEPT = "kept"
    REMOVED = "removed"
    ABSENT = "absent"


class Placed(msgspec.Struct, frozen=True):
    """path: where the file is or would be. beside: where the new one is, if the one in place was kept."""

    path: Path
    state: State
    beside: Path | None = None


def look(root: Path, file: File) -> State:
    """What `install` would do with this file below a root: NEW, SAME, UPDATED, or KEPT since somebody else has made it
    what it is. Raises StorageDenied, StorageError."""
    there = _read(_below(root, file.path))
    if there is None:
        return State.NEW
    if units.body(there) == file.text:
        return State.SAME
    return State.UPDATED if units.untouched(there) else State.KEPT


def plan(root: Path, files: Sequence[File]) -> list[Placed]:
    """What `install` would do. Changes nothing."""
    return [_placed(root, file, look(root, file)) for file in files]


def install(root: Path, files: Sequence[File]) -> list[Placed]:
    """Put the files in place below a root ("/" for this machine). May be done again at any time.

    Raises StorageDenied, StorageError; what was done until then stays, and the next call goes on.
    """
    return [_install(root, file) for file in files]


def _install(root: Path, file: File) -> Placed:
    state = look(root, file)
    placed = _placed(root, file, state)
    if state in (State.NEW, State.UPDATED):
        _write(placed.path, units.marked(file.text))
    elif placed.beside:
        _write(placed.beside, units.marked(file.text))
    if placed.beside is None:
        _remove(_new(placed.path))
    return placed


def uninstall(root: Path, paths: Sequence[Path]) -> list[Placed]:
    """Take away what `install` put in place and nobody has changed since. Raises StorageDenied, StorageError."""
    found = []
    for path in paths:
        path = _below(root, path)
        there = _read(path)
        _remove(_new(path))
        if there is None:
            found.append(Placed(path, State.ABSENT))
        elif units.untouched(there):
            _remove(path)
            found.append(Placed(path, State.REMOVED))
        else:
            found.append(Placed(path, State.KEPT))
        if path.parent.suffix == ".d" and path.parent.parent == _below(root, units.UNITS):
            with contextlib.suppress(OSError):  # there are other drop-ins in it, or it was never made
                path.parent.rmdir()
    return found


# -- systemd's own programs --------------------------------------------------------------------------------------------


def run(command: Sequence[str]) -> str:
    """Run a program of the system. Raises ProgramFailed."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        what = error.strerror if isinstance(error, OSError) else f"it did not end within {_SECONDS} seconds"
        raise ProgramFailed(f"it cannot be run: {what}", subject=command[0], remedy="is systemd installed?") from None
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:300] or f"exit status {done.returncode}"
        raise ProgramFailed(said, subject=" ".join(command), remedy="try it in a shell")
    return done.stdout


def version(run: Run = run) -> int:
    """Of the systemd there is, such as 252; 0 if there is none, or it does not say."""
    try:
        match = re.match(r"systemd (\d+)", run(["systemctl", "--version"]))
    except ProgramFailed:
        return 0
    return int(match[1]) if match else 0


def booted(root: Path = Path("/")) -> bool:
    """Whether systemd runs this machine (sd_booted(3))."""
    return (root / "run/systemd/system").is_dir()


def active(unit: str) -> bool:
    """Whether this unit runs, or is being started."""
    command = ["systemctl", "is-active", unit]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    return done.stdout.strip() in ("active", "activating", "reloading")


def make_known(user: str, run: Run = run, *, running: bool) -> None:
    """After `install`: make the user and the folders, and have systemd read its units again, if it runs at all.
    Raises ProgramFailed."""
    if user == units.USER:
        run(["systemd-sysusers", str(units.SYSUSERS)])
    run(["systemd-tmpfiles", "--create", str(units.TMPFILES)])
    if running:
        run(["systemctl", "daemon-reload"])


def stop(run: Run = run) -> None:
    """Before `uninstall`: stop the service and the timers, and have none of them started any more. Raises
    ProgramFailed."""
    named = [name for name in (*units.SERVICES, *units.TIMERS) if "@" not in name]
    run(["systemctl", "stop", *named, "backupd-audit@*.timer", "backupd-audit@*.service"])
    run(["systemctl", "disable", "backupd.service", *units.TIMERS])


# -- files -------------------------------------------------------------------------------------------------------------


def _below(root: Path, path: Path) -> Path:
    return root / path.relative_to("/")


def _new(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")


def _placed(root: Path, file: File, state: State) -> Placed:
    path = _below(root, file.path)
    return Placed(path, state, _new(path) if state is State.KEPT else None)


def _read(path: Path) -> str | None:
    """The file's text; None if there is no such file. A link is somebody's wish (systemctl mask), not ours."""
    try:
        if path.is_symlink():
            return str(path.readlink())
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _error(path, error) from None


def _write(path: Path, text: str) -> None:
    """Put a file in place as a whole, readable by everybody: there are no secrets in it."""
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", errors="surrogateescape") as file:
                os.fchmod(file.fileno(), 0o644)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _error(path, error) from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _error(path, error) from None


def _error(path: Path, error: OSError) -> StorageError:
    if isinstance(error, PermissionError):
        return StorageDenied("no permission", subject=str(path), remedy="run it as root, or with --prefix DIR")
    return StorageError(error.strerror or type(error).__name__, subject=str(path))
