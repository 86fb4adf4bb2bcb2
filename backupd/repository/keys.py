"""The repository's secrets, what is derived from them, and the three roles (docs/format.md, "Keys").

A writer holds the writer secret and the public key: it can make everything and read all metadata, but no message. A
reader holds the private key as well. An auditor holds nothing and needs nothing from here.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cached_property

import msgspec
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, hpke
from cryptography.hazmat.primitives.asymmetric import ed25519, mlkem, x25519
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from backupd.errors import WrongKey
from backupd.storage.base import Buffer

SUITE = hpke.Suite(hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.AES_256_GCM)
MLKEM_PUBLIC_BYTES = 1184
MLKEM_SEED_BYTES = 64
SEALED_KEY_BYTES = 1168
"""Octets of a block key sealed with SUITE: encapsulation 1,120, key 32, tag 16."""

Random = Callable[[int], bytes]


class Role(StrEnum):
    """What the holder of a key may do; each can also do what the ones before it can."""

    AUDITOR = "auditor"
    WRITER = "writer"
    READER = "reader"


def derive(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """HKDF-SHA256 (RFC 5869), 32 octets."""
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


class Secrets(msgspec.Struct, frozen=True, dict=True, omit_defaults=True):
    """What a key slot or key file carries. private_key (ML-KEM seed, X25519 scalar) makes it a reader's.

    Derived keys are computed at first use and kept.
    """

    repository: bytes
    writer_secret: bytes
    public_key: bytes
    private_key: bytes = b""

    def __repr__(self) -> str:
        return f"Secrets(repository={self.repository.hex()}, role={self.role.value})"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        """For rich, which would show all fields: in its tracebacks, too."""
        return [("repository", self.repository.hex()), ("role", self.role.value)]

    @property
    def role(self) -> Role:
        return Role.READER if self.private_key else Role.WRITER

    def for_role(self, role: Role) -> Secrets:
        """The part of these secrets that the role needs. Raises WrongKey if this is less than that."""
        if role is Role.READER and not self.private_key:
            raise WrongKey("a writer key cannot make a reader key", remedy="use a key or passphrase of the reader role")
        if role is Role.AUDITOR:
            raise WrongKey("an auditor holds no key", remedy="an auditor needs only access to the storage")
        return Secrets(
            self.repository, self.writer_secret, self.public_key, self.private_key if role is Role.READER else b""
        )

    def _derived(self, label: str) -> bytes:
        return derive(self.writer_secret, self.repository, b"backupd v1 " + label.encode())

    @cached_property
    def _content_id_key(self) -> bytes:
        return self._derived("content id")

    @cached_property
    def _metadata_id_key(self) -> bytes:
        return self._derived("metadata id")

    @cached_property
    def _fingerprint_key(self) -> bytes:
        return self._derived("header fingerprint")

    @cached_property
    def metadata_key(self) -> bytes:
        """From which the keys of metadata, index and snapshot blocks are derived."""
        return self._derived("metadata block")

    @cached_property
    def token_key(self) -> bytes:
        """Under which logins are kept in state_dir (backupd/oauth/store.py); no part of the archive's format."""
        return self._derived("login tokens")

    @cached_property
    def record_key(self) -> ed25519.Ed25519PrivateKey:
        """With which the entries of the repository's record are signed (record.py)."""
        return ed25519.Ed25519PrivateKey.from_private_bytes(self._derived("record signature"))

    @cached_property
    def record_public_key(self) -> bytes:
        """With which anybody checks them; 32 octets."""
        return self.record_key.public_key().public_bytes_raw()

    @cached_property
    def sealing_info(self) -> bytes:
        """The `info` of HPKE: ties a sealed block key to this repository."""
        return b"backupd v1 content block" + self.repository

    def content_id(self, data: Buffer) -> bytes:
        """The blob id of content: keyed BLAKE3-256."""
        return blake3(data, key=self._content_id_key).digest()

    def content_hasher(self) -> blake3:
        """The same, for data that comes in pieces."""
        return blake3(key=self._content_id_key)

    def metadata_id(self, data: Buffer) -> bytes:
        """The blob id of a run of mailbox state: keyed BLAKE3-256 under a key of its own, so that no mail can pose as
        one."""
        return blake3(data, key=self._metadata_id_key).digest()

    def fingerprint(self, header: bytes) -> bytes:
        """16 octets that tell whether two messages have the same header."""
        return blake3(header, key=self._fingerprint_key).digest(length=16)

    def account_tag(self, account: str) -> str:
        """The folder of an account's snapshots: 16 hexadecimal digits that do not tell its name."""
        return blake3(account.encode(), key=self._derived("account tag")).hexdigest(length=8)

    @cached_property
    def _sealing_key(self) -> hpke.MLKEM768X25519PublicKey:
        return hpke.MLKEM768X25519PublicKey(
            mlkem.MLKEM768PublicKey.from_public_bytes(self.public_key[:MLKEM_PUBLIC_BYTES]),
            x25519.X25519PublicKey.from_public_bytes(self.public_key[MLKEM_PUBLIC_BYTES:]),
        )

    @cached_property
    def _opening_key(self) -> hpke.MLKEM768X25519PrivateKey:
        if not self.private_key:
            raise WrongKey(
                "this key is a writer's: it can back up, but cannot read a stored message",
                remedy="use a key or passphrase of the reader role",
            )
        return _private_key(self.private_key)

    def seal_key(self, key: bytes) -> bytes:
        """A block key that only a reader can open (RFC 9180, single-shot, base mode)."""
        return SUITE.encrypt(key, self._sealing_key, self.sealing_info)

    def open_key(self, sealed: bytes) -> bytes:
        """The block key in `sealed`. Raises WrongKey without the reader role, InvalidTag when it is damaged."""
        return SUITE.decrypt(sealed, self._opening_key, self.sealing_info)

    def check(self) -> None:
        """Prove that the parts belong together. Raises WrongKey when they do not."""
        try:
            if self.private_key and self.open_key(self.seal_key(bytes(32))) == bytes(32):
                return
        except (InvalidTag, ValueError):
            pass
        else:
            if not self.private_key and len(self.writer_secret) == 32:
                return
        raise WrongKey("the key is inconsistent in itself", remedy="use another key slot, or the exported key")


def _private_key(raw: bytes) -> hpke.MLKEM768X25519PrivateKey:
    return hpke.MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(raw[:MLKEM_SEED_BYTES]),
        x25519.X25519PrivateKey.from_private_bytes(raw[MLKEM_SEED_BYTES:]),
    )


def generate(repository: bytes, random: Random) -> Secrets:
    """Fresh secrets for a new repository, of the reader role. repository: its id, 16 octets."""
    mlkem_seed, x25519_scalar = random(MLKEM_SEED_BYTES), random(32)
    public = (
        mlkem.MLKEM768PrivateKey.from_seed_bytes(mlkem_seed).public_key().public_bytes_raw()
        + x25519.X25519PrivateKey.from_private_bytes(x25519_scalar).public_key().public_bytes_raw()
    )
    return Secrets(repository, random(32), public, mlkem_seed + x25519_scalar)
