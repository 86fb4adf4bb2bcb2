"""The files of a small Debian machine with systemd, made once: `python -m tests.support.machine_tree` (as root).

Below .cache/machine/SUITE: `tree`, a Debian of the packages below; `site`, what backupd depends on, for that Debian's
Python. `tests/systemd` lays copy-on-write layers over the tree, so it stays as it was made. The suite is the oldest
Debian that is supported; BACKUPD_SUITE names another one, such as trixie.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUITE = os.environ.get("BACKUPD_SUITE", "bookworm")
FOLDER = ROOT / ".cache" / "machine" / SUITE
TREE, SITE, READY = FOLDER / "tree", FOLDER / "site", FOLDER / "ready"
PACKAGES = ("systemd", "systemd-sysv", "dbus", "python3", "python3-venv", "openssl", "procps", "ca-certificates")


def made() -> bool:
    """Whether all is there, for the dependencies of today."""
    return READY.exists() and READY.read_text() == _wanted()


def usable() -> bool:
    """Whether machines can be booted here."""
    return os.geteuid() == 0 and made()


def make() -> None:
    """Make what is missing; a minute or two, and network, the first time."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    READY.unlink(missing_ok=True)
    if not (TREE / "lib/systemd/systemd").exists():
        shutil.rmtree(TREE, ignore_errors=True)
        subprocess.run(
            ["mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, TREE],
            check=True, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        )  # fmt: skip
        # It would wait for a seat; and a machine without an id makes one of its own at each first boot.
        (TREE / "etc/systemd/system/systemd-logind.service").symlink_to("/dev/null")
        (TREE / "etc/machine-id").write_text("")
    shutil.rmtree(SITE, ignore_errors=True)
    subprocess.run(
        [
            sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", SITE,
            "--python-version", python(), "--implementation", "cp", "--only-binary", ":all:",
            "--constraint", ROOT / "constraints.txt", *_dependencies(),
        ],
        check=True,
    )  # fmt: skip
    READY.write_text(_wanted())


def python() -> str:
    """The version of its Python, such as 3.11."""
    return (TREE / "usr/bin/python3").readlink().name.removeprefix("python")


def _dependencies() -> list[str]:
    found: list[str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return found


def _wanted() -> str:
    return "\n".join([SUITE, *PACKAGES, *_dependencies(), (ROOT / "constraints.txt").read_text()])


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("a machine can only be made by root")
    make()
