"""Stores made of mbox files: Apple Mail's exports, and the backups of imap-backup."""

from __future__ import annotations

import json
import re
from pathlib import Path

from backupd.sources.local import apple_mbox, detect, imap_backup
from backupd.sources.local.base import LocalMessage, LocalProblem
from tests.support.mail import message
from tests.support.mbox_writers import FROM_LINE, mboxrd

MAILS = [message(f"Message {number}", "From here\r\n>From there\r\n") for number in range(3)]


def lf(raw: bytes) -> bytes:
    return raw.replace(b"\r\n", b"\n")


def imap_backup_of(folder: Path, name: str, mails: list[tuple[bytes, list[str]]]) -> None:
    """Files of one mailbox as imap-backup writes them."""
    data, entries = b"", []
    for uid, (raw, flags) in enumerate(mails, 1):
        whole = FROM_LINE + re.sub(rb"(?m)^(>*From )", rb">\1", lf(raw)) + b"\n"
        entries.append({"uid": uid, "offset": len(data), "length": len(whole), "flags": flags})
        data += whole
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.mbox").write_bytes(data)
    (folder / f"{name}.imap").write_text(json.dumps({"version": 3, "uid_validity": 7, "messages": entries}))


def read(found: list[LocalMessage | LocalProblem]) -> dict[str, list[tuple[object, tuple[bytes, ...]]]]:
    boxes: dict[str, list[tuple[object, tuple[bytes, ...]]]] = {}
    for each in found:
        assert isinstance(each, LocalMessage), each
        boxes.setdefault(each.mailboxes[0].name, []).append((each.body, each.flags))
    return boxes


def test_a_backup_of_imap_backup_comes_in_with_its_flags(tmp_path: Path) -> None:
    imap_backup_of(tmp_path, "INBOX", [(MAILS[0], ["Seen", "$Label1"]), (MAILS[1], [])])
    imap_backup_of(tmp_path / "Work", "Old%3a; mail", [(MAILS[2], ["Flagged"])])

    assert detect.detect(tmp_path).name == "imap-backup"
    assert read(list(imap_backup.FORMAT.open(tmp_path, exact=False).messages())) == {
        "INBOX": [(MAILS[0], (b"$Label1", b"\\Seen")), (MAILS[1], ())],
        "Work/Old: mail": [(MAILS[2], (b"\\Flagged",))],
    }


def test_an_index_that_cannot_be_read_costs_the_flags_only(tmp_path: Path) -> None:
    imap_backup_of(tmp_path, "INBOX", [(MAILS[0], ["Seen"])])
    (tmp_path / "INBOX.imap").write_text("{")

    problem, found = imap_backup.FORMAT.open(tmp_path, exact=False).messages()

    assert isinstance(problem, LocalProblem)
    assert isinstance(found, LocalMessage)
    assert (found.body, found.flags) == (MAILS[0], ())


def test_an_export_of_apple_mail_comes_in(tmp_path: Path) -> None:
    for name, raw in {"Inbox.mbox": MAILS[0], "Work.mbox/2009.mbox": MAILS[1]}.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "mbox").write_bytes(mboxrd([lf(raw)]))
        (tmp_path / name / "table_of_contents").write_bytes(b"\0\1")

    assert detect.detect(tmp_path).name == "apple-mbox"
    assert read(list(apple_mbox.FORMAT.open(tmp_path, exact=False).messages())) == {
        "INBOX": [(MAILS[0], ())], "Work/2009": [(MAILS[1], ())],
    }  # fmt: skip
    assert read(list(apple_mbox.FORMAT.open(tmp_path / "Inbox.mbox", exact=False).messages())) == {
        "INBOX": [(MAILS[0], ())]
    }
