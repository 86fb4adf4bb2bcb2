"""What we restored to files comes back exactly: octets, names, attributes, flags, keywords and INTERNALDATE."""

from __future__ import annotations

from pathlib import Path

import pytest

from backupd.model import Mailbox
from backupd.sources.local import eml, eml_zip, maildir
from backupd.sources.local.base import Format
from backupd.sources.local.detect import detect
from backupd.targets.base import Outgoing
from tests.support.corpus import spread
from tests.support.file_targets import Files, restore
from tests.support.local_mail import octets, read
from tests.support.mail import message, nasty_mail, nasty_octets
from tests.support.restoring import mailbox, outgoing

FORMATS: dict[str, Format] = {"maildir": maildir.FORMAT, "eml": eml.FORMAT, "zip": eml_zip.FORMAT}
BOXES = [
    mailbox(b"INBOX", subscribed=True),
    mailbox(b"Gr&APYA3w-e/R&-D", special_use=(b"\\Archive",)),
    mailbox(b"john.doe"),
    mailbox(b"INBOX.Sent", b"."),
    mailbox(b"not &utf7", None),
    mailbox(b"caf\xc3\xa9/\xff"),
    mailbox(b"../cur/x.eml"),
    Mailbox(b"parent", "parent", b"/", (b"\\Noselect", b"\\HasChildren")),
    mailbox(b"parent/new"),
]
FLAGS = [
    (),
    (b"\\Seen",),
    (b"$Forwarded", b"\\Answered", b"\\Deleted", b"\\Seen"),
    (b"NonJunk", b"\\Flagged"),
    (b"$MDNSent", b"\\Draft", b"caf\xe9"),
]
DATES = [b"17-Jul-1996 02:44:25 -0700", b" 1-Jan-2024 00:00:00 +0530", b"", b"30-Dec-1899 00:00:00 +0000", b"never"]


@pytest.fixture(params=sorted(FORMATS))
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    return Files(request.param, tmp_path / "out")


def facts(files: Files) -> dict[bytes, list[tuple[bytes, tuple[bytes, ...], bytes]]]:
    """Everything of the messages, by the raw names of their mailboxes."""
    found: dict[bytes, list[tuple[bytes, tuple[bytes, ...], bytes]]] = {}
    messages, problems = read(FORMATS[files.kind].open(files.path, exact=False))
    assert problems == []
    for each in messages:
        (box,) = each.mailboxes
        found.setdefault(box.raw_name, []).append((octets(each.body), each.flags, each.internaldate))
    return {name: sorted(some) for name, some in found.items()}


def sent(raws: list[bytes]) -> list[Outgoing]:
    return [outgoing(raw, uid, FLAGS[uid % 5], DATES[uid // 5 % 5]) for uid, raw in enumerate(raws, 1)]


def expected(messages: list[Outgoing]) -> list[tuple[bytes, tuple[bytes, ...], bytes]]:
    return sorted((bytes(each.body), each.flags, each.internaldate) for each in messages)  # type: ignore[arg-type]


def test_a_restored_tree_is_recognised(files: Files) -> None:
    target = files.open()
    restore(target, BOXES[0], sent([message("x")]))
    target.close()
    assert detect(files.path) is FORMATS[files.kind]


def test_nasty_mail_comes_back_octet_for_octet(files: Files) -> None:
    raws = [*nasty_mail().values(), *nasty_octets().values(), *(each.raw for each in spread("nasty", 300))]
    target = files.open()
    restore(target, BOXES[0], sent(raws))
    target.close()
    assert facts(files) == {b"INBOX": expected(sent(raws))}


def test_names_and_all_that_is_known_of_mailboxes_come_back(files: Files) -> None:
    target = files.open()
    for box in BOXES:
        restore(target, box, sent([message(f"{box.name} {number}") for number in range(6)]) if box.selectable else [])
    target.close()
    store = FORMATS[files.kind].open(files.path, exact=False)
    by_name = {box.raw_name: box for box in store.mailboxes()}
    assert set(by_name) == {box.raw_name for box in BOXES}
    for box in BOXES:
        back = by_name[box.raw_name]
        assert (back.delimiter, back.attributes, back.special_use, back.subscribed) == (
            box.delimiter,
            box.attributes,
            box.special_use,
            box.subscribed,
        )
    assert facts(files) == {
        box.raw_name: expected(sent([message(f"{box.name} {number}") for number in range(6)]))
        for box in BOXES
        if box.selectable
    }


def test_more_keywords_than_a_maildir_has_letters_come_back(tmp_path: Path) -> None:
    files = Files("maildir", tmp_path)
    messages = [outgoing(message(f"m{n}"), n + 1, (b"kw%02d" % n, b"\\Seen")) for n in range(40)]
    target = files.open()
    restore(target, BOXES[0], messages)
    target.close()
    assert facts(files) == {b"INBOX": expected(messages)}


def test_flags_that_were_changed_after_the_restore_count(tmp_path: Path) -> None:
    files = Files("maildir", tmp_path)
    messages = [outgoing(message("m"), 1, (b"kw", b"\\Seen", b"\\XNoLetter"))]
    target = files.open()
    restore(target, BOXES[0], messages)
    target.close()
    (path,) = (tmp_path / "cur").iterdir()
    path.rename(path.with_name(path.name.partition(":")[0] + ":2,F"))
    ((_, flags, date),) = facts(files)[b"INBOX"]
    assert flags == (b"\\Flagged", b"\\XNoLetter")
    assert date == messages[0].internaldate
