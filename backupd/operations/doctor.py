"""`backupd doctor`: is everything as it must be for backups and restores to work? Changes nothing, sends no mail data;
in a bucket it stores a few bytes, to see what the bucket does with them.

Checks come one after another as findings, each with what to do about it, so that a skin can show them while the slower
ones (servers) are still under way.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path

import msgspec

from backupd.errors import BackupdError
from backupd.operations.counting import count
from backupd.operations.doctor_bucket import check_bucket
from backupd.operations.doctor_server import Address, Look, Tls, check_account
from backupd.operations.finding import Finding, of_error
from backupd.repository.keys import Role
from backupd.repository.repository import Repository
from backupd.storage.s3_probe import BucketFacts

LITTLE_SPACE = 2 * 1024**3
"""Octets free below which a warning is given: a few packs, an index and a large message must fit."""


class Account(msgspec.Struct, frozen=True):
    """An account to be examined. look: logs in, and looks around. known: what is to be said without that."""

    address: Address
    look: Look
    known: Sequence[Finding] = ()


class Patient(msgspec.Struct, frozen=True):
    """What is examined.

    config_path: the configuration that was read. secret_files: files with secrets that it refers to. repository_folder:
    where the repository is when that is a local folder. probe_bucket: tries what the bucket does, when it is in one.
    open_repository: opens it with the configured key. count_snapshots: counts them without one, on a host that holds
    none. notifications: looks at where notifications are sent to.
    """

    config_path: Path | None
    secret_files: Sequence[Path]
    state_dir: Path
    repository_url: str
    repository_folder: Path | None
    probe_bucket: Callable[[], BucketFacts] | None
    open_repository: Callable[[], Repository]
    accounts: Mapping[str, Account]
    notifications: Callable[[], Iterator[Finding]] = lambda: iter(())
    count_snapshots: Callable[[], int] | None = None


def doctor(
    patient: Patient,
    *,
    now: Callable[[], datetime],
    look_up: Callable[[str, int], int] | None = None,
    probe: Callable[[Address], Tls] | None = None,
) -> Iterator[Finding]:
    """All findings, in the order in which one would mend them."""
    if patient.config_path:
        yield from check_configuration(patient.config_path, patient.secret_files)
    yield from check_folder("state_dir", patient.state_dir)
    if patient.repository_folder:
        yield from check_folder("repository", patient.repository_folder)
    if patient.probe_bucket:
        yield from check_bucket(patient.repository_url, patient.probe_bucket)
    yield from check_repository(patient)
    yield from patient.notifications()
    if not patient.accounts and not patient.count_snapshots:
        yield Finding("warning", "accounts", "there are none in the configuration", "add one below accounts:")
    for name, account in patient.accounts.items():
        yield from account.known
        yield from check_account(name, account.address, account.look, now=now, look_up=look_up, probe=probe)


def check_configuration(path: Path, secret_files: Sequence[Path]) -> Iterator[Finding]:
    """The configuration could be read, and nobody else can read the secrets or change any of it."""
    yield Finding("ok", "configuration", f"{path} is valid")
    mode = _mode(path)
    if mode is not None and mode & 0o022:
        yield Finding("problem", "configuration", f"{path} can be changed by others", f"chmod go-w {path}")
    for file in secret_files:
        mode = _mode(file)
        if mode is None:
            yield Finding("problem", "secrets", f"{file} cannot be read", "make it, or give its owner access")
        elif mode & 0o077:
            yield Finding("problem", "secrets", f"{file} can be read by others", f"chmod go= {file}")
        else:
            yield Finding("ok", "secrets", f"{file} is readable by its owner only")


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def check_folder(subject: str, folder: Path) -> Iterator[Finding]:
    """A folder that backupd writes to: it is there or can be made, is writable, and has space."""
    nearest = next((each for each in (folder, *folder.parents) if each.exists()), Path("/"))
    if not os.access(nearest, os.W_OK | os.X_OK):
        yield Finding("problem", subject, f"{folder} cannot be written to", f"give this user write access to {nearest}")
        return
    free = shutil.disk_usage(nearest).free
    said = f"{folder} {'is' if nearest == folder else 'can be made'}, {free / 1000**3:.1f} GB free"
    if free < LITTLE_SPACE:
        yield Finding("warning", subject, said, "free some space before the disk is full")
    else:
        yield Finding("ok", subject, said.replace(" is,", " is writable,"))


def check_repository(patient: Patient) -> Iterator[Finding]:
    """The repository can be opened with the configured key, which has a role; its snapshots can be listed."""
    try:
        if patient.count_snapshots:
            snapshots = count(patient.count_snapshots(), "snapshot")
            what = f"{patient.repository_url} is there, {snapshots}; without a key, storage can be audited"
            yield Finding("ok", "repository", what)
            return
        with patient.open_repository() as repository:
            role = repository.secrets.role
            snapshots = count(len(repository.refs()), "snapshot")
    except BackupdError as error:
        yield of_error("repository", error)
        return
    yield Finding("ok", "repository", f"{patient.repository_url} opens in the {role.value} role, {snapshots}")
    if role is Role.WRITER:
        yield Finding(
            "ok", "repository", "this machine can back up and cannot read stored mail; restores need a reader's key"
        )
