"""Trees of .eml files are read: each folder a mailbox, each file a message, octets as they are."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backupd.sources.local import eml
from backupd.sources.local.base import LocalStore
from backupd.sources.local.detect import detect
from tests.support.local_mail import bodies, by_mailbox, octets, put, read

MAIL = b"Subject: x\r\n\r\ntext\r\n"


def store(path: Path, *, exact: bool = False) -> LocalStore:
    return eml.FORMAT.open(path, exact=exact)


def test_folders_are_mailboxes_and_files_in_the_root_are_the_inbox(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", b"one\r\n")
    put(tmp_path / "Sent" / "2.EML", b"two\r\n")
    put(tmp_path / "Work" / "2009.05" / "3.eml", b"three\r\n")
    assert detect(tmp_path) is eml.FORMAT
    assert by_mailbox(store(tmp_path)) == {"INBOX": [b"one\r\n"], "Sent": [b"two\r\n"], "Work/2009.05": [b"three\r\n"]}
    assert {box.special_use for box in store(tmp_path).mailboxes()} == {(), (b"\\Sent",)}
    assert store(tmp_path).octets == 5 + 5 + 7


def test_one_file_is_a_store(tmp_path: Path) -> None:
    path = put(tmp_path / "letter.eml", MAIL)
    put(tmp_path / "other.eml", b"other")
    assert detect(path) is eml.FORMAT
    assert by_mailbox(store(path)) == {"INBOX": [MAIL]}
    assert store(path).octets == len(MAIL)


def test_messages_come_in_order_of_the_numbers_in_their_names(tmp_path: Path) -> None:
    for name in ("10-a.eml", "9-b.eml", "100-c.eml"):
        put(tmp_path / name, name.encode())
    assert bodies(store(tmp_path)) == [b"9-b.eml", b"10-a.eml", b"100-c.eml"]


def test_fields_of_mail_programs_stay_and_are_no_flags(tmp_path: Path) -> None:
    raw = b"X-Mozilla-Status: 0001\r\nStatus: RO\r\nSubject: x\r\n\r\ny\r\n"
    put(tmp_path / "1.eml", raw, 1_000_000_000)
    (message,), _ = read(store(tmp_path))
    assert (message.body, message.flags, message.internaldate) == (raw, (), b"")
    assert message.stored == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)


def test_lines_get_the_ends_that_mail_has_unless_exact_octets_are_asked_for(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", b"a\nb\n")
    assert bodies(store(tmp_path)) == [b"a\r\nb\r\n"]
    assert bodies(store(tmp_path, exact=True)) == [b"a\nb\n"]


def test_hidden_files_and_other_files_are_no_messages(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", MAIL)
    for name in ("._1.eml", ".1-17.partial", "notes.txt", "1.ics"):
        put(tmp_path / name, b"x")
    assert bodies(store(tmp_path)) == [MAIL]


def test_what_is_no_file_is_told_and_never_holds_us(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", MAIL)
    os.mkfifo(tmp_path / "2.eml")
    (tmp_path / "3.eml").mkdir()
    (tmp_path / "4.eml").symlink_to(put(tmp_path / "away" / "secret", b"secret"))
    (tmp_path / "5").symlink_to(tmp_path / "away")
    messages, problems = read(store(tmp_path))
    assert [octets(each.body) for each in messages] == [MAIL]
    assert sorted(each.place.rpartition("/")[2] for each in problems) == ["2.eml", "3.eml", "4.eml", "5"]


@pytest.mark.parametrize("name", ["messages.jsonl", "mailbox.json"])
def test_a_pipe_in_the_place_of_notes_is_told_and_the_mail_read(tmp_path: Path, name: str) -> None:
    put(tmp_path / "1.eml", MAIL)
    os.mkfifo(tmp_path / name)
    messages, (problem,) = read(store(tmp_path))
    assert [octets(each.body) for each in messages] == [MAIL]
    assert problem.place.endswith(name)


def test_a_file_that_is_gone_when_it_is_its_turn_is_told(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", MAIL)
    put(tmp_path / "2.eml", MAIL)
    items = store(tmp_path).messages()
    next(items)
    (tmp_path / "2.eml").unlink()
    (problem,) = items
    assert problem.place.endswith("2.eml")


def test_escaped_names_of_folders_are_read_back(tmp_path: Path) -> None:
    put(tmp_path / "a%2Fb" / "1.eml", MAIL)
    put(tmp_path / "50%" / "1.eml", MAIL)
    assert [box.name for box in store(tmp_path).mailboxes()] == ["50%", "a/b"]


def test_notes_that_are_nonsense_are_told_and_the_mail_is_read(tmp_path: Path) -> None:
    put(tmp_path / "A" / "1.eml", MAIL)
    put(tmp_path / "A" / "2.eml", b"a\nb\n")
    good = {"uid": 1, "flags": ["\\Seen"], "internaldate": "x", "size": 4, "key": "", "file": "2.eml"}
    lines = [b"{}", b"nonsense", json.dumps(good).encode(), json.dumps({**good, "flags": ["\u20ac"]}).encode()]
    put(tmp_path / "A" / "messages.jsonl", b"\n".join(lines) + b'\n{"cut": ')
    put(tmp_path / "A" / "mailbox.json", b'{"raw_name": 7}')
    messages, problems = read(store(tmp_path))
    assert [(octets(each.body), each.flags) for each in messages] == [(MAIL, ()), (b"a\nb\n", (b"\\Seen",))]
    assert sorted(each.place.rpartition("/")[2] for each in problems) == ["mailbox.json", "messages.jsonl"]
    assert "3 lines" in "".join(each.what for each in problems)


def test_a_file_that_is_not_what_the_notes_tell_of_gets_proper_line_ends(tmp_path: Path) -> None:
    put(tmp_path / "1.eml", b"a\nb\nc\n")
    note = {"flags": ["\\Seen"], "internaldate": "17-Jul-1996 02:44:25 -0700", "size": 4, "file": "1.eml"}
    put(tmp_path / "messages.jsonl", json.dumps(note).encode() + b"\n")
    (message,), _ = read(store(tmp_path))
    assert (message.body, message.flags) == (b"a\r\nb\r\nc\r\n", (b"\\Seen",))
