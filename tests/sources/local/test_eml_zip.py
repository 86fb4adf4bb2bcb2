"""The zip files of our own restores are read without being unpacked."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from backupd.errors import Damaged, UsageError
from backupd.sources.local import eml_zip
from backupd.sources.local.base import IN_MEMORY
from backupd.sources.local.detect import detect
from tests.support.file_targets import Files, restore
from tests.support.local_mail import octets, put, read
from tests.support.mail import large_message, message
from tests.support.restoring import mailbox, outgoing


def restored(path: Path, raws: list[bytes]) -> Path:
    target = Files("zip", path).open()
    restore(target, mailbox(b"INBOX"), [outgoing(raw, uid, (b"kw",)) for uid, raw in enumerate(raws, 1)])
    target.close()
    return path


def test_a_large_message_is_read_in_pieces(tmp_path: Path) -> None:
    raw = large_message(IN_MEMORY + 1000)
    path = restored(tmp_path / "a.zip", [raw, message("small")])
    messages, problems = read(eml_zip.FORMAT.open(path, exact=False))
    assert problems == []
    assert [octets(each.body) for each in messages] == [raw, message("small")]
    assert not isinstance(messages[0].body, bytes)


def test_notes_of_several_runs_count(tmp_path: Path) -> None:
    path = restored(tmp_path / "a.zip", [message("one")])
    restored(path, [message("one"), message("two")])
    messages, problems = read(eml_zip.FORMAT.open(path, exact=False))
    assert problems == []
    assert [(each.body, each.flags) for each in messages] == [(message("one"), (b"kw",)), (message("two"), (b"kw",))]


def test_a_message_that_is_damaged_is_told_and_the_others_read(tmp_path: Path) -> None:
    path = restored(tmp_path / "a.zip", [message("one"), message("two")])
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = next(each for each in archive.infolist() if each.filename.endswith(".eml"))
        content[info.header_offset + 30 + len(info.filename) + len(info.extra) + 20] ^= 0xFF
    path.write_bytes(content)
    messages, (problem,) = read(eml_zip.FORMAT.open(path, exact=False))
    assert [each.body for each in messages] == [message("two")]
    assert "damaged in the zip file" in problem.what


def test_other_zip_files_are_to_be_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.eml", "x")
    with pytest.raises(UsageError, match="unpack"):
        detect(tmp_path / "a.zip")
    with pytest.raises(Damaged, match="not a zip file"):
        read(eml_zip.FORMAT.open(put(tmp_path / "b.zip", b"nonsense"), exact=False))
