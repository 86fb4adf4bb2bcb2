"""Maildirs of all programs are read: every message once, with its mailbox, flags, keywords and time."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import zstandard

from backupd.errors import Damaged
from backupd.sources.local import maildir as reader
from backupd.sources.local.base import IN_MEMORY, LocalMessage, LocalStore
from tests.support.local_mail import ARRIVED, bodies, by_mailbox, maildir, octets, put, read

MAIL = b"Subject: x\r\n\r\ntext\r\n"


def store(path: Path, *, exact: bool = False) -> LocalStore:
    return reader.FORMAT.open(path, exact=exact)


def names(path: Path) -> list[str]:
    return [box.name for box in store(path).mailboxes()]


# -- folders -----------------------------------------------------------------------------------------------------------


def test_a_maildir_alone_is_the_inbox(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a.host:2,S"])
    assert list(by_mailbox(store(tmp_path))) == ["INBOX"]


def test_folders_of_maildir_plus_plus_have_dots_between_their_levels(tmp_path: Path) -> None:
    for name in ("", ".Sent", ".Work.2009", ".Gr&APYA3w-e", ".Größe.R&D", "..below"):
        maildir(tmp_path / name, ["1.a:2,"])
    found = {box.name: box for box in store(tmp_path).mailboxes()}
    assert sorted(found) == sorted(["INBOX", "Sent", "Work/2009", "Größe", "Größe/R&D", "INBOX/below"])
    assert found["Sent"].special_use == (b"\\Sent",)
    assert found["Größe/R&D"].raw_name == b"Gr&APYA3w-e/R&-D"


def test_nested_maildirs_have_folders_in_folders(tmp_path: Path) -> None:
    for name in ("INBOX", "Work", "Work/2009.05", "john.doe", "Lists/a"):
        maildir(tmp_path / name, ["1.a:2,"])
    assert sorted(names(tmp_path)) == ["INBOX", "Lists/a", "Work", "Work/2009.05", "john.doe"]


def test_legacy_folders_of_mbsync_begin_with_a_dot(tmp_path: Path) -> None:
    for name in ("Inbox", "Inbox/.sub", "Inbox/.sub/.x.y", "Top/.sub"):
        put(maildir(tmp_path / name) / ".uidvalidity", b"1\n")
    assert sorted(names(tmp_path)) == ["INBOX", "INBOX/sub", "INBOX/sub/x.y", "Top/sub"]


def test_an_inbox_alone_with_maildir_plus_plus_in_it_is_the_account(tmp_path: Path) -> None:
    for name in ("INBOX", "INBOX/.Sent", "INBOX/.Work.2009"):
        maildir(tmp_path / name)
    assert sorted(names(tmp_path)) == ["INBOX", "Sent", "Work/2009"]


def test_offlineimap_has_its_folders_beside_each_other(tmp_path: Path) -> None:
    for name in ("INBOX", "INBOX.Sent", "Lists.python"):
        maildir(tmp_path / name, ["1700000000_0.12.host,U=7,FMD5=7e33429f656f1e6e9d79b29c3f82c57e:2,FS"])
    assert sorted(names(tmp_path)) == ["INBOX", "INBOX/Sent", "Lists/python"]
    messages, problems = read(store(tmp_path))
    assert not problems
    assert {each.flags for each in messages} == {(b"\\Flagged", b"\\Seen")}


def test_a_folder_with_a_dot_in_its_name_keeps_it_where_mbsync_was(tmp_path: Path) -> None:
    for name in ("Inbox", "Work", "Work.2009"):
        put(maildir(tmp_path / name) / ".mbsyncstate", b"")
    assert sorted(names(tmp_path)) == ["INBOX", "Work", "Work.2009"]


def test_a_maildir_from_an_archive_that_left_empty_folders_out_is_one(tmp_path: Path) -> None:
    put(tmp_path / "cur" / "1.a:2,S", MAIL)
    put(tmp_path / ".Sent" / "cur" / "2.a:2,S", MAIL)
    assert by_mailbox(store(tmp_path)) == {"INBOX": [MAIL], "Sent": [MAIL]}


def test_names_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b"/.caf\xe9"
    Path(os.fsdecode(folder), "cur").mkdir(parents=True)
    Path(os.fsdecode(folder + b"/cur/1.\xff:2,S")).write_bytes(MAIL)
    assert by_mailbox(store(tmp_path)) == {"caf\\xe9": [MAIL]}


def test_files_of_servers_and_programs_are_no_mail(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,"], content=MAIL)
    for name in (".mbsyncstate", ".uidvalidity", "dovecot-uidlist", "dovecot.index.log", "courierimapuiddb", "tmp/1.x"):
        put(tmp_path / name, b"x")
    put(tmp_path / "courierimapkeywords" / "cur" / "x", b"x")
    put(tmp_path / "..DOVECOT-TRASHED" / "cur" / "x", b"x")
    put(tmp_path / "cur" / ".nfs0001", b"x")
    assert by_mailbox(store(tmp_path)) == {"INBOX": [MAIL]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("subscriptions", b"Work.2009\nSent\n"),
        ("subscriptions", b"Work/2009\nSent\n"),
        ("subscriptions", b"V\t2\n\nWork\t2009\nSent\n"),
        ("courierimapsubscribed", b"INBOX.Work.2009\nINBOX.Sent\n"),
    ],
)
def test_subscriptions_are_those_of_the_user(tmp_path: Path, name: str, content: bytes) -> None:
    for folder in (".Work", ".Work.2009", ".Sent"):
        maildir(tmp_path / folder)
    put(tmp_path / name, content)
    assert [box.name for box in store(tmp_path).mailboxes() if box.subscribed] == ["Sent", "Work/2009"]


# -- messages ----------------------------------------------------------------------------------------------------------


def test_flags_and_keywords_come_from_the_name(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,DFPRSTac", "2.b;2,S", "3.c!2,F", "4.d:2,", "5.e", "6.f:2,Sz", "7.g:1,S"])
    put(tmp_path / "dovecot-keywords", b"0 NonJunk\n2 $label1\nnonsense\n99 x\n")
    assert [each.flags for each in read(store(tmp_path))[0]] == [
        (b"$Forwarded", b"$label1", b"NonJunk", b"\\Answered", b"\\Deleted", b"\\Draft", b"\\Flagged", b"\\Seen"),
        (b"\\Seen",),
        (b"\\Flagged",),
        (),
        (),
        (b"\\Seen",),
        (),
    ]


def test_a_message_in_new_is_read_and_its_time_is_that_of_the_file(tmp_path: Path) -> None:
    maildir(tmp_path)
    put(tmp_path / "new" / "1.a", MAIL, ARRIVED)
    (message,), _ = read(store(tmp_path))
    assert (message.flags, message.internaldate) == ((), b"")
    assert message.stored == datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)
    assert message.place == f"{tmp_path}/new/1.a"


def test_messages_come_in_the_order_they_arrived(tmp_path: Path) -> None:
    wanted = ["9.M2P1.h:2,S", "10.M9P1.h:2,", "10.M10P1.h:2,", "10.1_9.h,U=9:2,", "10.1_10.h,U=10:2,", "nonsense:2,"]
    maildir(tmp_path, reversed(wanted))
    order = [each.place.rpartition("/")[2] for each in read(store(tmp_path))[0]]
    assert order[0] == wanted[0]
    assert sorted(order) == sorted(wanted)
    for earlier, later in ((1, 2), (3, 4)):
        assert order.index(wanted[earlier]) < order.index(wanted[later])


def test_lines_get_the_ends_that_mail_has_unless_exact_octets_are_asked_for(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,"], content=b"Subject: x\n\ny\n")
    maildir(tmp_path, ["2.a:2,"], content=b"Subject: x\r\n\ny\n")
    assert bodies(store(tmp_path)) == [b"Subject: x\r\n\r\ny\r\n", b"Subject: x\r\n\ny\n"]
    assert bodies(store(tmp_path, exact=True)) == [b"Subject: x\n\ny\n", b"Subject: x\r\n\ny\n"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("exact", [False, True])
def test_a_large_message_comes_in_pieces(tmp_path: Path, line_end: bytes, exact: bool) -> None:
    raw = b"Subject: x" + line_end * 2 + (b"0123456" * 9 + line_end) * (IN_MEMORY // 60)
    maildir(tmp_path, ["1.a:2,"], content=raw)
    (message,), _ = read(store(tmp_path, exact=exact))
    assert not isinstance(message.body, bytes)
    expected = raw if exact else raw.replace(line_end, b"\r\n")
    assert octets(message.body) == octets(message.body) == expected
    assert max(map(len, message.body.chunks())) <= 16 << 20


def test_one_crlf_at_a_border_of_pieces_of_a_large_message_stays_one(tmp_path: Path) -> None:
    raw = b"x\n" * (IN_MEMORY // 2 - 1) + b"y\r\n" + b"z\n" * 1000
    assert raw[IN_MEMORY - 1 : IN_MEMORY + 1] == b"\r\n"
    maildir(tmp_path, ["1.a:2,"], content=raw)
    assert bodies(store(tmp_path)) == [raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")]


def test_a_large_message_that_changes_while_it_is_read_is_damaged(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,"], content=b"x\r\n" * IN_MEMORY)
    (message,), _ = read(store(tmp_path))
    os.truncate(tmp_path / "cur" / "1.a:2,", 100)
    with pytest.raises(Damaged, match="changed while it was read"):
        octets(message.body)


def test_the_field_of_mbsync_is_taken_out_and_no_other(tmp_path: Path) -> None:
    ours = b"Subject: x\nX-TUID: pZeunL7I8S5Y\n\nX-TUID: pZeunL7I8S5Y\n\nbody\n"
    maildir(tmp_path, ["1.a,U=12:2,S"], content=ours)
    maildir(tmp_path, ["2.a:2,S"], content=ours)
    maildir(tmp_path, ["3.a,U=13:2,S"], content=b"X-TUID: pZeunL7I8S5Y\nSubject: x\n\nX-TUID: pZeunL7I8S5Y\n\nb")
    maildir(tmp_path, ["4.a,U=14:2,S"], content=ours.replace(b"\n", b"\r\n"))
    first, second, third, fourth = bodies(store(tmp_path, exact=True))
    assert first == b"Subject: x\n\nX-TUID: pZeunL7I8S5Y\n\nbody\n"
    assert second == ours
    assert third.startswith(b"X-TUID: ")
    assert fourth == first.replace(b"\n", b"\r\n")


GETMAIL = (
    b"Return-Path: <a@example.com>\nDelivered-To: unknown\n"
    b"Received: from pop.example.com (192.0.2.7:995) by localhost with POP3-SSL getmail6\n"
    b"  msgid:000000016b0b3547; 28 Nov 2026 20:10:57 -0000\n"
)
"""What getmail6 puts on top of a message, by its defaults."""


def test_the_fields_of_getmail_are_taken_out_and_no_others(tmp_path: Path) -> None:
    mine = GETMAIL + b"Subject: x\n\n" + GETMAIL
    name = "1795896657.M872098P22793Q{}Rdfeb24c1b7bdef0b.localhost"
    maildir(tmp_path, [name.format(0)], content=mine)
    maildir(tmp_path, ["1795896657.M2P3.delivered:2,S"], content=mine)  # by a delivery agent, which a server serves so
    maildir(tmp_path, [name.format(1)], content=b"Delivered-To: me\nSubject: of getmail\n\n" + GETMAIL)
    large = IN_MEMORY // 8 * b"1234567\n"
    maildir(tmp_path, [name.format(2)], content=GETMAIL + b"\n" + large)

    found = sorted(bodies(store(tmp_path)), key=len)

    path, own = b"Return-Path: <a@example.com>\r\n", GETMAIL.replace(b"\n", b"\r\n")
    assert found[0] == b"Delivered-To: me\r\nSubject: of getmail\r\n\r\n" + own
    assert found[1] == path + b"Subject: x\r\n\r\n" + own
    assert found[2] == own + b"Subject: x\r\n\r\n" + own
    assert found[3] == path + b"\r\n" + large.replace(b"\n", b"\r\n")
    assert sorted(bodies(store(tmp_path, exact=True)), key=len)[1] == mine


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_messages_that_dovecot_keeps_compressed_are_unpacked(tmp_path: Path, packer: str) -> None:
    small, large = MAIL, b"Subject: large\r\n\r\n" + b"0123456789\r\n" * (IN_MEMORY // 10)
    pack = PACKERS[packer]
    maildir(tmp_path, [f"1.a,S={len(small)},W=30:2,S"], content=pack(small))
    maildir(tmp_path, [f"2.a,S={len(large)}:2,S"], content=pack(large))
    maildir(tmp_path, ["3.a:2,S"], content=pack(small) + pack(small))
    assert bodies(store(tmp_path)) == [small, large, small + small]


@pytest.mark.parametrize("packer", sorted(PACKERS))
def test_a_compressed_message_that_is_damaged_is_told(tmp_path: Path, packer: str) -> None:
    packed = PACKERS[packer](MAIL * 20)
    maildir(tmp_path, [f"1.a,S={20 * len(MAIL)}:2,S", "2.a:2,S"], content=packed[: len(packed) // 2])
    maildir(tmp_path, ["3.a,S=7:2,S"], content=packed)
    messages, problems = read(store(tmp_path))
    assert not messages
    assert [each.what.startswith("a compressed file that") for each in problems] == [True] * 3


def test_a_file_of_the_size_its_name_tells_is_not_compressed(tmp_path: Path) -> None:
    raw = gzip.compress(MAIL)
    maildir(tmp_path, [f"1.a,S={len(raw)}:2,S"], content=raw)
    assert bodies(store(tmp_path, exact=True)) == [raw]


def test_lz4_is_told(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,S"], content=b"Dovecot-LZ4\x0d\x2a\x9b\xc5 and more")
    messages, (problem,) = read(store(tmp_path))
    assert not messages
    assert "lz4" in problem.what


# -- what cannot be read -----------------------------------------------------------------------------------------------


def test_what_is_no_file_is_told_and_never_holds_us(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,S"], content=MAIL)
    os.mkfifo(tmp_path / "cur" / "2.pipe:2,S")
    (tmp_path / "cur" / "3.folder:2,S").mkdir()
    (tmp_path / "cur" / "4.link:2,S").symlink_to(put(tmp_path / "secret", b"secret"))
    there = Path.cwd()
    os.chdir(tmp_path / "cur")
    try:
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind("5.socket")
    finally:
        os.chdir(there)
    messages, problems = read(store(tmp_path))
    assert [octets(each.body) for each in messages] == [MAIL]
    assert sorted(problem.place.rpartition("/")[2] for problem in problems) == [
        "2.pipe:2,S",
        "3.folder:2,S",
        "4.link:2,S",
        "5.socket",
    ]


@pytest.mark.parametrize("name", ["subscriptions", "dovecot-keywords", "messages.jsonl", "mailbox.json"])
def test_a_pipe_in_the_place_of_a_file_of_the_store_is_told_and_the_mail_read(tmp_path: Path, name: str) -> None:
    maildir(tmp_path, ["1.a:2,S"], content=MAIL)
    os.mkfifo(tmp_path / name)
    messages, (problem,) = read(store(tmp_path))
    assert [octets(each.body) for each in messages] == [MAIL]
    assert problem.place.endswith(name)


def test_a_link_to_a_folder_is_not_followed_and_told(tmp_path: Path) -> None:
    maildir(tmp_path / "away", ["1.a:2,S"])
    maildir(tmp_path / "mail", ["2.a:2,S"], content=MAIL)
    (tmp_path / "mail" / ".Archive").symlink_to(tmp_path / "away")
    messages, (problem,) = read(store(tmp_path / "mail"))
    assert [octets(each.body) for each in messages] == [MAIL]
    assert "symbolic link" in problem.what


def test_the_path_itself_may_be_a_link(tmp_path: Path) -> None:
    maildir(tmp_path / "real", ["1.a:2,S"], content=MAIL)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert bodies(store(tmp_path / "link")) == [MAIL]


def test_a_message_that_is_renamed_while_we_read_is_found_again(tmp_path: Path) -> None:
    maildir(tmp_path, [f"{n}.a:2," for n in range(1, 6)])
    put(tmp_path / "new" / "6.a", b"six")
    found: list[LocalMessage] = []
    for item in store(tmp_path).messages():
        if not found:
            (tmp_path / "cur" / "3.a:2,").rename(tmp_path / "cur" / "3.a:2,S")
            (tmp_path / "new" / "6.a").rename(tmp_path / "cur" / "6.a:2,S")
            (tmp_path / "cur" / "5.a:2,").unlink()
        if isinstance(item, LocalMessage):
            found.append(item)
        else:
            assert item.place.endswith("/cur/5.a:2,")
            assert "moved or deleted" in item.what
    order = [each.place.rpartition("/")[2] for each in found]
    assert order[:3] == ["1.a:2,", "2.a:2,", "4.a:2,"]
    assert sorted(order[3:]) == ["3.a:2,S", "6.a:2,S"]
    assert found[-1].flags == (b"\\Seen",)


def test_a_message_that_goes_from_new_to_cur_while_names_are_gathered_comes_once(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,"])
    put(tmp_path / "new" / "2.a", MAIL)
    put(tmp_path / "cur" / "2.a:2,S", MAIL)  # as if it had been seen in both
    found = []
    for item in store(tmp_path).messages():
        (tmp_path / "new" / "2.a").unlink(missing_ok=True)
        found.append(item.place.rpartition("/")[2])
    assert found == ["1.a:2,", "2.a:2,S"]


def test_however_many_are_renamed_few_are_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "_MOST_MISSING", 3)
    maildir(tmp_path, [f"{n}.a:2," for n in range(20)])
    found = []
    for item in store(tmp_path).messages():
        if not found:
            for path in list((tmp_path / "cur").iterdir()):
                path.rename(f"{path}S")
        found.append(item.place.rpartition("/")[2])
    assert found[0] == "0.a:2,"
    assert sorted(found[1:]) == sorted(f"{n}.a:2,S" for n in range(1, 20))


def test_a_store_that_is_gone_is_told(tmp_path: Path) -> None:
    messages, (problem,) = read(store(tmp_path / "gone"))
    assert not messages
    assert problem.what == "No such file or directory"


def test_the_size_of_a_store_is_that_of_its_messages(tmp_path: Path) -> None:
    maildir(tmp_path, ["1.a:2,", "2.a:2,"], content=b"x" * 100)
    put(maildir(tmp_path / ".Sent") / "new" / "1.a", b"y" * 50)
    assert store(tmp_path).octets == 250
