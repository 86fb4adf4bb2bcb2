"""The format of local mail is told by a look at it, and where it cannot be, what was looked for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from backupd.errors import UsageError
from backupd.sources.local.detect import by_name, chosen, detect, names
from tests.support.local_mail import maildir, put

EML = b"Subject: x\r\n\r\ny\r\n"


def test_a_maildir_is_recognised(tmp_path: Path) -> None:
    assert detect(maildir(tmp_path / "m")).name == "maildir"
    assert detect(tmp_path).name == "maildir"


def test_a_format_is_found_by_each_of_the_names_that_are_shown() -> None:
    assert "maildir" in names()
    for name in names():
        assert by_name(name).name == name


def test_a_name_nobody_has_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(UsageError, match="maildir"):
        by_name("outlook")


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not there"):
        detect(tmp_path / "gone")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="empty folder"):
        detect(tmp_path)


@pytest.mark.parametrize("name", ["takeout.zip", "mail.tgz", "mail.tar.gz", "x.TAR"])
def test_what_is_packed_is_to_be_unpacked(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="unpack"):
        detect(put(tmp_path / name, b"PK\3\4"))


def test_what_no_format_knows_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    put(tmp_path / "photo.jpg", b"\xff\xd8")
    with pytest.raises(UsageError, match=r"looked for .*maildir.*--format"):
        detect(tmp_path)


@pytest.mark.parametrize("name", [*names(), ""])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no mail of a kind" if not name else "a pipe, socket or device"):
        chosen(tmp_path / "pipe", name)


def test_a_format_that_was_named_is_refused_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No such file"):
        chosen(tmp_path / "missing", "mbox")
