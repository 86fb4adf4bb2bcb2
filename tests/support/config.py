"""A configuration that is right, and the one-line error of one that is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd import config
from backupd.errors import ConfigError

GOOD = """\
state_dir: /var/lib/backupd
repository:
  url: /srv/backup
  passphrase: {file: passphrase}
accounts:
  alice:
    imap: {host: mail.example.com, username: alice, password: secret}
    objective: 1h
"""


def changed(old: str, new: str) -> str:
    """The good configuration with one thing in it changed."""
    assert old in GOOD
    return GOOD.replace(old, new, 1)


def write(folder: Path, text: str) -> Path:
    """A configuration file that only its owner can read."""
    path = folder / "config.yaml"
    path.touch(mode=0o600)
    path.write_text(text)
    return path


def refused(folder: Path, text: str) -> str:
    """The error that this configuration gives, from the line number on."""
    path = write(folder, text)
    with pytest.raises(ConfigError) as caught:
        config.load(path)
    said = str(caught.value)
    assert caught.value.exit_code == 2
    assert said.isprintable(), "one line, and nothing that changes what the terminal shows"
    assert said.startswith(f"{path}:")
    return said.removeprefix(f"{path}:").removeprefix(" ")
