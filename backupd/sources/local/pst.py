"""Outlook's PST and OST files, through the program readpst of the package pst-utils.

readpst makes messages anew from what Outlook kept, into a private temporary folder with a file for each, and these are
read. Mail that was deleted from Deleted Items, and what is not mail, is left out.

readpst writes things that change from run to run or with time: boundaries of multipart messages, and the names of the
invitations it makes, have numbers drawn at random; an invitation has the time of the run; and a read message gets a
field "Status: RO". The numbers become 1, 2, 3 ..., the time 1970, and the field becomes \\Seen, so that importing the
same file again brings nothing twice.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from backupd.errors import StorageError, UsageError
from backupd.mail.headers import header_of
from backupd.model import Mailbox
from backupd.sources.local import ledger
from backupd.sources.local.base import LocalMessage, LocalProblem
from backupd.sources.local.body import body_of
from backupd.sources.local.eml import EmlStore
from backupd.sources.local.files import Folder, OpenFile, Parts, reason, shown

PROGRAM = "readpst"
INSTALL = "apt-get install -y pst-utils"

_OPTIONS = ("-q", "-e", "-b", "-t", "e", "-j", "0")
"""Quiet; a file a message, attachments in it; no copies of bodies in RTF; mail alone; one process."""

_MAGIC = b"!BDN"
_TOPS = {"IPM_SUBTREE", "Top of Personal Folders", "Top of Outlook data file", "Top of Information Store"}
_LONGEST_HEADER = 1 << 20
_STATUS = re.compile(rb"^Status: RO\r?\n", re.MULTILINE)
_CHANGES = re.compile(
    rb'(?P<declared>\tboundary="|^Content-Type: text/calendar; charset="[^"\n]{1,40}"; name=")?'
    rb'(?P<words>(?:alt-)?--boundary-LibPST-iamunique-|(?:(?<=name=")i))(?P<number>\d{1,12})(?=_-_-|\.ics")'
    rb"|^(?P<begin>PRODID:LibPST )|^(?P<end>END:VCALENDAR)|^DTSTAMP:(?P<time>\d{8}T\d{6}Z)",
    re.MULTILINE,
)
_NO_TIME = b"19700101T000000Z"
_LONGEST_LINE = 1 << 20
_LONGEST_BOUNDARY = 80
_MOST_COMPLAINTS = 2000


class PstFormat:
    """A file of Outlook."""

    name = "pst"

    def recognises(self, path: Path) -> bool:
        """Whether it is a file that begins as those of Outlook do."""
        try:
            with Folder.root(path.resolve().parent) as folder, folder.open(path.resolve().name) as file:
                return file.read(len(_MAGIC)) == _MAGIC
        except (OSError, RuntimeError):  # RuntimeError: links that lead in a circle
            return False

    def open(self, path: Path, *, exact: bool) -> PstStore:
        """The store at this path. Raises UsageError if readpst is not installed."""
        program = shutil.which(PROGRAM)
        if program is None:
            raise UsageError(f"{PROGRAM} is needed to read it", subject=str(path), remedy=f"run: {INSTALL}")
        return PstStore(path, exact=exact, program=program)


class PstStore:
    """A file of Outlook. It is converted when its mailboxes or messages are first asked for."""

    kind = "Outlook file"

    def __init__(self, path: Path, *, exact: bool, program: str) -> None:
        self._path, self._exact, self._program = path, exact, program

    @property
    def octets(self) -> int:
        """What the file has."""
        try:
            return self._path.stat().st_size
        except OSError:  # told of when it is read
            return 0

    def mailboxes(self) -> list[Mailbox]:
        """One for each folder that has messages. Converts the file first."""
        return self._converted.store.mailboxes()

    def messages(self) -> Iterator[LocalMessage | LocalProblem]:
        """All messages, folder by folder. Converts the file first."""
        if self._converted.complaint:
            yield LocalProblem(None, str(self._path), self._converted.complaint)
        yield from self._converted.store.messages()

    @functools.cached_property
    def _converted(self) -> _Converted:
        return _Converted(self._path, self._program, exact=self._exact)


class _Converted:
    """What readpst made of a file, in a folder that goes with this object. complaint: how it failed, if it did."""

    def __init__(self, path: Path, program: str, *, exact: bool) -> None:
        try:
            self._folder = tempfile.TemporaryDirectory(prefix="backupd-pst-")
        except OSError as error:
            what = f"no temporary folder for it: {error.strerror}"
            raise StorageError(what, subject=str(path), remedy="set TMPDIR to a folder with room") from error
        root = Path(self._folder.name)
        with tempfile.TemporaryFile() as said:
            command = [program, *_OPTIONS, "-o", str(root), str(path.resolve())]
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, check=False)
            said.seek(0)
            words = " ".join(said.read(_MOST_COMPLAINTS).decode("utf-8", "replace").split())
        self.complaint = ""
        if done.returncode:
            self.complaint = f"{PROGRAM} ended with {done.returncode} before all was read: {words or 'no reason given'}"
        self.store = _MessagesOfReadpst(root, path, exact=exact, without=_top(root))


def _top(root: Path) -> Parts:
    """The folders that stand for the file as a whole."""
    found: list[str] = []
    while True:
        with os.scandir(root.joinpath(*found)) as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        if len(names) != 1 or (found and names[0] not in _TOPS):
            return tuple(found)
        found += names


class _MessagesOfReadpst(EmlStore):
    """The tree of files that readpst wrote."""

    def __init__(self, root: Path, path: Path, *, exact: bool, without: Parts) -> None:
        super().__init__(root, exact=exact, without=without)
        self._file = path

    def _message(
        self, folder: Folder, name: str, box: Mailbox, notes: ledger.Notes | None
    ) -> LocalMessage | LocalProblem:
        place = shown(f"{self._file}: {box.name}/{name}")
        try:
            file = folder.open(name)
            start, end = _status(file)
        except OSError as error:
            return LocalProblem(box, place, reason(error))

        def chunks() -> Iterator[bytes]:
            return steady(chunk for part in ((0, start), (end, file.size)) for chunk in file.chunks(*part))

        return LocalMessage(
            mailboxes=(box,),
            body=body_of(chunks, exact=self._exact),
            place=place,
            flags=(b"\\Seen",) if end > start else (),
        )


def _status(file: OpenFile) -> tuple[int, int]:
    """Where the field Status is: readpst writes its own behind the fields that the message came with."""
    header = header_of(file.read(_LONGEST_HEADER))
    found = None
    for found in _STATUS.finditer(header):  # noqa: B007 the last one is meant
        pass
    return found.span() if found else (0, 0)


def steady(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """A message of readpst with its numbers replaced by 1, 2, 3 ... in their order, and no time of the run.

    Only numbers that a Content-Type declares are, and only times in a calendar of readpst's: what a text quotes stays.
    """
    numbers: dict[bytes, int] = {}
    in_its_calendar = False

    def named(found: re.Match[bytes]) -> bytes:
        nonlocal in_its_calendar
        number = found["number"]
        if number is None:
            if found["time"] is not None:
                return b"DTSTAMP:" + _NO_TIME if in_its_calendar else found[0]
            in_its_calendar = found["begin"] is not None
            return found[0]
        declared = found["declared"] or b""
        if declared:
            numbers.setdefault(number, len(numbers) + 1)
        return found[0] if number not in numbers else b"%s%s%d" % (declared, found["words"], numbers[number])

    held = b""
    for chunk in chunks:
        held += chunk
        end = held.rfind(b"\n") + 1
        if not end and len(held) > _LONGEST_LINE:
            end = len(held) - _LONGEST_BOUNDARY
        if end:
            yield _CHANGES.sub(named, held[:end])
            held = held[end:]
    if held:
        yield _CHANGES.sub(named, held)


FORMAT = PstFormat()
