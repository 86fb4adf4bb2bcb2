"""Mbox files of every dialect come in octet for octet."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backupd.model import Body
from backupd.sources.local import mbox, mbox_reader
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import LargeBody
from backupd.sources.local.detect import detect
from backupd.sources.local.files import Folder, OpenFile
from tests.support.mbox_writers import FROM_LINE, mboxcl2, mboxo, mboxrd


def whole(body: bytes | Body) -> bytes:
    return body if isinstance(body, bytes) else b"".join(body.chunks())


def read(path: Path, *, exact: bool = True, format_: mbox.MboxFormat = mbox.FORMAT) -> list[LocalMessage]:
    """All messages; a problem fails the test."""
    found = list(format_.open(path, exact=exact).messages())
    assert [each for each in found if isinstance(each, LocalProblem)] == []
    return [each for each in found if isinstance(each, LocalMessage)]


def bodies(path: Path, **options: object) -> list[bytes]:
    return [whole(each.body) for each in read(path, **options)]  # type: ignore[arg-type]


LINES = st.lists(
    st.sampled_from([
        b"", b"From ", b"From now on", b">From x", b">>From ", b">", b"Fro", b"text", b"x" * 90, b"\xff\0",
        b"From a@b Wed Jul 17 09:44:25 1996", b"\r",
    ]),
    max_size=12,
)  # fmt: skip
MESSAGES = st.lists(
    LINES.map(lambda lines: b"Subject: x\n\n" + b"".join(line + b"\n" for line in lines)), min_size=1, max_size=5
)


@given(messages=MESSAGES, window=st.integers(2100, 2400))
def test_what_was_quoted_reversibly_comes_back(
    tmp_path_factory: pytest.TempPathFactory, messages: list[bytes], window: int
) -> None:
    path = tmp_path_factory.mktemp("mbox") / "Inbox"
    path.write_bytes(mboxrd(messages))
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(mbox_reader, "_WINDOW", window)
        assert bodies(path) == messages


@given(messages=MESSAGES, limit=st.integers(1, 60))
def test_large_messages_come_back_in_pieces(
    tmp_path_factory: pytest.TempPathFactory, messages: list[bytes], limit: int
) -> None:
    path = tmp_path_factory.mktemp("mbox") / "Inbox"
    path.write_bytes(mboxrd(messages))
    patch = pytest.MonkeyPatch()
    with patch.context() as patched:
        patched.setattr(mbox_reader, "IN_MEMORY", limit)
        patched.setattr("backupd.sources.local.body.IN_MEMORY", limit)
        patched.setattr("backupd.sources.local.files.CHUNK_OCTETS", 7)
        found = read(path)
        assert [whole(each.body) for each in found] == messages
        assert all(isinstance(each.body, LargeBody) for each in found if len(whole(each.body)) > limit)


@given(messages=MESSAGES)
def test_what_content_length_frames_comes_back(tmp_path_factory: pytest.TempPathFactory, messages: list[bytes]) -> None:
    path = tmp_path_factory.mktemp("mbox") / "Inbox"
    path.write_bytes(mboxcl2(messages))

    found = [body.replace(b"\nContent-Length: %d" % len(body.partition(b"\n\n")[2]), b"") for body in bodies(path)]

    assert found == messages


def test_mboxo_is_read_as_such_when_it_is_told(tmp_path: Path) -> None:
    message = b"Subject: x\n\nFrom here\n>>From there\n"
    (tmp_path / "Inbox").write_bytes(mboxo([message]))

    assert bodies(tmp_path / "Inbox", format_=mbox.MBOXO) == [message]


def test_from_in_the_text_begins_no_message(tmp_path: Path) -> None:
    text = b"Subject: x\n\nHello,\n\nFrom now on all is well.\n\nFrom me\n"
    (tmp_path / "Inbox").write_bytes(FROM_LINE + text + b"\n" + FROM_LINE + b"Subject: y\n\n\n")

    assert bodies(tmp_path / "Inbox") == [text, b"Subject: y\n\n"]


def test_a_file_with_crlf_is_taken_as_it_is(tmp_path: Path) -> None:
    first, second = b"Subject: x\r\n\r\nHi\r\n", b"Subject: y\r\n\r\nHo\r\n"
    start = FROM_LINE.replace(b"\n", b"\r\n")
    (tmp_path / "Inbox").write_bytes(start + first + b"\r\n" + start + second + b"\r\n")

    assert bodies(tmp_path / "Inbox", exact=False) == [first, second]


def test_a_file_that_is_cut_gives_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "Inbox").write_bytes(mboxrd([b"Subject: x\n\nHi\n"]) + FROM_LINE + b"Subject: y\n\nhal")

    assert bodies(tmp_path / "Inbox") == [b"Subject: x\n\nHi\n", b"Subject: y\n\nhal"]


def test_lines_get_crlf_unless_all_octets_shall_stay(tmp_path: Path) -> None:
    (tmp_path / "Inbox").write_bytes(mboxrd([b"Subject: x\n\nHi\n"]))

    assert bodies(tmp_path / "Inbox", exact=False) == [b"Subject: x\r\n\r\nHi\r\n"]


def test_what_a_program_wrote_for_itself_becomes_flags(tmp_path: Path) -> None:
    message = (
        b"Subject: x\nStatus: RO\nX-Status: AF\nX-Keywords: $Label1 work\nX-UID: 17\nContent-Length: 3\nTo: b\n\nHi\n"
    )
    (tmp_path / "Inbox").write_bytes(mboxrd([message]))

    (found,) = read(tmp_path / "Inbox", exact=False)
    (kept,) = read(tmp_path / "Inbox", exact=True)

    assert whole(found.body) == b"Subject: x\r\nTo: b\r\n\r\nHi\r\n"
    assert found.flags == kept.flags == (b"$Label1", b"\\Answered", b"\\Flagged", b"\\Seen", b"work")
    assert whole(kept.body) == message


def test_the_message_that_pine_keeps_for_itself_is_no_message(tmp_path: Path) -> None:
    inside = b"Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\nX-IMAP: 123 4\nStatus: RO\n\nThis text\n"
    (tmp_path / "Inbox").write_bytes(mboxrd([inside, b"Subject: x\n\nHi\n"]))

    assert bodies(tmp_path / "Inbox", exact=False) == [b"Subject: x\r\n\r\nHi\r\n"]


def test_each_file_is_a_mailbox_and_folders_are_levels(tmp_path: Path) -> None:
    (tmp_path / "Archive").mkdir()
    for name in ("Inbox", "Sent.mbox", "Archive/2009.mbox"):
        (tmp_path / name).write_bytes(mboxrd([b"Subject: %b\n\nHi\n" % name.encode()]))
    (tmp_path / "notes.txt").write_text("no mail")
    (tmp_path / "Empty.mbox").touch()

    found = {each.mailboxes[0].name: whole(each.body) for each in read(tmp_path)}
    boxes = {box.name: box for box in mbox.FORMAT.open(tmp_path, exact=True).mailboxes()}

    assert sorted(found) == ["Archive/2009", "INBOX", "Sent"]
    assert sorted(boxes) == ["Archive/2009", "Empty", "INBOX", "Sent"]
    assert boxes["Sent"].special_use == (b"\\Sent",)


def test_a_folder_of_files_without_a_suffix_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "lists").mkdir()
    (tmp_path / "notes").write_text("no mail")
    assert not mbox.FORMAT.recognises(tmp_path)
    (tmp_path / "lists" / "saved-messages").write_bytes(mboxrd([b"Subject: x\n\nHi\n"]))
    assert detect(tmp_path) is mbox.FORMAT
    assert bodies(tmp_path) == [b"Subject: x\n\nHi\n"]


def test_a_file_that_is_no_mbox_is_told(tmp_path: Path) -> None:
    (tmp_path / "Inbox").write_bytes(b"Subject: x\n\nno From line\n")

    (found,) = mbox.FORMAT.open(tmp_path / "Inbox", exact=True).messages()

    assert isinstance(found, LocalProblem)
    assert "no mbox" in found.what


def test_what_is_named_like_one_or_cannot_be_read_is_told_and_the_others_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "damaged.mbox").write_bytes(b"\0" * 9000)
    (tmp_path / "good.mbox").write_bytes(mboxrd([b"Subject: x\n\nHi\n"]))
    (tmp_path / "notes.txt").write_text("no mail")
    (tmp_path / "closed").write_bytes(mboxrd([b"Subject: y\n\nHi\n"]))
    opened = Folder.open

    def refuse(folder: Folder, name: str) -> OpenFile:
        if name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(folder, name)

    monkeypatch.setattr(Folder, "open", refuse)
    store = mbox.FORMAT.open(tmp_path, exact=True)

    found = list(store.messages())

    told = {each.place: each.what for each in found if isinstance(each, LocalProblem)}
    assert told[f"{tmp_path}/closed"] == "Permission denied"
    assert "no mbox file" in told[f"{tmp_path}/damaged.mbox"]
    assert [whole(each.body) for each in found if isinstance(each, LocalMessage)] == [b"Subject: x\n\nHi\n"]
    assert sorted(box.name for box in store.mailboxes()) == ["damaged", "good"]


@pytest.mark.parametrize("size", [10, 5 << 20])
def test_the_last_message_of_a_file_that_grows_waits_for_the_next_import(tmp_path: Path, size: int) -> None:
    path = tmp_path / "mbox"
    path.write_bytes(mboxrd([b"Subject: x\n\nHi\n", b"Subject: y\n\n" + b"1234567\n" * (size // 8)]))
    coming = mbox.FORMAT.open(path, exact=True).messages()

    first = next(coming)
    with path.open("ab") as file:
        file.write(b"and more\n")
    (last,) = coming

    assert isinstance(first, LocalMessage)
    assert isinstance(last, LocalProblem)
    assert "grew while it was read" in last.what
    assert len(read(path)) == 2


def test_links_that_lead_away_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(mboxrd([b"Subject: secret\n\nHi\n"]))
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "Inbox.mbox").write_bytes(mboxrd([b"Subject: x\n\nHi\n"]))
    (tmp_path / "store" / "Other.mbox").symlink_to(tmp_path / "elsewhere")

    assert bodies(tmp_path / "store") == [b"Subject: x\n\nHi\n"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"From a@b Wed Jul 17 09:44:25 1996", datetime(1996, 7, 17, 9, 44, 25, tzinfo=UTC)),
        (b"From - Wed Jul  7 09:44:25 1996", datetime(1996, 7, 7, 9, 44, 25, tzinfo=UTC)),
        (b"From 1@xxx Wed Jul 17 09:44:25 +0200 1996", datetime(1996, 7, 17, 7, 44, 25, tzinfo=UTC)),
        (b"From a@b Wed Jul 17 09:44 1996", datetime(1996, 7, 17, 9, 44, tzinfo=UTC)),
        (b"From a@b Wed, 17 Jul 1996 09:44:25 -0700", datetime(1996, 7, 17, 16, 44, 25, tzinfo=UTC)),
        (b"From a@b Wed Jul 99 09:44:25 1996", None),
        (b"From ???@???", None),
    ],
)  # fmt: skip
def test_dates_of_from_lines(line: bytes, expected: datetime | None) -> None:
    assert mbox_reader.date_of(line) == expected


def test_the_fields_of_getmail_are_taken_out(tmp_path: Path) -> None:
    own = b"Delivered-To: bob@example.com\nReceived: from pop (192.0.2.7) by here with POP3 getmail6; 28 Nov 2026\n"
    path = tmp_path / "mbox"
    path.write_bytes(mboxrd([b"Return-Path: <a>\n" + own + b"Subject: x\n\nHi\n"]))

    assert bodies(path, exact=False) == [b"Return-Path: <a>\r\nSubject: x\r\n\r\nHi\r\n"]
