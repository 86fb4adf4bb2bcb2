"""Outlook's files are read through readpst: here a program of that name that writes what readpst writes."""

from __future__ import annotations

import json
import random
import stat
import sys
from pathlib import Path

import pytest

from backupd.errors import UsageError
from backupd.sources.local import pst
from backupd.sources.local.base import IN_MEMORY
from backupd.sources.local.detect import detect
from tests.support.local_mail import bodies, by_mailbox, octets, put, read

PROGRAM = """#!{python}
import json, os, random, sys
from pathlib import Path
here = Path(__file__).parent
arguments = sys.argv[1:]
(here / "asked.json").write_text(json.dumps(arguments))
out = Path(arguments[arguments.index("-o") + 1])
(here / "out").write_text(str(out) + " " + oct(out.stat().st_mode))
assert open(arguments[-1], "rb").read(4) == b"!BDN"
for name, text in json.loads((here / "holds.json").read_text()).items():
    path = out / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace("NUMBER", str(random.randrange(2**31))).replace("OTHER", str(random.randrange(2**31))))
print("said", here / "exit")
sys.exit(int((here / "exit").read_text()))
"""

PLAIN = "Status: RO\nFrom: a@b\nSubject: read\nMIME-Version: 1.0\n\nStatus: RO\ntext\n"
PARTS = """From: a@b
Content-Type: multipart/mixed;
\tboundary="--boundary-LibPST-iamunique-NUMBER_-_-"


----boundary-LibPST-iamunique-NUMBER_-_-
Content-Type: multipart/alternative;
\tboundary="alt---boundary-LibPST-iamunique-NUMBER_-_-"

--alt---boundary-LibPST-iamunique-NUMBER_-_-
quoted: --boundary-LibPST-iamunique-77_-_-
--alt---boundary-LibPST-iamunique-NUMBER_-_---

----boundary-LibPST-iamunique-NUMBER_-_-
Content-Type: multipart/mixed;
\tboundary="--boundary-LibPST-iamunique-OTHER_-_-"

----boundary-LibPST-iamunique-OTHER_-_---
----boundary-LibPST-iamunique-NUMBER_-_---
"""


@pytest.fixture
def readpst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a readpst; holds.json: what the next file holds, exit: how it ends."""
    folder = tmp_path / "bin"
    program = put(folder / "readpst", PROGRAM.format(python=sys.executable).encode())
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    put(folder / "exit", b"0")
    monkeypatch.setenv("PATH", str(folder))
    return folder


@pytest.fixture
def outlook(tmp_path: Path) -> Path:
    """A file that looks like one of Outlook."""
    return put(tmp_path / "mail.pst", b"!BDN and more")


def holds(readpst: Path, files: dict[str, str]) -> None:
    put(readpst / "holds.json", json.dumps(files).encode())


def test_folders_below_the_top_one_are_mailboxes(readpst: Path, outlook: Path) -> None:
    holds(
        readpst,
        {
            "Personal Folders/Inbox/1.eml": "Subject: x\n\nx\n",
            "Personal Folders/Inbox/Work/10.eml": "ten\n",
            "Personal Folders/Inbox/Work/9.eml": "nine\n",
            "Personal Folders/Sent Items/1.eml": "sent\n",
            "Personal Folders/Calendar/1.ics": "no mail",
        },
    )
    assert detect(outlook) is pst.FORMAT
    store = pst.FORMAT.open(outlook, exact=False)
    assert by_mailbox(store) == {
        "INBOX": [b"Subject: x\r\n\r\nx\r\n"],
        "INBOX/Work": [b"nine\r\n", b"ten\r\n"],
        "Sent Items": [b"sent\r\n"],
    }
    assert {box.name: box.special_use for box in store.mailboxes()}["Sent Items"] == (b"\\Sent",)
    assert store.octets == 13


def test_mail_alone_is_asked_for_into_a_private_folder_that_goes(readpst: Path, outlook: Path) -> None:
    holds(readpst, {"Personal Folders/Inbox/1.eml": "x\n"})
    store = pst.FORMAT.open(outlook, exact=True)
    assert bodies(store) == [b"x\n"]
    out, mode = (readpst / "out").read_text().split()
    assert mode == "0o40700"
    asked = (readpst / "asked.json").read_text()
    assert '"-t", "e"' in asked
    assert "-D" not in asked
    assert Path(out).exists()
    del store
    assert not Path(out).exists()


def test_a_read_message_is_seen_and_its_octets_do_not_tell(readpst: Path, outlook: Path) -> None:
    holds(readpst, {"P/Inbox/1.eml": PLAIN, "P/Inbox/2.eml": PLAIN.replace("Status: RO\n", "", 1)})
    first, second = read(pst.FORMAT.open(outlook, exact=False))[0]
    assert (first.flags, second.flags) == ((b"\\Seen",), ())
    assert first.body == second.body
    assert octets(first.body).endswith(b"\r\n\r\nStatus: RO\r\ntext\r\n")
    assert (first.stored, first.internaldate) == (None, b"")


def test_a_file_that_is_read_twice_gives_the_same_octets(readpst: Path, outlook: Path) -> None:
    holds(readpst, {"P/Inbox/1.eml": PARTS})
    (first,) = bodies(pst.FORMAT.open(outlook, exact=True))
    (second,) = bodies(pst.FORMAT.open(outlook, exact=True))
    assert first == second == PARTS.replace("NUMBER", "1").replace("OTHER", "2").encode()


CALENDAR = """BEGIN:VCALENDAR
VERSION:2.0
PRODID:LibPST v0.6.76
DTSTAMP:MOMENT
DTSTART;VALUE=DATE-TIME:20210824T170000Z
END:VCALENDAR
"""
INVITATION = f"""From: a@b
Content-Type: multipart/mixed;
\tboundary="--boundary-LibPST-iamunique-NUMBER_-_-"

----boundary-LibPST-iamunique-NUMBER_-_-
Content-Type: text/calendar; method="REQUEST"; charset="utf-8"

{CALENDAR}
----boundary-LibPST-iamunique-NUMBER_-_-
Content-Type: text/calendar; charset="utf-8"; name="iOTHER.ics"
Content-Disposition: attachment; filename="iOTHER.ics"

{CALENDAR}
----boundary-LibPST-iamunique-NUMBER_-_-
Content-Type: text/plain; name="i77.ics"

filename="i77.ics"
DTSTAMP:20211231T235959Z
----boundary-LibPST-iamunique-NUMBER_-_---
"""


def test_an_invitation_that_readpst_made_is_the_same_in_every_run(readpst: Path, outlook: Path) -> None:
    found = []
    for time in ("20261128T201923Z", "20271128T201924Z"):
        holds(readpst, {"P/Inbox/1.eml": INVITATION.replace("MOMENT", time)})
        found += bodies(pst.FORMAT.open(outlook, exact=True))
    expected = INVITATION.replace("NUMBER", "1").replace("OTHER", "2")
    assert found == [expected.replace("DTSTAMP:MOMENT", "DTSTAMP:19700101T000000Z").encode()] * 2


def test_boundaries_are_replaced_wherever_the_message_is_cut() -> None:
    raw = PARTS.replace("NUMBER", "123456").replace("OTHER", "98").encode() + b"x" * 1_500_000
    expected = PARTS.replace("NUMBER", "1").replace("OTHER", "2").encode() + b"x" * 1_500_000
    chance = random.Random(7)
    for _ in range(5):
        cuts = sorted(chance.randrange(len(PARTS)) for _ in range(40))
        pieces = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]
        assert b"".join(pst.steady(pieces)) == expected


def test_a_large_message_is_read_in_pieces(readpst: Path, outlook: Path) -> None:
    holds(readpst, {"P/Inbox/1.eml": "Status: RO\n" + PARTS + "0123456789\n" * (IN_MEMORY // 10)})
    (message,), _ = read(pst.FORMAT.open(outlook, exact=False))
    whole = octets(message.body)
    assert not isinstance(message.body, bytes)
    assert whole.startswith(b"From: a@b\r\n")
    assert b'\r\n\tboundary="--boundary-LibPST-iamunique-1_-_-"\r\n' in whole
    assert message.flags == (b"\\Seen",)


def test_what_was_read_before_readpst_failed_is_taken_and_the_failure_told(readpst: Path, outlook: Path) -> None:
    holds(readpst, {"P/Inbox/1.eml": "x\n"})
    put(readpst / "exit", b"3")
    messages, (problem,) = read(pst.FORMAT.open(outlook, exact=False))
    assert [each.body for each in messages] == [b"x\r\n"]
    assert "ended with 3" in problem.what
    assert "said" in problem.what


@pytest.mark.usefixtures("readpst")
def test_without_readpst_the_line_that_installs_it_is_shown(
    outlook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert detect(outlook) is pst.FORMAT
    with pytest.raises(UsageError, match="apt-get install -y pst-utils"):
        pst.FORMAT.open(outlook, exact=False)


def test_other_files_are_not_outlooks(tmp_path: Path) -> None:
    assert not pst.FORMAT.recognises(put(tmp_path / "x.pst", b"!BD"))
    assert not pst.FORMAT.recognises(tmp_path / "gone.pst")
    assert not pst.FORMAT.recognises(tmp_path)
