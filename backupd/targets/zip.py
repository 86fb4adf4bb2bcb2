"""A zip file with the tree of `.eml` files inside: one file to hand over, which every system opens.

The tree is that of `eml`, but messages.jsonl is messages-1.jsonl, messages-2.jsonl ..., one for each run. The file is
written beside its place under a temporary name and takes its place when the restore ends, so at any moment there is the
old file or the new one, both whole. A second run copies what there is and adds what is missing. After a kill it starts
over.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

from backupd.errors import Busy, StorageError, UsageError
from backupd.model import Mailbox
from backupd.targets import ledger
from backupd.targets.base import Fingerprint, Outcome, Outgoing, Present
from backupd.targets.content import UNREADABLE, chunks_of, header_by, outcome, unreadable
from backupd.targets.eml import SUFFIX, file_name, reserved
from backupd.targets.folders import PARTIAL, naming_errors
from backupd.targets.message_files import arrival
from backupd.targets.paths import Parts, Places, component_beside

_FIRST_YEAR, _LAST_YEAR = 1980, 2107
_LARGE = 1 << 31
_LOCAL_COPY = 1 << 20


def _reserved(name: str) -> bool:
    return reserved(name) or (name.startswith("messages-") and name.endswith(".jsonl"))


class ZipTarget:
    """Restores into a zip file; see the module for its layout.

    Args:
        path: the file; its folder is made when the first mailbox is prepared.
        fingerprint: how messages that are there are recognised.
        into: names of folders, separated by "/", below which all mailboxes go.
    """

    def __init__(self, path: Path, fingerprint: Fingerprint, *, into: str = "") -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._places = Places(into, component_beside(_reserved), self._siblings)
        self._file: BinaryIO | None = None
        self._zip: zipfile.ZipFile | None = None
        self._writing = self._failed = False

    @property
    def description(self) -> str:
        """The target as the user would write it."""
        return f"zip:{self._path}"

    def name_of(self, mailbox: Mailbox) -> str:
        """The zip file, and the folder in it."""
        return f"{self._path}:{'/'.join(self._places.parts(mailbox))}"

    def present(self, mailbox: Mailbox) -> Counter[Present]:
        """The messages in the mailbox's folder of the zip file. Changes nothing. Raises UsageError if it is none."""
        found: Counter[Present] = Counter()
        archive = self._open_for_reading()
        if archive is None:
            return found
        folder = f"{'/'.join(self._places.parts(mailbox))}/"
        for info in archive.infolist():
            name = info.filename
            if name.startswith(folder) and "/" not in name[len(folder) :] and name.lower().endswith(SUFFIX):
                with self._errors(), archive.open(info) as member:
                    header = header_by(member.read)
                found[Present(self._fingerprint(header), info.file_size)] += 1
        return found

    def prepare(self, mailbox: Mailbox) -> None:
        """Describe the mailbox in the zip file. Raises UsageError, StorageError and Busy."""
        archive = self._open_for_writing()
        name = f"{'/'.join(self._places.parts(mailbox))}/{ledger.MAILBOX}"
        if name not in archive.NameToInfo:
            with self._errors():
                archive.writestr(_info(name, int(datetime.now(UTC).timestamp())), ledger.mailbox_json(mailbox))

    def write(self, mailbox: Mailbox, messages: Iterable[Outgoing]) -> Iterator[Outcome]:
        """Add messages; they are in the file when the target is closed. Raises StorageError."""
        archive = self._open_for_writing()
        folder = "/".join(self._places.parts(mailbox))
        with tempfile.TemporaryFile() as notes:
            try:
                for message in messages:
                    try:
                        name = self._add(archive, folder, message)
                    except UNREADABLE as error:
                        yield unreadable(message, error)
                        continue
                    with self._errors():
                        notes.write(ledger.message_line(message, file=name))
                    yield outcome(message)
            finally:
                if not self._failed:
                    self._add_notes(archive, folder, notes)

    def close(self) -> None:
        """Put what was written in place; after an error nothing changes. Raises StorageError."""
        archive, file, writing, self._writing = self._zip, self._file, self._writing, False
        self._zip = self._file = None
        if archive is None or file is None:
            return
        partial = self._partial()
        try:
            if writing and not self._failed:
                with self._errors():
                    archive.close()
                    file.flush()
                    os.fsync(file.fileno())
                    partial.replace(self._path)
                    folder = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        os.fsync(folder)
                    finally:
                        os.close(folder)
        finally:
            if self._failed:
                archive.fp = None  # or it would try to write its directory
                with contextlib.suppress(FileNotFoundError):
                    partial.unlink()
            file.close()

    # -- the file ------------------------------------------------------------------------------------------------------

    def _partial(self) -> Path:
        return self._path.with_name(f".{self._path.name}{PARTIAL}")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with naming_errors(str(self._path)):
                yield
        except StorageError:
            self._failed = self._writing
            raise
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            self._failed = self._writing
            raise UsageError(
                f"not a zip file that can be read: {error}", subject=str(self._path), remedy="name another file"
            ) from error

    def _open_for_reading(self) -> zipfile.ZipFile | None:
        if self._zip is None:
            with self._errors():
                try:
                    file = self._path.open("rb")
                except FileNotFoundError:
                    return None
                try:
                    self._zip = zipfile.ZipFile(file)
                except BaseException:
                    file.close()
                    raise
                self._file = file
        return self._zip

    def _open_for_writing(self) -> zipfile.ZipFile:
        if self._writing and self._zip is not None:
            return self._zip
        self._open_for_reading()  # refuse what is no zip file before anything is copied
        with self._errors():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            file = os.fdopen(os.open(self._partial(), flags, 0o600), "r+b")
            try:
                self._lock(file)
                file.truncate(0)
                if self._file is not None:
                    self._file.seek(0)
                    shutil.copyfileobj(self._file, file, _LOCAL_COPY)
                    self._file.close()
                file.seek(0)
                self._zip = zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED, allowZip64=True)
            except BaseException:
                file.close()
                raise
            self._file, self._writing, self._failed = file, True, False
        return self._zip

    def _lock(self, file: BinaryIO) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy("another restore writes this file", subject=str(self._path), remedy="let it finish") from None

    # -- its contents --------------------------------------------------------------------------------------------------

    def _siblings(self, parent: Parts) -> set[str]:
        archive = self._open_for_reading()
        prefix = "".join(f"{part}/" for part in parent)
        names = archive.NameToInfo if archive else {}
        return {name[len(prefix) :].partition("/")[0] for name in names if name.startswith(prefix)}

    def _add(self, archive: zipfile.ZipFile, folder: str, message: Outgoing) -> str:
        number = 1
        while f"{folder}/{(name := file_name(message, number))}" in archive.NameToInfo:
            number += 1
        info = _info(f"{folder}/{name}", arrival(message), message.size)
        if isinstance(message.body, bytes):
            raw = b"".join(chunks_of(message))
            with self._errors():
                archive.writestr(info, raw)
            return name
        with self._errors():
            member = archive.open(info, "w", force_zip64=message.size >= _LARGE)
        try:
            self._fill(member, message)
        except BaseException:
            self._close_and_forget(archive, info, member)
            raise
        with self._errors():
            member.close()
        return name

    def _fill(self, member: IO[bytes], message: Outgoing) -> None:
        for chunk in chunks_of(message):
            with self._errors():
                member.write(chunk)

    def _close_and_forget(self, archive: zipfile.ZipFile, info: zipfile.ZipInfo, member: IO[bytes]) -> None:
        """Leave a message that broke off out of the directory. Its octets stay, and no program looks at them."""
        with self._errors():
            member.close()
        archive.filelist.remove(info)
        del archive.NameToInfo[info.filename]

    def _add_notes(self, archive: zipfile.ZipFile, folder: str, notes: IO[bytes]) -> None:
        size = notes.tell()
        if not size:
            return
        number = 1
        while (name := f"{folder}/messages-{number}.jsonl") in archive.NameToInfo:
            number += 1
        notes.seek(0)
        info = _info(name, int(datetime.now(UTC).timestamp()), size)
        with self._errors(), archive.open(info, "w", force_zip64=size >= _LARGE) as member:
            shutil.copyfileobj(notes, member, _LOCAL_COPY)


def _info(name: str, seconds: int, size: int = 0) -> zipfile.ZipInfo:
    """An entry with its time, in the old form, and to the second in UTC in the extended one (extra field 0x5455)."""
    moment = datetime.fromtimestamp(seconds, UTC)
    if not _FIRST_YEAR <= moment.year <= _LAST_YEAR:
        moment = datetime(_FIRST_YEAR, 1, 1, tzinfo=UTC)
    info = zipfile.ZipInfo(name, moment.timetuple()[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o600 << 16
    info.file_size = size
    if seconds < _LARGE:
        info.extra = struct.pack("<HHBI", 0x5455, 5, 1, seconds)
    return info
