"""The wheel, as pip builds it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_NEEDED = ("pyproject.toml", "README.md", "backupd", "systemd")


def build(folder: Path) -> Path:
    """Build it in a folder; its path. The sources are copied first: building leaves folders among them, and what is in
    those gets into the next wheel."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    for name in _NEEDED:
        here = ROOT / name
        if here.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(here, sources / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(here, sources / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index",
         "--wheel-dir", folder, sources],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (found,) = folder.glob("backupd-*.whl")
    return found
