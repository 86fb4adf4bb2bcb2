"""Google Takeout: labels become mailboxes and flags, and messages are those of IMAP."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from backupd.sources.local import detect, takeout
from backupd.sources.local.base import LocalMessage
from tests.support.mail import message
from tests.support.mbox_writers import mboxrd

FROM = b"From 1234567890@xxx Wed Jul 17 09:44:25 +0000 1996\n"


def exported(raw: bytes, labels: str) -> bytes:
    """A message as Takeout writes it."""
    return f"X-GM-THRID: 1234567890\nX-Gmail-Labels: {labels}\n".encode() + raw.replace(b"\r\n", b"\n")


def read(path: Path, *, exact: bool = False) -> list[LocalMessage]:
    found = list(takeout.FORMAT.open(path, exact=exact).messages())
    return [each for each in found if isinstance(each, LocalMessage)]


@pytest.mark.parametrize(
    ("labels", "boxes", "flags"),
    [
        ("Inbox,Opened", ["INBOX"], [b"\\Seen"]),
        ("Inbox,Unread,Starred,Important", ["INBOX"], [b"$Important", b"\\Flagged"]),
        ("Sent,Work/2009", ["Sent", "Work/2009"], [b"\\Seen"]),
        ("Archived,Opened,Category Updates", ["Archive"], [b"\\Seen"]),
        ("Drafts", ["Drafts"], [b"\\Draft", b"\\Seen"]),
        ("Spam,Unread", ["Junk"], []),
        ("Trash", ["Trash"], [b"\\Seen"]),
        ('"a, b",Posteingang,Ungelesen', ["a, b", "INBOX"], []),
        ("=?UTF-8?Q?Inbox,B=C3=BCro?=", ["INBOX", "Büro"], [b"\\Seen"]),
        ("Inbox,\n Work", ["INBOX", "Work"], [b"\\Seen"]),
    ],
)
def test_labels_become_mailboxes_and_flags(tmp_path: Path, labels: str, boxes: list[str], flags: list[bytes]) -> None:
    raw = message("Hello")
    path = tmp_path / "All mail.mbox"
    path.write_bytes(mboxrd([exported(raw, labels)], FROM))

    (found,) = read(path)

    assert [box.name for box in found.mailboxes] == boxes
    assert list(found.flags) == flags
    assert found.body == raw
    assert found.stored == datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC)


def test_special_mailboxes_are_known_as_such(tmp_path: Path) -> None:
    path = tmp_path / "mail.mbox"
    path.write_bytes(mboxrd([exported(message("Hello"), "Sent,Trash,Archived")], FROM))

    assert {box.name: box.special_use for box in read(path)[0].mailboxes} == {
        "Sent": (b"\\Sent",), "Trash": (b"\\Trash",),
    }  # fmt: skip


def test_a_folder_of_takeout_is_recognised_and_a_plain_mbox_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "Takeout" / "Mail"
    folder.mkdir(parents=True)
    (folder / "All mail.mbox").write_bytes(mboxrd([exported(message("Hello"), "Inbox")], FROM))
    (tmp_path / "plain.mbox").write_bytes(mboxrd([message("Hello").replace(b"\r\n", b"\n")]))

    assert detect.detect(tmp_path / "Takeout").name == "takeout"
    assert detect.detect(folder / "All mail.mbox").name == "takeout"
    assert detect.detect(tmp_path / "plain.mbox").name == "mbox"


def test_exactly_what_is_in_the_file_can_be_had_too(tmp_path: Path) -> None:
    path = tmp_path / "mail.mbox"
    kept = exported(message("Hello"), "Inbox")
    path.write_bytes(mboxrd([kept], FROM))

    (found,) = read(path, exact=True)

    assert (found.body, found.flags) == (kept, (b"\\Seen",))
