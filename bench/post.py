"""Mail that arrives all the time, and when it is restorable: the two sides of `bench soak`.

From delivery to restorable: from the server's OK to APPEND to the moment at which the first snapshot is stored in which
the mailbox has so many messages. That is exact as long as nothing is expunged, and nothing is.
"""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from backupd.repository.repository import Repository, unlock
from backupd.storage.local import LocalStorage
from tests.support.dovecot_account import Account
from tests.support.imap_wire import Refused, Wire
from tests.support.mail import message
from tests.support.mail import text as words


def say(line: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


@dataclass
class Delivered:
    """What one account has received: SHA-256 of each message and when the server confirmed it, in its order. doubtful:
    of a message that was not confirmed, because the server went down meanwhile."""

    account: Account
    digests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    restorable: int = 0
    doubtful: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Postman(threading.Thread):
    """Delivers mail to accounts at random, so many messages a second."""

    def __init__(self, accounts: list[Delivered], rate: float, seed: int) -> None:
        super().__init__(daemon=True)
        self._accounts, self._rate, self._chance = accounts, rate, random.Random(seed)
        self._wires: dict[str, Wire] = {}
        self.end = threading.Event()
        self._number = 0

    def run(self) -> None:
        ahead = time.monotonic()
        while not self.end.is_set():
            ahead = max(ahead + self._chance.expovariate(self._rate), time.monotonic() - 5)
            if self.end.wait(max(0.0, ahead - time.monotonic())):
                break
            self._deliver(self._chance.choice(self._accounts))

    def _deliver(self, to: Delivered) -> None:
        self._number += 1
        raw = message(f"Soak {id(self)} {self._number}", words(self._number, self._chance.randint(200, 20_000)))
        account, digest = to.account, hashlib.sha256(raw).hexdigest()
        try:
            wire = self._wires.get(account.username)
            if wire is None:
                wire = self._wires[account.username] = Wire(
                    account.host, account.port, account.username, account.password, timeout=20
                )
                self._settle(to)
            with to.lock:  # no snapshot is looked at between the server's OK and the note of it
                to.doubtful = digest
                wire.command(b"APPEND INBOX {%d+}\r\n%s" % (len(raw), raw))
                to.digests.append(digest)
                to.times.append(time.time())
                to.doubtful = ""
        except (OSError, Refused):  # the server restarts
            if wire := self._wires.pop(account.username, None):
                wire.close()
            self.end.wait(0.5)

    def _settle(self, to: Delivered) -> None:
        """Whether the server has stored what it could not confirm any more."""
        with to.lock:
            if to.doubtful and to.account.status("INBOX")["MESSAGES"] > len(to.digests):
                to.digests.append(to.doubtful)
                to.times.append(time.time())
            to.doubtful = ""

    def settle(self) -> None:
        """The same for all accounts, when the postman has ended."""
        for one in self._accounts:
            self._settle(one)


class Watcher(threading.Thread):
    """Notes when messages become restorable, by the snapshots as they appear."""

    def __init__(self, folder: Path, passphrase: str, delivered: Mapping[str, Delivered]) -> None:
        super().__init__(daemon=True)
        storage = LocalStorage(folder)
        secrets = unlock(storage, passphrase)
        self._repository = Repository(storage, secrets)
        self._folders = {name: folder / "snapshots" / secrets.account_tag(name) for name in delivered}
        self._delivered, self._seen = delivered, dict[str, set[str]]()
        self.seconds: list[float] = []
        self.end = threading.Event()

    def run(self) -> None:
        while not self.end.wait(0.5):
            self.look()

    def look(self) -> None:
        for name, folder in self._folders.items():
            try:
                there = {entry.name: entry.stat().st_ctime for entry in os.scandir(folder)}
            except OSError:
                continue
            new = there.keys() - self._seen.get(name, set())
            if not new:
                continue
            self._seen[name] = set(there)
            for ref in self._repository.refs(name):
                if ref.id in new:
                    self._note(self._delivered[name], ref.id, name, there[ref.id])

    def _note(self, to: Delivered, identifier: str, name: str, stored: float) -> None:
        try:
            ref = next(ref for ref in self._repository.refs(name) if ref.id == identifier)
            snapshot = self._repository.snapshot(ref)
        except Exception as error:  # noqa: BLE001 - forgotten meanwhile, or a checkpoint that has gone
            say(f"{name}: {identifier} went before it was read: {type(error).__name__}")
            return
        count = sum(record.messages for record in snapshot.mailboxes if record.mailbox.name.upper() == "INBOX")
        with to.lock:
            self.seconds += [max(0.0, stored - each) for each in to.times[to.restorable : count]]
            to.restorable = max(to.restorable, min(count, len(to.times)))


