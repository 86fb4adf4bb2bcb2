"""Profiles of Thunderbird come in as the server had the mail, with flags, tags and folders."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.sources.local import detect, thunderbird
from backupd.sources.local.base import LocalMessage, LocalProblem
from tests.support.mail import message, nasty_mail
from tests.support.mbox_writers import FROM_LINE, mboxrd

MAILS = [message(f"Message {number}") for number in range(6)]


def filed(raw: bytes, status: int = 0, keys: str = "") -> bytes:
    """A message as Thunderbird files it: LF, and its own fields on top."""
    own = f"X-Account-Key: account1\nX-UIDL: uid\nX-Mozilla-Status: {status:04x}\nX-Mozilla-Status2: 00000000\n"
    own += f"X-Mozilla-Keys: {keys:80}\n"
    return own.encode() + raw.replace(b"\r\n", b"\n")


def write(path: Path, *filed_messages: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(mboxrd(filed_messages, FROM_LINE.replace(b"alice@example.com", b"-")))
    path.with_name(path.name + ".msf").write_text("// index")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """One account with folders in folders, and what else lies in a profile."""
    mail = tmp_path / "Mail" / "pop.example.com"
    write(mail / "Inbox", filed(MAILS[0], 0x1), filed(MAILS[1], 0x1 | 0x2 | 0x1000, "$label1 work"))
    write(mail / "Sent", filed(MAILS[2], 0x1))
    write(mail / "Work", filed(MAILS[3], 0x4))
    write(mail / "Work.sbd" / "2009", filed(MAILS[4]), filed(MAILS[5], 0x9))
    write(mail / "Empty")
    (tmp_path / "Mail" / "Local Folders").mkdir()
    (tmp_path / "Mail" / "Local Folders" / "Trash").touch()
    (mail / "msgFilterRules.dat").write_text("version")
    (mail / "popstate.dat").write_bytes(FROM_LINE)
    (tmp_path / "prefs.js").write_text("// preferences")
    (tmp_path / "global-messages-db.sqlite").write_bytes(b"SQLite")
    return tmp_path


def read(path: Path, *, exact: bool = False) -> list[LocalMessage]:
    found = list(thunderbird.FORMAT.open(path, exact=exact).messages())
    assert [each for each in found if isinstance(each, LocalProblem)] == []
    return [each for each in found if isinstance(each, LocalMessage)]


def by_box(found: list[LocalMessage]) -> dict[str, list[bytes]]:
    boxes: dict[str, list[bytes]] = {}
    for each in found:
        assert isinstance(each.body, bytes)
        boxes.setdefault(each.mailboxes[0].name, []).append(each.body)
    return boxes


def test_messages_are_the_server_s_and_folders_are_levels(profile: Path) -> None:
    assert by_box(read(profile)) == {
        "INBOX": MAILS[:2], "Sent": [MAILS[2]], "Work": [MAILS[3]], "Work/2009": [MAILS[4]],
    }  # fmt: skip


def test_what_was_deleted_and_waits_for_compaction_is_left_out(profile: Path) -> None:
    assert MAILS[5] not in [each.body for each in read(profile)]


def test_flags_and_tags(profile: Path) -> None:
    flags = {each.body: each.flags for each in read(profile)}

    assert flags[MAILS[0]] == (b"\\Seen",)
    assert flags[MAILS[1]] == (b"$Forwarded", b"$label1", b"\\Answered", b"\\Seen", b"work")
    assert flags[MAILS[3]] == (b"\\Flagged",)
    assert flags[MAILS[4]] == ()


def test_special_folders_and_empty_ones_are_known(profile: Path) -> None:
    boxes = {box.name: box for box in thunderbird.FORMAT.open(profile, exact=False).mailboxes()}

    assert sorted(boxes) == ["Empty", "INBOX", "Sent", "Work", "Work/2009"]
    assert boxes["Sent"].special_use == (b"\\Sent",)


def test_several_accounts_are_levels_of_their_own(profile: Path) -> None:
    write(profile / "ImapMail" / "imap.example.com" / "INBOX", filed(MAILS[0]))
    write(profile / "Mail" / "Local Folders" / "Old", filed(MAILS[1]))

    assert sorted(by_box(read(profile))) == [
        "Local Folders/Old", "imap.example.com/INBOX", "pop.example.com/Inbox", "pop.example.com/Sent",
        "pop.example.com/Work", "pop.example.com/Work/2009",
    ]  # fmt: skip


@pytest.mark.parametrize("where", ["", "Mail/pop.example.com"])
def test_a_profile_and_a_part_of_it_are_recognised(profile: Path, where: str) -> None:
    path = profile / where

    assert detect.detect(path).name == "thunderbird"
    assert sorted(by_box(read(path))) == ["INBOX", "Sent", "Work", "Work/2009"]


def test_fields_of_the_sender_that_look_alike_stay(tmp_path: Path) -> None:
    raw = b"Subject: x\r\nX-Mozilla-Status: 0009\r\nX-UIDL: 1\r\n\r\nHi\r\n"
    write(tmp_path / "Inbox", filed(raw, 1), raw.replace(b"\r\n", b"\n"))

    assert by_box(read(tmp_path)) == {"INBOX": [raw, raw]}


def test_exactly_what_is_in_the_file_can_be_had_too(tmp_path: Path) -> None:
    write(tmp_path / "Inbox", filed(MAILS[0], 1))

    (found,) = read(tmp_path, exact=True)

    assert (found.body, found.flags) == (filed(MAILS[0], 1), (b"\\Seen",))


def test_nasty_mail_comes_through(tmp_path: Path) -> None:
    # What LF in the place of CRLF cannot hold is lost before we see it: a lone LF, CR CR LF, and a missing line end.
    sent = [
        raw
        for raw in nasty_mail().values()
        if raw.endswith(b"\r\n") and b"\n" not in raw.replace(b"\r\n", b"") and b"\r\r\n" not in raw
    ]
    write(tmp_path / "Inbox", *(filed(raw) for raw in sent))

    assert by_box(read(tmp_path)) == {"INBOX": sent}
    assert len(sent) > 5


def test_a_mailbox_that_a_crash_has_left_damaged_is_told(profile: Path) -> None:
    inbox = profile / "Mail" / "pop.example.com" / "Inbox"
    inbox.write_bytes(b"\0" * 5000 + inbox.read_bytes())

    found = list(thunderbird.FORMAT.open(profile, exact=False).messages())

    (problem,) = (each for each in found if isinstance(each, LocalProblem))
    assert problem.place == str(inbox)
    assert len(found) == 4
