"""What systemd itself says of unit files, without being process 1: `systemd-analyze`."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

INSTALL = "sudo apt-get install --no-install-recommends systemd"


class SystemdMissing(Exception):
    """There is no systemd-analyze here."""


def complaints(*units: Path) -> list[str]:
    """What `verify` says of units and their drop-ins. It succeeds even where a key is unknown, but it says so."""
    done = _analyze("verify", "--man=no", *units)
    found = sorted({*done.stdout.splitlines(), *done.stderr.splitlines()})
    return found if found or done.returncode == 0 else [f"exit status {done.returncode}"]


def exposure(unit: Path) -> float:
    """How exposed a service is, by `security`: 0.0 (not at all) to 10.0."""
    done = _analyze("security", "--offline=true", "--no-pager", unit)
    match = re.search(r"Overall exposure level for \S+: (\d+\.\d) ", done.stdout)
    assert match, done.stdout[-500:] + done.stderr
    return float(match[1])


def _analyze(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        raise SystemdMissing(f"these tests ask systemd itself, and it is not installed; run: {INSTALL}")
    return subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=60)
