"""Key slots: the secrets, wrapped so that a passphrase or a key file opens them (docs/format.md, "Key slots").

A slot is one object, `keys/<label>-<8 hex>.json`. It is never changed: rotating one writes another and removes it.
"""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from backupd.errors import Damaged, UsageError, WrongKey
from backupd.repository.decoding import UNDECODABLE
from backupd.repository.keys import Random, Role, Secrets, derive

LABEL = re.compile(r"[a-z0-9][a-z0-9._-]{0,39}\Z")
KEY_FILE_MARK = "BACKUPD-KEY-1"
EXPORT_MARK = "BACKUPD-SECRETS-1"

_MAXIMUM_MEMORY_KIB = 4 * 1024 * 1024
_MAXIMUM_ITERATIONS = 1000
_MAXIMUM_LANES = 255
_SALT_BYTES, _NONCE_BYTES, _TAG_BYTES = 32, 12, 16


class Argon2(msgspec.Struct, frozen=True):
    """Argon2id's cost (RFC 9106). The default, about 0.1 s on one core and 64 MiB, is its second recommendation."""

    iterations: int = 3
    memory_kib: int = 65536
    lanes: int = 4


class Slot(msgspec.Struct, frozen=True, omit_defaults=True):
    """A slot as it is stored. argon2 is None for one that a key file opens: that secret needs no stretching."""

    format: int
    label: str
    role: Role
    created: str
    salt: bytes
    wrapped: bytes
    argon2: Argon2 | None = None


def check_label(label: str) -> str:
    """The label, if it can be one. Raises UsageError."""
    if not LABEL.match(label):
        raise UsageError(
            "not a name for a key slot", subject=label, remedy="use up to 40 of a-z 0-9 . _ -, beginning with a-z 0-9"
        )
    return label


def wrap(
    secrets: Secrets, label: str, secret: str, *, random: Random, now: datetime, argon2: Argon2 | None = None
) -> tuple[str, bytes]:
    """(object name, bytes) of a new slot that `secret`, a passphrase or the text of a key file, opens."""
    by_key_file = is_key_file(secret)
    slot = Slot(
        format=1,
        label=check_label(label),
        role=secrets.role,
        created=now.astimezone(UTC).isoformat(timespec="seconds"),
        salt=random(_SALT_BYTES),
        wrapped=b"",
        argon2=None if by_key_file else argon2 or Argon2(),
    )
    nonce = random(_NONCE_BYTES)
    sealed = AESGCM(_slot_key(slot, secret)).encrypt(nonce, msgspec.msgpack.encode(secrets), _bound(slot))
    data = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(slot, wrapped=nonce + sealed))) + b"\n"
    return f"keys/{label}-{random(4).hex()}.json", data


def parse(data: bytes, name: str) -> Slot:
    """Read a slot object. Raises Damaged. It is used before it is authenticated, so what it says is bounded here."""
    try:
        slot = msgspec.json.decode(data, type=Slot)
    except UNDECODABLE as error:
        raise Damaged(f"a key slot makes no sense: {error}", subject=name) from error
    if slot.format != 1 or not _has_sane_costs(slot.argon2):
        raise Damaged("a key slot of an unknown kind", subject=name, remedy="a newer backupd may know it")
    if (
        not LABEL.match(slot.label)
        or len(slot.salt) != _SALT_BYTES
        or len(slot.wrapped) < _NONCE_BYTES + _TAG_BYTES
    ):
        raise Damaged("a key slot makes no sense: its label, salt or secret part cannot be one", subject=name)
    return slot


def _has_sane_costs(costs: Argon2 | None) -> bool:
    return costs is None or (
        1 <= costs.iterations <= _MAXIMUM_ITERATIONS
        and 1 <= costs.lanes <= _MAXIMUM_LANES
        and 8 * costs.lanes <= costs.memory_kib <= _MAXIMUM_MEMORY_KIB
    )


def unwrap(slot: Slot, secret: str) -> Secrets | None:
    """The secrets, or None when `secret` does not open this slot. Raises Damaged where memory does not suffice."""
    if is_key_file(secret) == (slot.argon2 is not None):
        return None
    try:
        key = AESGCM(_slot_key(slot, secret))
        plain = key.decrypt(slot.wrapped[:_NONCE_BYTES], slot.wrapped[_NONCE_BYTES:], _bound(slot))
    except InvalidTag:
        return None
    secrets = msgspec.msgpack.decode(plain, type=Secrets)
    secrets.check()
    return secrets


def is_key_file(secret: str) -> bool:
    """Whether this text is a key file's, and not a passphrase."""
    return secret.startswith(KEY_FILE_MARK + " ")


def new_key_file(random: Random) -> str:
    """The text of a new key file: 256 random bits that open the slot made with them."""
    return f"{KEY_FILE_MARK} {base64.b64encode(random(32)).decode()}\n"


def export(secrets: Secrets) -> str:
    """The secrets themselves as text, to be kept offline: they open the repository without any slot."""
    return f"{EXPORT_MARK} {secrets.role.value} {base64.b64encode(msgspec.msgpack.encode(secrets)).decode()}\n"


def imported(text: str) -> Secrets | None:
    """The secrets in an exported text, or None if it is not one. Raises WrongKey when it is cut or mistyped."""
    if not text.startswith(EXPORT_MARK + " "):
        return None
    try:
        secrets = msgspec.msgpack.decode(base64.b64decode(text.split()[2], validate=True), type=Secrets)
    except (IndexError, *UNDECODABLE):
        # Not "from" the error: it may carry the text.
        raise WrongKey("the exported key is incomplete or mistyped", remedy="compare it with your copy") from None
    secrets.check()
    return secrets


def _slot_key(slot: Slot, secret: str) -> bytes:
    # The mark is part of what is hashed, so one text can never serve as passphrase and as key file.
    try:
        text = secret.strip().encode() if slot.argon2 is None else secret.encode()
    except UnicodeEncodeError:  # which carries the passphrase
        raise WrongKey("the passphrase is not UTF-8", remedy="check the locale, or where it is read from") from None
    if slot.argon2 is None:
        return derive(text, slot.salt, b"backupd v1 key slot")
    costs = slot.argon2
    try:
        return Argon2id(
            salt=slot.salt, length=32, iterations=costs.iterations, lanes=costs.lanes, memory_cost=costs.memory_kib
        ).derive(text)
    except MemoryError as error:
        raise Damaged(
            f"a key slot needs {costs.memory_kib // 1024:,} MiB of memory to be opened, which are not there",
            subject=slot.label,
            remedy="open it on a larger machine, or use another slot",
        ) from error


def _bound(slot: Slot) -> bytes:
    """What the wrapping is tied to, so that a slot's label or role cannot be altered unseen."""
    return b"\0".join([b"backupd v1 key slot", slot.label.encode(), slot.role.value.encode()])
