"""Backups of Got-Your-Back are read: labels become mailboxes and flags, and the database stays as it is."""

from __future__ import annotations

import gzip
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from backupd.sources.local import gyb
from backupd.sources.local.detect import detect
from tests.support.local_mail import bodies, by_mailbox, put, read

TABLES = """
    CREATE TABLE messages(message_num INTEGER PRIMARY KEY, message_filename TEXT, message_internaldate TIMESTAMP);
    CREATE TABLE labels (message_num INTEGER, label TEXT);
    CREATE TABLE uids (message_num INTEGER, uid TEXT PRIMARY KEY);
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
"""
MAIL = b"Subject: x\r\n\r\ntext\r\n"


def backup(
    path: Path, messages: list[tuple[str, str, list[str]]], *, tables: str = TABLES, flags: list[str] | None = None
) -> Path:
    """A backup with messages of these file names, dates and labels; each holds its file's name."""
    path.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path / "msg-db.sqlite")) as database, database:
        database.executescript(tables)
        for number, (name, date, labels) in enumerate(messages, 1):
            database.execute("INSERT INTO messages VALUES (?, ?, ?)", (number, name, date))
            database.executemany("INSERT INTO labels VALUES (?, ?)", [(number, label) for label in labels])
            for flag in flags or []:
                database.execute("INSERT INTO flags VALUES (?, ?)", (number, flag))
            put(path / name.replace("\\", "/"), name.encode())
    return path


@pytest.fixture
def in_new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def store(path: Path) -> gyb.GybStore:
    return gyb.FORMAT.open(path, exact=False)


def test_labels_are_mailboxes_and_a_message_is_in_all_of_its(tmp_path: Path) -> None:
    backup(
        tmp_path,
        [
            ("2024/1/5/a.eml", "2024-01-05 10:00:00", ["INBOX", "Work/2024", "UNREAD", "CATEGORY_UPDATES"]),
            ("2024/1/5/b.eml", "2024-01-05 11:00:00", ["SENT"]),
            ("2024/1/6/c.eml", "2024-01-06 10:00:00", ["IMPORTANT"]),
            ("2024/1/7/d.eml", "2024-01-07 10:00:00", []),
            ("2024/1/8/e.eml", "2024-01-08 10:00:00", ["SPAM"]),
            ("2024/1/9/f.eml", "2024-01-09 10:00:00", ["TRASH", "sent"]),
        ],
    )
    assert detect(tmp_path) is gyb.FORMAT
    assert by_mailbox(store(tmp_path)) == {
        "INBOX": [b"2024/1/5/a.eml"],
        "Sent": [b"2024/1/5/b.eml"],
        "Spam": [b"2024/1/8/e.eml"],
        "Trash": [b"2024/1/9/f.eml"],
        "Work/2024": [b"2024/1/5/a.eml"],
        "sent": [b"2024/1/9/f.eml"],
        "Archive": [b"2024/1/6/c.eml", b"2024/1/7/d.eml"],
    }
    uses = {box.name: box.special_use for box in store(tmp_path).mailboxes()}
    assert uses == {
        "INBOX": (),
        "Sent": (b"\\Sent",),
        "Spam": (b"\\Junk",),
        "Trash": (b"\\Trash",),
        "Work/2024": (),
        "sent": (),
    }
    assert store(tmp_path).octets == 6 * len(b"2024/1/5/a.eml")


def test_state_that_is_kept_in_labels_becomes_flags(tmp_path: Path) -> None:
    backup(
        tmp_path,
        [
            ("a.eml", "2024-01-01 10:00:00", ["INBOX", "UNREAD"]),
            ("b.eml", "2024-01-02 10:00:00", ["INBOX", "STARRED", "IMPORTANT"]),
            ("c.eml", "2024-01-03 10:00:00", ["DRAFT"]),
        ],
    )
    assert [each.flags for each in read(store(tmp_path))[0]] == [
        (),
        (b"$Important", b"\\Flagged", b"\\Seen"),
        (b"\\Draft", b"\\Seen"),
    ]


def test_labels_and_flags_of_old_versions_are_imaps(tmp_path: Path) -> None:
    tables = TABLES + "CREATE TABLE flags (message_num INTEGER, flag TEXT);"
    labels = ["\\\\Inbox", "\\Starred", "Family"]
    backup(tmp_path, [("a.eml", "2013-01-01 10:00:00", labels)], tables=tables, flags=["\\Answered", "NonJunk"])
    (message,), _ = read(store(tmp_path))
    assert sorted(box.name for box in message.mailboxes) == ["Family", "INBOX"]
    assert message.flags == (b"NonJunk", b"\\Answered", b"\\Flagged")


@pytest.mark.usefixtures("in_new_york")
def test_dates_are_in_the_local_time_of_the_machine(tmp_path: Path) -> None:
    backup(tmp_path, [("a.eml", "2024-07-05 10:00:00.123000", []), ("b.eml", "nonsense", [])])
    first, second = read(store(tmp_path))[0]
    assert first.stored == datetime(2024, 7, 5, 14, 0, 0, 123000, tzinfo=UTC)
    assert second.stored == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)


def test_messages_come_in_the_order_they_arrived(tmp_path: Path) -> None:
    backup(tmp_path, [("b.eml", "2024-02-01 10:00:00", []), ("a.eml", "2024-01-01 10:00:00", [])])
    assert bodies(store(tmp_path)) == [b"a.eml", b"b.eml"]


def test_files_may_be_compressed_or_named_by_windows(tmp_path: Path) -> None:
    backup(tmp_path, [("2024\\1\\a.eml", "2024-01-01", []), ("2024/1/b.eml.gz", "2024-01-02", [])])
    put(tmp_path / "2024" / "1" / "b.eml.gz", gzip.compress(MAIL))
    assert bodies(store(tmp_path)) == [b"2024\\1\\a.eml", MAIL]


def test_a_file_that_is_missing_or_lies_elsewhere_is_told(tmp_path: Path) -> None:
    names = ["gone.eml", "../secret.eml", "/etc/hostname", "link/a.eml", "kept.eml"]
    backup(tmp_path / "b", [(name, f"2024-01-0{n}", []) for n, name in enumerate(["kept.eml"], 1)])
    put(tmp_path / "secret.eml", b"secret")
    (tmp_path / "b" / "link").symlink_to(tmp_path)
    with closing(sqlite3.connect(tmp_path / "b" / "msg-db.sqlite")) as database, database:
        database.executemany("INSERT INTO messages (message_filename) VALUES (?)", [(name,) for name in names[:4]])
    messages, problems = read(store(tmp_path / "b"))
    assert [each.body for each in messages] == [b"kept.eml"]
    assert [each.place for each in problems] == [f"{tmp_path}/b/{name}" for name in names[:4]]


def test_files_that_the_database_has_lost_are_told(tmp_path: Path) -> None:
    backup(tmp_path, [("2024/1/1/a.eml", "2024-01-01 10:00:00", ["INBOX"])])
    put(tmp_path / "2024" / "1" / "2" / "b.eml", MAIL)
    messages, (problem,) = read(store(tmp_path))
    assert len(messages) == 1
    assert problem.what.startswith("1 files of messages are not in the database")


def test_nothing_is_written_to_the_folder(tmp_path: Path) -> None:
    backup(tmp_path, [("a.eml", "2024-01-01 10:00:00", ["INBOX"])])
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(bodies(store(tmp_path))) == 1
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_a_database_that_was_not_finished_is_told(tmp_path: Path) -> None:
    backup(tmp_path, [("a.eml", "2024-01-01 10:00:00", ["INBOX"])])
    put(tmp_path / "msg-db.sqlite-journal", b"x")
    messages, (problem,) = read(store(tmp_path))
    assert len(messages) == 1
    assert "run it once more" in problem.what


def test_a_database_that_is_damaged_is_told(tmp_path: Path) -> None:
    backup(tmp_path, [("a.eml", "2024-01-01 10:00:00", ["INBOX"])])
    put(tmp_path / "msg-db.sqlite", b"nonsense" * 1000)
    messages, (problem,) = read(store(tmp_path))
    assert not messages
    assert "not a database" in problem.what
    assert not gyb.FORMAT.recognises(tmp_path)
