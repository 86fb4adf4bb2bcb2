"""Where logins are kept: a file for each account, encrypted, replaced as a whole, used by one process at a time.

What of a login may be known (when it was made, when it ends) is readable without a key, so that `auth status` and the
daemon can warn; the tokens are sealed with AES-256-GCM under a key that is not in the state, and bound to what is
readable, so that nobody can alter that unseen. docs/decisions/0009 says why.

All of it may be lost: then somebody logs in again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from backupd.errors import Busy, StorageDenied, StorageError, StorageFull
from backupd.oauth.token import Facts, Login, Tokens

FORMAT = 1
LARGEST = 64 * 1024
"""Octets of a file: two tokens of the longest kind, as base64."""
_NONCE_BYTES = 12
_WAIT_SECONDS = 90.0
_GLANCE_SECONDS = 0.05
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Random = Callable[[int], bytes]
Commit = Callable[[Login], None]


class _Stored(msgspec.Struct, frozen=True):
    format: int
    account: str
    facts: Facts
    sealed: bytes


class Unreadable(StorageError):
    """A stored login that is damaged, or sealed under another key: as good as none."""


class Logins:
    """The logins in a folder. Safe to use from several threads and several processes.

    Args:
        key: gives the 32 octets under which tokens are sealed; asked when they are needed.
        random: gives so many random octets.
    """

    def __init__(self, folder: Path, key: Callable[[], bytes], random: Random = os.urandom) -> None:
        self._folder, self._key, self._random = folder, key, random

    def check_key(self) -> None:
        """Raises what getting the key raises."""
        self._key()

    def facts(self, account: str) -> Facts | None:
        """What is known of the account's login, without a key; None where there is none, or none that can be read.

        Raises StorageError.
        """
        try:
            stored = self._stored(account)
        except Unreadable:
            return None
        return stored.facts if stored else None

    def read(self, account: str) -> Login | None:
        """The account's login; None where there is none. Raises Unreadable, StorageError."""
        stored = self._stored(account)
        if stored is None:
            return None
        try:
            nonce, sealed = stored.sealed[:_NONCE_BYTES], stored.sealed[_NONCE_BYTES:]
            plain = AESGCM(self._key()).decrypt(nonce, sealed, _bound(account, stored.facts))
            return Login(stored.facts, msgspec.json.decode(plain, type=Tokens))
        except (InvalidTag, ValueError):  # ValueError: a nonce that is too short; and what msgspec raises
            raise self._unreadable(account, "it is damaged, or of another repository") from None

    def forget(self, account: str) -> bool:
        """Remove the account's login; whether there was one. Only under `lock`."""
        with self._telling():
            try:
                self._path(account).unlink()
            except FileNotFoundError:
                return False
            _sync(self._folder)
            return True

    @contextmanager
    def replacing(self, account: str) -> Iterator[Commit]:
        """Gives what stores another login, durably. Only under `lock`.

        Room for it is taken first: a provider that has changed a refresh token wants to hear of the old one no more,
        so a full disk must be found out before the provider is asked.
        """
        temporary = self._folder / f".{account}.new"
        with self._telling():
            temporary.unlink(missing_ok=True)  # of one that was killed
            descriptor = self._make(temporary)
        try:
            with self._telling():
                os.posix_fallocate(descriptor, 0, LARGEST)

            def commit(login: Login) -> None:
                data = self._encoded(account, login)
                with self._telling():
                    os.pwrite(descriptor, data, 0)
                    os.ftruncate(descriptor, len(data))
                    os.fsync(descriptor)
                    temporary.replace(self._path(account))
                    _sync(self._folder)

            yield commit
        finally:
            os.close(descriptor)
            with contextlib.suppress(OSError):  # the next one will
                temporary.unlink(missing_ok=True)

    @contextmanager
    def lock(self, account: str) -> Iterator[None]:
        """Only one at a time changes the account's login; the lock goes with the process, however it ends.

        Whoever has it asks a provider for less than a minute. Raises Busy when it takes longer.
        """
        with self._telling():
            self._make_folder()
            descriptor = self._open_lock(self._folder / f"{account}.lock")
        try:
            until = time.monotonic() + _WAIT_SECONDS
            while not _locked(descriptor):
                if time.monotonic() > until:
                    raise Busy(
                        "another backupd has been asking for a token for more than a minute",
                        subject=account,
                        remedy="see what it waits for; its lock goes when it ends",
                    )
                time.sleep(_GLANCE_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def _make_folder(self) -> None:
        """The folder, of whoever the one above belongs to: root logs in for another user's daemon, too."""
        if self._folder.is_dir():
            return
        self._folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder.mkdir(mode=0o700, exist_ok=True)
        if os.geteuid() == 0:
            above = self._folder.parent.stat()
            os.chown(self._folder, above.st_uid, above.st_gid, follow_symlinks=False)

    def _make(self, path: Path) -> int:
        """A new file of the folder's owner, open for writing. Never one that is there: whoever owns the folder may have
        put a link to a file of root's in its place."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        if os.geteuid() == 0:
            folder = self._folder.stat()
            os.fchown(descriptor, folder.st_uid, folder.st_gid)
        return descriptor

    def _open_lock(self, path: Path) -> int:
        try:
            return self._make(path)
        except FileExistsError:
            return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)

    def _path(self, account: str) -> Path:
        return self._folder / f"{account}.json"

    def _stored(self, account: str) -> _Stored | None:
        with self._telling():
            try:
                with self._path(account).open("rb") as file:
                    data = file.read(LARGEST + 1)
            except FileNotFoundError:
                return None
        try:
            if len(data) > LARGEST:
                raise ValueError
            stored = msgspec.json.decode(data, type=_Stored)
        except ValueError:
            raise self._unreadable(account, "it is damaged") from None
        if stored.format != FORMAT or stored.account != account:
            raise self._unreadable(account, "it is of another kind, or of another account")
        return stored

    def _encoded(self, account: str, login: Login) -> bytes:
        nonce = self._random(_NONCE_BYTES)
        plain = msgspec.json.encode(login.tokens)
        sealed = nonce + AESGCM(self._key()).encrypt(nonce, plain, _bound(account, login.facts))
        return msgspec.json.format(msgspec.json.encode(_Stored(FORMAT, account, login.facts, sealed))) + b"\n"

    def _unreadable(self, account: str, why: str) -> Unreadable:
        return Unreadable(
            f"the stored login cannot be used: {why}", subject=account, remedy=f"run: backupd auth login {account}"
        )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """What failures of the folder mean to a user."""
        try:
            yield
        except OSError as error:
            where, text = str(self._folder), error.strerror or type(error).__name__
            if error.errno in _FULL:
                remedy = "free some space, or move state_dir"
                raise StorageFull("no space for logins", subject=where, remedy=remedy) from None
            raise StorageDenied(
                f"logins cannot be kept: {text}", subject=where, remedy="check state_dir's owner and mode"
            ) from None


def _bound(account: str, facts: Facts) -> bytes:
    """What sealed tokens are tied to."""
    return b"\0".join([b"backupd v1 login", account.encode(), msgspec.json.encode(facts)])


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
