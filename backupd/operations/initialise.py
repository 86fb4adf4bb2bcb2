"""`backupd init`: make the repository, and say what must be kept so that its mail can be had back.

The recovery kit is text for paper. It holds no secret, only what one needs to know beside the passphrase.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from backupd.operations.key_slots import check_secret
from backupd.repository import repository
from backupd.repository.description import Description, describe
from backupd.repository.keys import Random
from backupd.repository.slots import Argon2, is_key_file
from backupd.storage.base import Storage


class Initialised(msgspec.Struct, frozen=True):
    """A new repository. id: 32 hexadecimal digits. kit: the recovery kit, to be printed and kept."""

    id: str
    url: str
    created: str
    kit: str


def initialise(
    storage: Storage,
    secret: str,
    *,
    config_path: Path | None = None,
    random: Random = os.urandom,
    argon2: Argon2 | None = None,
) -> Initialised:
    """Make a repository that `secret`, a passphrase or a key file's text, opens.

    Raises UsageError when there is one already or the passphrase is too short.
    """
    repository.create(storage, check_secret(secret), random=random, argon2=argon2)
    description = describe(storage)
    kit = recovery_kit(description, storage.url, by_key_file=is_key_file(secret), config_path=config_path)
    return Initialised(description.id, storage.url, description.created, kit)


def recovery_kit(description: Description, url: str, *, by_key_file: bool, config_path: Path | None = None) -> str:
    """What to keep, where, and how to get mail back with and without backupd."""
    secret, setting = ("key file", "key") if by_key_file else ("passphrase", "passphrase")
    config = config_path or "/etc/backupd/config.yaml"
    return f"""\
BACKUPD RECOVERY KIT

Repository   {url}
Id           {description.id}
Created      {description.created}
Format       {description.format}

KEEP, IN TWO PLACES THAT CANNOT BURN DOWN TOGETHER
  1. The {secret}. Without it every message in the repository is lost for
     good: nobody can reset it, not even the authors of backupd.
  2. This page. The id tells a real repository from a forged one.
  3. A copy of the repository itself, on another machine or in another house.
  Good to have: the configuration ({config}).
  Instead of the {secret}, or beside it: `backupd key export FILE` writes
  all secrets to a file for the safe. Whoever has that file can read all mail.

TO GET MAIL BACK WITH BACKUPD
  Write a configuration with repository.url, repository.{setting}, and
  state_dir (any folder that is yours).
  See what there is:
    backupd snapshots
  All mail of an account, into files that any mail program reads:
    backupd restore ACCOUNT@latest mbox:DIR
  What is missing, back onto the server:
    backupd restore ACCOUNT@latest imap:ACCOUNT --missing-only

TO GET MAIL BACK WITHOUT BACKUPD
  tools/read_repository.py is one file that needs only Python, zstandard,
  cryptography (48 or newer), blake3 and msgspec, and writes every message of
  every snapshot as an .eml file. docs/format.md describes every byte, so that
  a reader can be written in any language. Both are in backupd's source: keep
  them with this page.
"""
