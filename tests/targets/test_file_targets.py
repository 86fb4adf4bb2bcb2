"""What holds for every target that is made of files."""

from __future__ import annotations

import mailbox as python_mailbox
import os
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from backupd.errors import Busy, Damaged, StorageError, UsageError
from backupd.model import Mailbox
from backupd.targets.base import Outcome, Outgoing
from tests.support.corpus import spread
from tests.support.file_targets import Files
from tests.support.file_targets import restore as write_missing
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.restoring import (
    Chunks,
    Restored,
    mailbox,
    messages_of_mbox,
    outgoing,
    present,
    read_eml,
    read_mbox,
    read_zip,
)

INBOX = mailbox(b"INBOX")
NASTY = {**nasty_mail(), **nasty_octets()}


def restore(files: Files, box: Mailbox, messages: list[Outgoing], *, into: str = "") -> list[Outcome]:
    target = files.open(into=into)
    try:
        return write_missing(target, box, messages)
    finally:
        target.close()


def held(files: Files, box: Mailbox) -> Counter[object]:
    target = files.open()
    try:
        return Counter(target.present(box))
    finally:
        target.close()


def bytes_in(files: Files, folder: str = "INBOX") -> Counter[bytes]:
    """The messages of a mailbox, read apart from the package."""
    if files.kind == "maildir":
        place = files.path if folder == "INBOX" else files.path / folder
        return Counter(path.read_bytes() for path in (place / "cur").iterdir())
    if files.kind == "eml":
        return Counter(path.read_bytes() for path in (files.path / folder).glob("*.eml"))
    return Counter(raw for raw, _, _ in states_in(files, folder).values())


def states_in(files: Files, folder: str) -> Restored:
    if files.kind == "eml":
        return read_eml(files.path / folder)
    if files.kind == "mbox":
        return read_mbox(files.path / f"{folder}.mbox")
    return read_zip(files.path, folder)


def test_every_octet_of_nasty_mail_is_there(files: Files) -> None:
    raws = list(NASTY.values())
    outcomes = restore(files, INBOX, [outgoing(raw, uid) for uid, raw in enumerate(raws, 1)])
    assert [each.result for each in outcomes] == ["written"] * len(raws)
    assert bytes_in(files) == Counter(raws)
    assert held(files, INBOX) == Counter(present(raw) for raw in raws)


def test_every_octet_of_real_mail_is_there(files: Files) -> None:
    raws = [each.raw for each in spread("nasty", 200)]
    restore(files, INBOX, [outgoing(raw, uid) for uid, raw in enumerate(raws, 1)])
    assert bytes_in(files) == Counter(raws)
    assert held(files, INBOX) == Counter(present(raw) for raw in raws)


def test_a_large_message_in_chunks_is_the_same(files: Files) -> None:
    raws = [message("large", size=3_000_000), b"x" * 5_000, b">From " * 900 + b"\nFrom me\n>>From you" * 300]
    for octets in (7, 1_000, 1 << 20):
        sent = [
            Outgoing(
                each.key, each.fingerprint, each.uid, each.flags, each.internaldate, each.size, Chunks(raw, octets)
            )
            for uid, raw in enumerate(raws, octets)
            for each in [outgoing(raw, uid)]
        ]
        box = mailbox(b"in %d" % octets)
        restore(files, box, sent if octets != 7 else sent[1:])
        assert bytes_in(files, box.name) == Counter(raws if octets != 7 else raws[1:])


def test_a_second_run_writes_nothing(files: Files) -> None:
    messages = [outgoing(raw, uid) for uid, raw in enumerate(NASTY.values(), 1)]
    restore(files, INBOX, messages)
    before = bytes_in(files)
    assert restore(files, INBOX, messages) == []
    assert bytes_in(files) == before


def test_equal_messages_are_all_kept(files: Files) -> None:
    messages = [outgoing(message("twin"), uid) for uid in (1, 2, 3)]
    restore(files, INBOX, messages[:2])
    assert len(restore(files, INBOX, messages)) == 1
    assert bytes_in(files) == Counter({message("twin"): 3})


def test_messages_are_added_to_what_is_there(files: Files) -> None:
    restore(files, INBOX, [outgoing(message("first"), 1)])
    restore(files, INBOX, [outgoing(message("first"), 1), outgoing(message("second"), 2)])
    assert bytes_in(files) == Counter([message("first"), message("second")])


def test_a_message_written_again_after_it_was_changed_does_not_replace_the_changed_one(files: Files) -> None:
    if files.kind in ("mbox", "zip"):
        pytest.skip("its messages are not files that somebody could change")
    restore(files, INBOX, [outgoing(message("mine"), 1)])
    folder = files.path / ("cur" if files.kind == "maildir" else "INBOX")
    (file,) = (path for path in folder.iterdir() if not path.suffix.startswith(".json"))
    file.write_bytes(b"X: other\r\n\r\n")
    restore(files, INBOX, [outgoing(message("mine"), 1)])
    assert bytes_in(files).keys() == {message("mine"), b"X: other\r\n\r\n"}


def test_a_message_that_cannot_be_read_costs_that_message_alone(files: Files) -> None:
    raw = message("broken", size=5_000)
    broken = msgspec.structs.replace(outgoing(raw, 2), body=Chunks(raw, wrong=Damaged("the block is damaged")))
    short = msgspec.structs.replace(outgoing(message("short"), 4), body=message("short")[:-1])
    good = [outgoing(message("one"), 1), outgoing(message("three"), 3)]
    outcomes = restore(files, INBOX, [good[0], broken, good[1], short])
    assert {each.message.uid: each.result for each in outcomes} == {
        1: "written",
        2: "unreadable",
        3: "written",
        4: "unreadable",
    }
    assert "damaged" in next(each.what for each in outcomes if each.message.uid == 2)
    assert bytes_in(files) == Counter([message("one"), message("three")])


def test_flags_keywords_and_dates_are_kept_exactly(files: Files) -> None:
    if files.kind == "maildir":
        pytest.skip("Dovecot reads it in test_maildir_dovecot")
    kept = {
        1: (message("a"), (b"\\Flagged", b"\\Seen"), b" 7-Jul-1996 02:44:25 -0700"),
        2: (message("b"), (b"$Forwarded", b"NonJunk", b"X:FLAG51135"), b"30-Dec-1899 00:00:00 +0000"),
        3: (message("c"), (b"gr\xfc\xdfe",), b""),
    }
    restore(files, INBOX, [outgoing(raw, uid, flags, date) for uid, (raw, flags, date) in kept.items()])
    assert states_in(files, "INBOX") == {
        uid: (raw, tuple(flag.decode("latin-1") for flag in flags), date.decode())
        for uid, (raw, flags, date) in kept.items()
    }


NAMES: list[tuple[bytes, bytes | None]] = [
    (b"INBOX", b"/"), (b"..", b"/"), (b"../../etc", b"/"), (b"/etc/passwd", b"/"), (b"a//b", b"/"), (b"a/", b"/"),
    (b".", b"/"), (b"", b"/"), (b"a/../b", b"/"), (b"new\nline", b"/"), (b"nul\0", b"/"), (b"\xff\xfe", b"/"),
    (b"Gr\xc3\xbc\xc3\x9fe", b"/"), (b"Gr&APwA3w-e", b"/"), (b"a&b", b"/"), (b"a&-b", b"/"), (b"&AGE-", b"/"),
    (b"a", b"/"), (b"A", b"/"), (b"a.b", b"/"), (b"a/b", b"."), (b"c/d", None), (b"a\\b", b"\\"), (b"x" * 300, b"/"),
    (b"x" * 301, b"/"), (b"&" + b"BDAEMA" * 60 + b"-", b"/"), (b"CON", b"/"), (b"name.eml", b"/"),
    (b"mailbox.json", b"/"), (b"cur", b"/"),
    (b"Cur", b"/"), (b"INBOX/cur", b"/"), (b"tmp/new", b"/"), (b"subscriptions", b"/"), (b"dovecot-uidlist", b"/"),
    (b"a.mbox", b"/"), (b"a.mbox/b", b"/"), (b"messages.jsonl", b"/"), (b"messages-1.jsonl", b"/"), (b" ", b"/"),
    (b"50%", b"/"), (b"50%25", b"/"), (b"%2E%2E", b"/"), (b"C:\\x", b"/"), (b"x.partial", b"/"), (b"inbox/a", b"/"),
    (b"\\", b"/"), (b"~root", b"/"),
]  # fmt: skip


def test_names_of_every_shape_stay_inside_and_apart(files: Files, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    boxes = {name: mailbox(*name) for name in NAMES}
    for name, box in boxes.items():
        (outcome,) = restore(files, box, [outgoing(message(repr(name)))])
        assert outcome.result == "written"
    for name, box in boxes.items():
        assert held(files, box) == Counter([present(message(repr(name)))]), name
    places = files.open()
    named = {name: places.name_of(box) for name, box in boxes.items()}
    places.close()
    assert len(set(named.values())) == len(named)
    assert all(".." not in Path(each).parts and "\n" not in each and "\0" not in each for each in named.values())
    assert {path.name for path in tmp_path.iterdir()} == {"out", "outside"}
    assert list(outside.iterdir()) == []


def test_inbox_is_one_mailbox_however_it_is_written(files: Files) -> None:
    restore(files, mailbox(b"inbox"), [outgoing(message("lower"), 1)])
    restore(files, mailbox(b"InBox"), [outgoing(message("mixed"), 2)])
    assert bytes_in(files) == Counter([message("lower"), message("mixed")])


def test_into_puts_all_below_a_prefix(files: Files) -> None:
    box = mailbox(b"Archive/2024")
    restore(files, box, [outgoing(message("old"))], into="Restored/now")
    assert bytes_in(files, "Restored/now/Archive/2024") == Counter([message("old")])
    restore(files, INBOX, [outgoing(message("in"))], into="Restored/now")
    assert bytes_in(files, "Restored/now/INBOX") == Counter([message("in")])


@pytest.mark.parametrize("into", ["../up", "/abs", "a/../../b"])
def test_into_does_not_lead_outside(files: Files, tmp_path: Path, into: str) -> None:
    restore(files, INBOX, [outgoing(message("in"))], into=into)
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_looking_makes_nothing(files: Files) -> None:
    target = files.open()
    assert target.present(INBOX) == Counter()
    assert str(files.path) in target.name_of(INBOX)
    assert target.description == f"{files.kind}:{files.path}"
    target.close()
    assert not files.path.exists()


def test_two_restores_at_once_are_refused(files: Files) -> None:
    first, second = files.open(), files.open()
    first.prepare(INBOX)
    with pytest.raises(Busy):
        second.prepare(INBOX)
    first.close()
    second.prepare(INBOX)
    second.close()


def test_a_link_in_the_place_of_a_mailbox_is_not_followed(files: Files, tmp_path: Path) -> None:
    if files.kind == "zip":
        pytest.skip("a zip file has no folders")
    outside = tmp_path / "outside"
    outside.mkdir()
    files.path.mkdir()
    (files.path / "Archive").symlink_to(outside)
    with pytest.raises(StorageError, match="symbolic link"):
        restore(files, mailbox(b"Archive/2024"), [outgoing(message("secret"))])
    assert list(outside.iterdir()) == []


def test_a_place_that_cannot_be_a_target_is_named(files: Files) -> None:
    files.path.parent.mkdir(exist_ok=True)
    files.path.write_bytes(b"not a folder, and not a zip file")
    with pytest.raises((StorageError, UsageError), match=str(files.path)):
        restore(files, INBOX, [outgoing(message("x"))])
    assert files.path.read_bytes() == b"not a folder, and not a zip file"


def test_mail_is_private(files: Files) -> None:
    restore(files, INBOX, [outgoing(message("x"))])
    made = [files.path, *files.path.rglob("*")] if files.path.is_dir() else [files.path]
    assert all(path.stat().st_mode & 0o077 == 0 for path in made)


def test_python_opens_the_mbox(tmp_path: Path) -> None:
    files = Files("mbox", tmp_path)
    raws = list(NASTY.values())
    restore(files, INBOX, [outgoing(raw, uid) for uid, raw in enumerate(raws, 1)])
    opened = python_mailbox.mbox(tmp_path / "INBOX.mbox", create=False)
    assert len(opened) == len(raws)
    assert opened.get_bytes(opened.keys()[list(NASTY).index("nested")]) == NASTY["nested"]
    opened.close()


def test_files_carry_the_date_of_arrival(tmp_path: Path) -> None:
    restore(Files("eml", tmp_path), INBOX, [outgoing(message("x"))])
    (file,) = (tmp_path / "INBOX").glob("*.eml")
    assert file.stat().st_mtime == 837596665
    assert file.name.startswith("1-")


def test_what_others_put_beside_the_mail_is_no_mail(tmp_path: Path) -> None:
    restore(Files("eml", tmp_path), INBOX, [outgoing(message("x"))])
    os.mkfifo(tmp_path / "INBOX" / "pipe.eml")
    (tmp_path / "INBOX" / "link.eml").symlink_to("/etc/passwd")
    (tmp_path / "INBOX" / "folder.eml").mkdir()
    (tmp_path / "INBOX" / "notes.txt").write_text("mine")
    assert held(Files("eml", tmp_path), INBOX) == Counter([present(message("x"))])


def test_mail_of_another_program_in_an_mbox_is_kept_and_known(tmp_path: Path) -> None:
    (tmp_path / "INBOX.mbox").write_bytes(b"From a@b Thu Jan  1 00:00:00 1970\nSubject: foreign\n\nbody\n")
    restore(Files("mbox", tmp_path), INBOX, [outgoing(message("ours"))])
    content = (tmp_path / "INBOX.mbox").read_bytes()
    assert messages_of_mbox(content) == [b"Subject: foreign\n\nbody\n", message("ours")]
    assert held(Files("mbox", tmp_path), INBOX)[present(b"Subject: foreign\n\nbody\n")] == 1
