"""`backupd key`: who can open the repository, and as what.

A slot is opened by a passphrase or by a key file. One of the writer role gives a daemon a key that can back up and
cannot read a single stored message. Removing a slot revokes what opened it; whoever copied the secrets out of it
before keeps them.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from backupd.errors import StorageDenied, UsageError, WrongKey
from backupd.repository import slots
from backupd.repository.keys import Random, Role
from backupd.repository.repository import Repository, list_slots
from backupd.repository.slots import Argon2
from backupd.storage.base import Storage

SHORTEST_PASSPHRASE = 8


class SlotLine(msgspec.Struct, frozen=True):
    """A key slot in a list. opened_by: "passphrase" or "key file"; damaged: it cannot be read, and opens nothing."""

    label: str
    role: str
    opened_by: str
    created: str
    object: str
    damaged: bool = False


def slot_lines(storage: Storage) -> list[SlotLine]:
    """All key slots; needs no key."""
    damaged: list[str] = []
    lines = [
        SlotLine(slot.label, slot.role.value, "passphrase" if slot.argon2 else "key file", slot.created, name)
        for name, slot in list_slots(storage, damaged)
    ]
    return lines + [SlotLine(name, "", "", "", name, damaged=True) for name in damaged]


def add(repository: Repository, label: str, role: Role, secret: str, *, argon2: Argon2 | None = None) -> str:
    """Add a slot that `secret`, a passphrase or a key file's text, opens; its object's name.

    Raises UsageError, and WrongKey when the opened role is less than `role`.
    """
    repository.secrets.for_role(role)
    return repository.add_slot(label, check_secret(secret), role, argon2=argon2)


def rotate(repository: Repository, label: str, secret: str, *, argon2: Argon2 | None = None) -> str:
    """Let another secret open the slot from now on, and the old one no more. Raises UsageError, WrongKey."""
    return repository.rotate_slot(label, check_secret(secret), argon2=argon2)


def remove(repository: Repository, label: str) -> None:
    """Remove a slot. Raises UsageError for an unknown one, and for the last that can read mail."""
    if repository.secrets.role is not Role.READER:
        raise WrongKey(
            "a writer's key must not remove key slots",
            subject=label,
            remedy="use a key or passphrase of the reader role",
        )
    repository.remove_slot(label)


def export(repository: Repository, role: Role | None = None) -> str:
    """The secrets of the role (None: of the one that is open) as text, which opens the repository without any slot."""
    return slots.export(repository.secrets.for_role(role or repository.secrets.role))


def check_free(repository: Repository, label: str) -> None:
    """Raises UsageError when a new slot cannot have this name."""
    slots.check_label(label)
    if any(slot.label == label for _, slot in list_slots(repository.storage, [])):
        raise UsageError("there is a key slot of this name", subject=label, remedy="choose another, or rotate it")


def check_rotation(repository: Repository, label: str) -> None:
    """Raises UsageError when there is no such slot, WrongKey when the key that is open is not enough for it."""
    found = [slot for _, slot in list_slots(repository.storage, []) if slot.label == label]
    if not found:
        raise UsageError("no key slot of this name", subject=label, remedy="`backupd key list` shows them")
    repository.secrets.for_role(found[0].role)


def read_passphrase(path: Path) -> str:
    """The first line of a file. Raises UsageError when it cannot be read."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read the passphrase: {why}", subject=str(path), remedy="check the file") from error
    return text.split("\n", 1)[0].rstrip("\r")


def check_secret(secret: str) -> str:
    """The secret, if it can guard a slot. Raises UsageError."""
    if not slots.is_key_file(secret) and len(secret) < SHORTEST_PASSPHRASE:
        raise UsageError(
            f"a passphrase needs at least {SHORTEST_PASSPHRASE} characters",
            remedy="five random words are easy to write down and hard to guess",
        )
    return secret


def new_key_file(path: Path, random: Random = os.urandom) -> str:
    """Make a key file that only its owner can read; its text. Raises UsageError when there is a file already."""
    text = slots.new_key_file(random)
    write_secret(path, text)
    return text


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, durably. Raises UsageError when there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise UsageError("there is a file already", subject=str(path), remedy="choose another name") from None
    except OSError as error:
        raise StorageDenied(
            f"cannot write it: {error.strerror}", subject=str(path), remedy="choose another place"
        ) from error
