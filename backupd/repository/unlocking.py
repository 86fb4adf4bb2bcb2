"""Making a repository, and finding the secrets that a passphrase, a key file or an exported key opens."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime

import msgspec

from backupd.errors import Damaged, KeyMismatch, ObjectExists, ObjectMissing, UsageError, WrongKey
from backupd.repository import keys, names, slots
from backupd.repository.description import FORMAT, SUITES, Description, describe, holds_backups
from backupd.repository.keys import Random, Secrets
from backupd.repository.slots import Argon2, Slot
from backupd.storage.base import Storage


def create(storage: Storage, secret: str, *, random: Random = os.urandom, argon2: Argon2 | None = None) -> Secrets:
    """Make a new repository whose first slot, "default", is opened by `secret` (a passphrase or a key file's text).

    Raises UsageError when there is one already. A slot alone is none: an `init` was killed, and this one goes on.
    """
    if _exists(storage, names.DESCRIPTION) or holds_backups(storage):
        raise _is_there(storage)
    identifier = random(16)
    secrets = keys.generate(identifier, random)
    now = datetime.now(UTC)
    name, slot = slots.wrap(secrets, "default", secret, random=random, now=now, argon2=argon2)
    storage.put(name, [slot])
    description = Description(FORMAT, identifier.hex(), now.isoformat(timespec="seconds"), secrets.public_key, SUITES)
    # The description comes last: with it the repository exists, and never without a key that opens it.
    try:
        storage.put(names.DESCRIPTION, [msgspec.json.format(msgspec.json.encode(description)) + b"\n"])
    except ObjectExists:  # another `init`, at the same time
        storage.delete(name)
        raise _is_there(storage) from None
    return secrets


def _is_there(storage: Storage) -> UsageError:
    return UsageError(
        "there is a repository already", subject=storage.url, remedy="use another place, or this one as it is"
    )


def unlock(storage: Storage, secret: str) -> Secrets:
    """The secrets that a passphrase, key file text or exported key opens. Raises NoRepository, WrongKey."""
    description = describe(storage)
    secrets = slots.imported(secret) or _try_slots(storage, secret, description.id)
    # Whoever can write to the storage could swap the public key, and then read all that is sealed from now on.
    if secrets.repository.hex() != description.id or secrets.public_key != description.public_key:
        raise KeyMismatch(
            "the key is another repository's, or repository.json was altered",
            subject=storage.url,
            remedy="compare the repository id with that on your recovery kit",
        )
    return secrets


def _try_slots(storage: Storage, secret: str, repository: str) -> Secrets:
    damaged: list[str] = []
    others: Secrets | None = None  # of a killed `init`, most likely
    there = 0
    for name, slot in list_slots(storage, damaged):
        there += 1
        try:
            secrets = slots.unwrap(slot, secret)
        except Damaged:
            damaged.append(name)
            continue
        if secrets and secrets.repository.hex() == repository:
            return secrets
        others = others or secrets
    if others:
        return others
    remedy = "check repository.passphrase or repository.key_file; upper and lower case matter"
    if not there:
        remedy = "there is no key slot that can be read: put keys/ back from a copy, or use an exported key as key_file"
    else:
        remedy += "; if they are right, the slot is damaged: put it back from a copy, or use an exported key"
    if damaged:
        remedy = f"note that {', '.join(damaged)} cannot be read; {remedy}"
    raise WrongKey("the passphrase or key opens no slot of this repository", subject=storage.url, remedy=remedy)


def list_slots(storage: Storage, damaged: list[str] | None = None) -> Iterator[tuple[str, Slot]]:
    """(object name, slot) of each key slot. Names of unreadable ones go to `damaged`, or raise Damaged without it."""
    for info in storage.list(names.KEYS):
        try:
            yield info.name, slots.parse(storage.get(info.name), info.name)
        except Damaged:
            if damaged is None:
                raise
            damaged.append(info.name)


def _exists(storage: Storage, name: str) -> bool:
    try:
        storage.size(name)
    except ObjectMissing:
        return False
    return True
