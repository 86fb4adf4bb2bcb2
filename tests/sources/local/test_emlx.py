"""Apple Mail's folders are read: each whole message, with its flags and date; what is not whole is told."""

from __future__ import annotations

import plistlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backupd.sources.local import emlx
from backupd.sources.local.base import IN_MEMORY
from backupd.sources.local.detect import detect
from tests.support.local_mail import bodies, by_mailbox, octets, put, read
from tests.support.mail import nasty_mail, nasty_octets

MAIL = b"Subject: x\n\ntext\n"
RECEIVED = 1_581_000_000
FIRST = "0A1B2C3D-0000-4000-8000-0123456789AB"
SECOND = "FFFFFFFF-0000-4000-8000-0123456789AB"


def emlx_file(raw: bytes, flags: int = 0, received: object = RECEIVED) -> bytes:
    """A message as Mail keeps it."""
    noted = {"conversation-id": 7, "date-received": received, "flags": flags, "remote-id": "789"}
    return b"%-10d\n" % len(raw) + raw + plistlib.dumps(noted)


def store(path: Path, *, exact: bool = False) -> emlx.EmlxStore:
    return emlx.FORMAT.open(path, exact=exact)


def test_mailboxes_are_found_in_the_tree_of_an_account(tmp_path: Path) -> None:
    account = tmp_path / "V10" / FIRST
    for number, place in enumerate(
        [
            "INBOX.mbox/AAAA/Data/Messages",
            "INBOX.mbox/AAAA/Data/3/1/Messages",
            "Sent Messages.mbox/BBBB/Data/0/9/Messages",
            "Work.mbox/2009.05.mbox/CCCC/Data/Messages",
            "[Gmail].mbox/All Mail.mbox/DDDD/Data/Messages",
            "Folder/Sub.mbox/Messages",
        ]
    ):
        put(account / place / f"{number}.emlx", emlx_file(b"%d\n" % number))
    put(tmp_path / "V10" / "MailData" / "Envelope Index", b"x")
    put(account / "INBOX.mbox" / "AAAA" / "Data" / "Attachments" / "1" / "2" / "9.emlx", emlx_file(b"attached\n"))
    expected = {
        "INBOX": [b"1\r\n", b"0\r\n"],
        "Sent Messages": [b"2\r\n"],
        "Work/2009.05": [b"3\r\n"],
        "[Gmail]/All Mail": [b"4\r\n"],
        "Folder/Sub": [b"5\r\n"],
    }
    for root in (tmp_path, tmp_path / "V10", account):
        assert detect(root) is emlx.FORMAT
        assert by_mailbox(store(root)) == expected
    uses = {box.name: box.special_use for box in store(tmp_path).mailboxes()}
    assert uses["Sent Messages"] == (b"\\Sent",)
    assert by_mailbox(store(account / "Work.mbox")) == {"Work/2009.05": [b"3\r\n"]}


def test_old_versions_name_accounts_and_keep_local_mailboxes_apart(tmp_path: Path) -> None:
    put(tmp_path / "POP-bob@host" / "INBOX.mbox" / "Messages" / "1.emlx", emlx_file(b"pop\n"))
    put(tmp_path / "Mailboxes" / "Old.mbox" / "Messages" / "2.emlx", emlx_file(b"local\n"))
    assert by_mailbox(store(tmp_path)) == {"INBOX": [b"pop\r\n"], "Old": [b"local\r\n"]}
    put(tmp_path / "IMAP-bob@host" / "INBOX.imapmbox" / "Messages" / "3.emlx", emlx_file(b"imap\n"))
    assert by_mailbox(store(tmp_path)) == {
        "POP-bob@host/INBOX": [b"pop\r\n"],
        "IMAP-bob@host/INBOX": [b"imap\r\n"],
        "Old": [b"local\r\n"],
    }


def test_several_accounts_stay_apart(tmp_path: Path) -> None:
    for account in (FIRST, SECOND):
        put(tmp_path / account / "INBOX.mbox" / "Messages" / "1.emlx", emlx_file(account.encode()))
    assert by_mailbox(store(tmp_path)) == {f"{each}/INBOX": [each.encode()] for each in (FIRST, SECOND)}


def test_loose_files_are_the_inbox(tmp_path: Path) -> None:
    put(tmp_path / "10.emlx", emlx_file(b"ten\n"))
    put(tmp_path / "9.emlx", emlx_file(b"nine\n"))
    assert by_mailbox(store(tmp_path)) == {"INBOX": [b"nine\r\n", b"ten\r\n"]}


@pytest.mark.parametrize(
    ("bits", "flags"),
    [
        (0, ()),
        (1, (b"\\Seen",)),
        (1 << 1 | 1 << 2, (b"\\Answered", b"\\Deleted")),
        (1 << 4 | 1 << 6 | 1 << 8, (b"$Forwarded", b"\\Draft", b"\\Flagged")),
        (1 << 24, (b"$Junk",)),
        (1 << 25, (b"$NotJunk",)),
        (8623489089, (b"$NotJunk", b"\\Draft", b"\\Seen")),
        (1 << 3 | 1 << 5 | 1 << 7 | 1 << 9 | 63 << 10 | 127 << 16, ()),
    ],
)
def test_flags_are_bits(tmp_path: Path, bits: int, flags: tuple[bytes, ...]) -> None:
    put(tmp_path / "1.emlx", emlx_file(MAIL, bits))
    (message,), _ = read(store(tmp_path))
    assert message.flags == flags


@pytest.mark.parametrize("received", [RECEIVED, float(RECEIVED)])
def test_the_date_is_when_mail_received_it(tmp_path: Path, received: object) -> None:
    put(tmp_path / "1.emlx", emlx_file(MAIL, received=received))
    put(tmp_path / "2.emlx", emlx_file(MAIL, received=10**18))
    put(tmp_path / "3.emlx", emlx_file(MAIL, received="never"))
    first, *others = read(store(tmp_path))[0]
    assert first.stored == datetime(2020, 2, 6, 14, 40, tzinfo=UTC)
    assert [each.stored for each in others] == [None, None]


def test_any_octets_come_back(tmp_path: Path) -> None:
    raws = [*nasty_mail().values(), *nasty_octets().values(), b"x" * IN_MEMORY + b"\n" * 1000]
    for number, raw in enumerate(raws):
        put(tmp_path / f"{number}.emlx", emlx_file(raw))
    assert bodies(store(tmp_path, exact=True)) == raws


def test_a_message_without_its_list_is_read(tmp_path: Path) -> None:
    put(tmp_path / "1.emlx", b"17\n" + MAIL)
    put(tmp_path / "2.emlx", b"17\n" + MAIL + b"<?xml version='1.0'?><plist><dict><key>flags</key>")
    put(tmp_path / "3.emlx", b"17\n" + MAIL + plistlib.dumps(["no dictionary"]))
    put(tmp_path / "4.emlx", b"17\n" + MAIL + b"<!DOCTYPE x [<!ENTITY a 'b'>]><plist><string>&a;</string></plist>")
    messages, problems = read(store(tmp_path))
    assert problems == []
    assert [(octets(each.body), each.flags, each.stored) for each in messages] == [
        (b"Subject: x\r\n\r\ntext\r\n", (), None)
    ] * 4


def test_what_is_not_whole_is_told(tmp_path: Path) -> None:
    emptied = (
        b"Content-Type: multipart/mixed; boundary=B\n\n--B\n\ntext\n--B\nContent-Type: image/png\n"
        b"X-Apple-Content-Length: 12\nContent-Transfer-Encoding: base64\n\n\n--B--\n"
    )
    quoted = b"Subject: about the field\n\nX-Apple-Content-Length: 12\n\n--B\n"
    put(tmp_path / "1.partial.emlx", emlx_file(MAIL))
    put(tmp_path / "2.emlx", emlx_file(emptied))
    put(tmp_path / "3.emlx", emlx_file(quoted))
    put(tmp_path / "4.emlx", b"1000\n" + MAIL)
    put(tmp_path / "5.emlx", MAIL)
    put(tmp_path / "6.emlx", b"")
    messages, problems = read(store(tmp_path, exact=True))
    assert [each.body for each in messages] == [quoted]
    assert [each.place.rpartition("/")[2] for each in problems] == [
        "1.partial.emlx",
        "2.emlx",
        "4.emlx",
        "5.emlx",
        "6.emlx",
    ]
    assert "17 octets of a message of 1000" in problems[2].what


def test_a_message_made_to_hold_us_up_does_not(tmp_path: Path) -> None:
    raw = b"--\n" * (IN_MEMORY // 4) + b"X-Apple-Content-Length:\n" * 20_000
    put(tmp_path / "1.emlx", emlx_file(raw))
    assert bodies(store(tmp_path, exact=True)) == [raw]
