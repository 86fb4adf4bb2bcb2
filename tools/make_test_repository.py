"""Makes tests/data/repository: a small, whole repository that every later version must still read.

Run it only to make a new one beside it, for a new format: the point of the old one is that it stays as it is.

    python tools/make_test_repository.py DIRECTORY

DIRECTORY gets repository/ and repository.json, which says what is in it: by snapshot id, mailbox (raw name in
hexadecimal) and UID, the SHA-256 of the message, its flags and its INTERNALDATE. The passphrase is PASSPHRASE.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from pathlib import Path

from backupd.operations.backup import backup
from backupd.operations.state import State
from backupd.repository.repository import Repository, create
from backupd.repository.slots import Argon2
from backupd.storage.local import LocalStorage
from tests.support.mail import Attachment, large_message, message, nasty_mail, noise
from tests.support.reading import contents
from tests.support.simulated_account import SimulatedAccount

PASSPHRASE = "correct horse battery staple"  # noqa: S105 - everybody may know it
GREETING = "Schöne Grüße aus Köln\r\n".encode()


def main(place: Path) -> None:
    storage = LocalStorage(place / "repository")
    secrets = create(storage, PASSPHRASE, argon2=Argon2(iterations=1, memory_kib=64, lanes=1))
    account = SimulatedAccount()
    file = noise("stored repository", 30_000)
    account.append(b"INBOX", message("Plain"), message("Grüße", GREETING), flags=(b"$Forwarded", b"\\Seen"))
    for length in (60, 76):
        attachment = Attachment("a.pdf", file, "application/pdf", length)
        account.append(b"INBOX", message(f"Wrapped at {length}", attachments=[attachment]))
    nasty = nasty_mail()
    account.append(b"INBOX", *(nasty[name] for name in ("only-line-end", "no-header", "bare-cr", "base64-then-text")))
    account.create(b"Entw&APw-rfe", special_use=(b"\\Drafts",), subscribed=True)
    account.append(b"Entw&APw-rfe", large_message(60_000), flags=(b"\\Draft",), date=b" 1-Jan-1970 00:00:00 +0000")
    account.create(b"\xff\xfe/../x")
    account.append(b"\xff\xfe/../x", message("In a mailbox of a strange name"))
    expected = {}
    with tempfile.TemporaryDirectory() as folder, Repository(storage, secrets) as repository:
        state = State(Path(folder))
        backup(repository, account, "alice", state=state)
        account.expunge(b"INBOX", 1)
        account.flag(b"INBOX", 2, b"\\Flagged")
        account.append(b"INBOX", message("New"))
        backup(repository, account, "alice", state=state)
        state.close()
        for ref in repository.refs("alice"):
            expected[ref.id] = {
                name.hex(): {
                    uid: [hashlib.sha256(raw).hexdigest(), [flag.decode() for flag in flags], date.decode()]
                    for uid, (raw, flags, date) in messages.items()
                }
                for name, messages in contents(repository, repository.snapshot(ref)).items()
            }
    (place / "repository.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
