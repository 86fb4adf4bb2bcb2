"""Every kind of store that an import reads, written plainly from messages, folders, flags and dates.

Written from what the programs document and leave behind, and apart from the package, so that it can judge it.
"""

from __future__ import annotations

import json
import plistlib
import re
import sqlite3
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from tests.support.file_targets import Files, restore
from tests.support.local_mail import maildir, put
from tests.support.mbox_writers import quoted
from tests.support.restoring import mailbox, outgoing

FOLDERS = ("INBOX", "Sent", "Work/2009")


class Filed(NamedTuple):
    """A message in a mail program, with CRLF. stored: when it arrived there, in seconds since 1970."""

    folder: str
    raw: bytes
    seen: bool
    flagged: bool
    stored: int

    @property
    def lf(self) -> bytes:
        """As files have it."""
        return self.raw.replace(b"\r\n", b"\n")

    @property
    def flags(self) -> set[bytes]:
        """As IMAP has them."""
        return {flag for flag, is_set in ((b"\\Seen", self.seen), (b"\\Flagged", self.flagged)) if is_set}

    @property
    def letters(self) -> str:
        """As Maildir has them."""
        return "F" * self.flagged + "S" * self.seen

    def with_fields(self, *fields: bytes) -> bytes:
        """With these at the end of the header, and LF."""
        header, _, body = self.lf.partition(b"\n\n")
        return b"\n".join([header, *fields]) + b"\n\n" + body


Some = Sequence[Filed]


def _in_folders(some: Some) -> dict[str, list[Filed]]:
    return {name: [each for each in some if each.folder == name] for name in FOLDERS}


def _from_line(each: Filed) -> bytes:
    return b"From a@example.com %s\n" % time.asctime(time.gmtime(each.stored)).encode()


def _status(each: Filed) -> list[bytes]:
    return [b"Status: RO" if each.seen else b"Status: O", *([b"X-Status: F"] if each.flagged else [])]


def _mbox(root: Path, some: Some, quote: Callable[[bytes], bytes], *, counted: bool = False) -> None:
    for name, messages in _in_folders(some).items():
        data = []
        for each in messages:
            fields = _status(each)
            if counted:
                fields.append(b"Content-Length: %d" % len(each.lf.partition(b"\n\n")[2]))
            data += [_from_line(each), quote(each.with_fields(*fields)), b"\n"]
        put(root / name, b"".join(data))


def mbox(root: Path, some: Some) -> None:
    _mbox(root, some, quoted)


def mboxo(root: Path, some: Some) -> None:
    _mbox(root, some, lambda raw: re.sub(rb"(?m)^From ", b">From ", raw))


def mboxcl2(root: Path, some: Some) -> None:
    _mbox(root, some, bytes, counted=True)


def apple_mbox(root: Path, some: Some) -> None:
    for name, messages in _in_folders(some).items():
        place = root.joinpath(*(f"{level}.mbox" for level in name.split("/")))
        put(place / "mbox", b"".join(_from_line(each) + quoted(each.lf) + b"\n" for each in messages))
        put(place / "table_of_contents", b"\0\1")


def imap_backup(root: Path, some: Some) -> None:
    for name, messages in _in_folders(some).items():
        data, entries = b"", []
        for uid, each in enumerate(messages, 1):
            whole = _from_line(each) + quoted(each.lf) + b"\n"
            flags = sorted(flag.decode().lstrip("\\") for flag in each.flags)
            entries.append({"uid": uid, "offset": len(data), "length": len(whole), "flags": flags})
            data += whole
        put(root / f"{name}.mbox", data)
        put(root / f"{name}.imap", json.dumps({"version": 3, "uid_validity": 7, "messages": entries}).encode())


def thunderbird(root: Path, some: Some) -> None:
    put(root / "prefs.js", b"// Mozilla User Preferences\n")
    account = root / "Mail" / "pop.example.com"
    for name, messages in _in_folders(some).items():
        *above, own = name.split("/")
        place = account.joinpath(*(f"{level}.sbd" for level in above))
        for level in above:
            put(account / level, b"")
        own = "Inbox" if own == "INBOX" else own
        data = []
        for each in messages:
            status = b"X-Mozilla-Status: %04x\nX-Mozilla-Status2: 00000000\n" % (each.seen | each.flagged << 2)
            data += [_from_line(each), b"X-Account-Key: account1\nX-UIDL: 1\n", status, quoted(each.lf), b"\n"]
        put(place / own, b"".join(data))
        put(place / f"{own}.msf", b"// <!-- <mdb:mork:z v='1.4'/> -->")


def takeout(root: Path, some: Some) -> None:
    data = []
    for each in some:
        labels = ["Inbox" if each.folder == "INBOX" else each.folder, "Opened" if each.seen else "Unread"]
        labels += ["Starred"] if each.flagged else []
        own = f"X-GM-THRID: 1234567890\nX-Gmail-Labels: {','.join(labels)}\n"
        data += [_from_line(each), own.encode(), quoted(each.lf), b"\n"]
    put(root / "Takeout" / "Mail" / "All mail Including Spam and Trash.mbox", b"".join(data))


def gyb(root: Path, some: Some) -> None:
    root.mkdir(parents=True)
    with closing(sqlite3.connect(root / "msg-db.sqlite")) as database, database:
        database.executescript("""
            CREATE TABLE messages(
                message_num INTEGER PRIMARY KEY, message_filename TEXT, message_internaldate TIMESTAMP);
            CREATE TABLE labels (message_num INTEGER, label TEXT);
            CREATE TABLE uids (message_num INTEGER, uid TEXT PRIMARY KEY);
            CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT);
        """)
        for number, each in enumerate(some, 1):
            name = f"2024/1/5/{number:x}.eml"
            local = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.stored))
            database.execute("INSERT INTO messages VALUES (?, ?, ?)", (number, name, local))
            labels = [{"Sent": "SENT"}.get(each.folder, each.folder), *(["STARRED"] if each.flagged else [])]
            labels += [] if each.seen else ["UNREAD"]
            database.executemany("INSERT INTO labels VALUES (?, ?)", [(number, label) for label in labels])
            put(root / name, each.raw)


def emlx(root: Path, some: Some) -> None:
    account = root / "V10" / "0A1B2C3D-0000-4000-8000-0123456789AB"
    for number, each in enumerate(some, 1):
        place = account.joinpath(*(f"{level}.mbox" for level in each.folder.split("/")))
        noted = plistlib.dumps({"date-received": each.stored, "flags": each.seen | each.flagged << 4})
        put(place / "AAAA" / "Data" / "Messages" / f"{number}.emlx", b"%-10d\n" % len(each.lf) + each.lf + noted)


def eml(root: Path, some: Some) -> None:
    for number, each in enumerate(some, 1):
        put((root if each.folder == "INBOX" else root / each.folder) / f"{number}.eml", each.lf, each.stored)


def zip_(root: Path, some: Some) -> None:
    target = Files("zip", root).open()
    for name, messages in _in_folders(some).items():
        dates = [time.strftime("%d-%b-%Y %H:%M:%S +0000", time.gmtime(each.stored)).encode() for each in messages]
        sent = [
            outgoing(each.raw, uid, tuple(each.flags), date)
            for uid, (each, date) in enumerate(zip(messages, dates, strict=True), 1)
        ]
        restore(target, mailbox(name.encode()), sent)
    target.close()


def _maildirs(root: Path, some: Some, folder: Callable[[str], str], name: str, *fields: bytes) -> None:
    for number, each in enumerate(some, 1):
        file = name.format(seconds=each.stored, number=number) + f":2,{each.letters}"
        put(maildir(root / folder(each.folder)) / "cur" / file, each.with_fields(*fields), each.stored)


def maildir_plus_plus(root: Path, some: Some) -> None:
    def folder(name: str) -> str:
        return "" if name == "INBOX" else "." + name.replace("/", ".")

    _maildirs(root, some, folder, "{seconds}.M{number}P1.host")


def mbsync(root: Path, some: Some) -> None:
    _maildirs(root, some, str, "{seconds}.1_{number}.host,U={number}", b"X-TUID: pZeunL7I8S5Y")
    for name in FOLDERS:
        if (root / name).is_dir():
            put(root / name / ".mbsyncstate", b"MaxPulledUid 1\n")


def offlineimap(root: Path, some: Some) -> None:
    name = "{seconds}_0.{number}.host,U={number},FMD5=7e33429f656f1e6e9d79b29c3f82c57e"
    _maildirs(root, some, lambda folder: folder.replace("/", "."), name)


def getmail(root: Path, some: Some) -> None:
    """It knows the inbox alone, puts Return-Path first, and dates nothing but by the download."""
    new = maildir(root) / "new"
    own = (
        b"Delivered-To: unknown\nReceived: from pop.example.com (192.0.2.7:995) by localhost with POP3-SSL getmail6\n"
        b"  msgid:000000016b0b3547; 28 Nov 2026 20:10:57 -0000\n"
    )
    for number, each in enumerate(some, 1):
        path = re.match(rb"Return-Path:[^\n]*\n", each.lf)
        start = path.end() if path else 0
        put(new / f"1795896657.M8P2Q{number}Rdfeb24c1b7bdef0b.localhost", each.lf[:start] + own + each.lf[start:], 2e9)


def pst(root: Path, some: Some) -> None:
    """Not Outlook's file, which nobody can make here; and beside it a readpst that gives these messages of it."""
    holds = {}
    for number, each in enumerate(some, 1):
        folder = "Inbox" if each.folder == "INBOX" else each.folder
        text = each.with_fields(*([b"Status: RO"] if each.seen else [])).decode("latin-1")
        holds[f"Top of Personal Folders/{folder}/{number}.eml"] = text
    put(root / "mail.pst", b"!BDN and more")
    put(root / "holds.json", json.dumps(holds).encode())
    program = put(root / "bin" / "readpst", READPST.format(python=sys.executable).encode())
    program.chmod(0o755)


READPST = """#!{python}
import json, sys
from pathlib import Path
out = Path(sys.argv[sys.argv.index("-o") + 1])
for name, text in json.loads((Path(__file__).parents[1] / "holds.json").read_text()).items():
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).write_bytes(text.encode("latin-1"))
"""


class Kind(NamedTuple):
    """A kind of store: how it is written, what it keeps beside octets, and whether it has to be named."""

    write: Callable[[Path, Some], None]
    keeps: frozenset[str]
    folders: bool = True
    named: str = ""


_ALL = frozenset({"seen", "flagged", "date"})
KINDS: dict[str, Kind] = {
    "mbox": Kind(mbox, _ALL),
    "mboxo": Kind(mboxo, _ALL, named="mboxo"),
    "mboxcl2": Kind(mboxcl2, _ALL),
    "apple-mbox": Kind(apple_mbox, frozenset({"date"})),
    "imap-backup": Kind(imap_backup, _ALL),
    "thunderbird": Kind(thunderbird, _ALL),
    "takeout": Kind(takeout, _ALL),
    "gyb": Kind(gyb, _ALL),
    "emlx": Kind(emlx, _ALL),
    "eml": Kind(eml, frozenset({"date"})),
    "zip": Kind(zip_, _ALL),
    "maildir++": Kind(maildir_plus_plus, _ALL),
    "mbsync": Kind(mbsync, _ALL),
    "offlineimap": Kind(offlineimap, _ALL),
    "getmail": Kind(getmail, frozenset(), folders=False),
    "pst": Kind(pst, frozenset({"seen"})),
}
