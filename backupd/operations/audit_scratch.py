"""Where a drill restores to, and how what it restored is read back: a Maildir of its own, or a real IMAP account.

Both are read back by what reads mail for backups, and are removed afterwards.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from backupd.errors import StorageError
from backupd.mail import dates
from backupd.mail.uidset import UidSet
from backupd.model import Body, Flags
from backupd.sources.base import Fetched, Source
from backupd.sources.local.base import LocalMessage
from backupd.sources.local.maildir import MaildirStore
from backupd.targets.base import Fingerprint, Target
from backupd.targets.maildir import MaildirTarget

_AT_ONCE = 1000
_PREFIX = "backupd-drill-"
_ABANDONED_SECONDS = 24 * 3600.0


class Back(NamedTuple):
    """A message that was read back. mailbox: raw name in the snapshot. moment: when it arrived, seconds since 1970."""

    mailbox: bytes
    body: bytes | Body
    flags: Flags
    moment: float | None


class Scratch(Protocol):
    """A place that is empty before, and removed after."""

    @property
    def description(self) -> str:
        """For people."""
        ...

    def open(self, fingerprint: Fingerprint) -> Target:
        """The target; it may be asked for again after a lost connection."""
        ...

    def read_back(self, names: Mapping[str, bytes]) -> Iterator[Back]:
        """All that is there. names: raw names in the snapshot by what `Target.name_of` said of each."""
        ...

    def clear(self) -> str:
        """Remove all of it; what could not be removed, for people, or nothing."""
        ...


class MaildirScratch:
    """A Maildir in a temporary folder that only this user can read."""

    def __init__(self) -> None:
        """Raises StorageError where there can be none."""
        try:
            _remove_left()
            self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        except OSError as error:
            raise StorageError(
                f"no temporary folder can be made: {error.strerror}",
                subject=tempfile.gettempdir(),
                remedy="point TMPDIR to a place with room",
            ) from error

    @property
    def description(self) -> str:
        return f"a temporary Maildir in {self._folder.parent}"

    def open(self, fingerprint: Fingerprint) -> Target:
        return MaildirTarget(self._folder / "mail", fingerprint)

    def read_back(self, names: Mapping[str, bytes]) -> Iterator[Back]:
        for each in MaildirStore(self._folder / "mail", exact=True).messages():
            if isinstance(each, LocalMessage):
                moment = each.stored.timestamp() if each.stored else None
                yield Back(each.mailboxes[0].raw_name, each.body, each.flags, moment)

    def clear(self) -> str:
        shutil.rmtree(self._folder, ignore_errors=True)
        return str(self._folder) if self._folder.exists() else ""


def _remove_left() -> None:
    """Remove what drills left behind that were killed a day ago or earlier: it is mail in plain text."""
    before = time.time() - _ABANDONED_SECONDS
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        try:
            facts = folder.lstat()
        except FileNotFoundError:  # another drill's, which has ended
            continue
        if stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and facts.st_mtime < before:
            shutil.rmtree(folder, ignore_errors=True)


class ImapScratch:
    """Mailboxes of an IMAP account, below one of a name of their own.

    Args:
        account: for people.
        open_target: opens the account as a target, with all below the prefix.
        source: the account as a source.
        prefix: the mailbox all others are below.
        remove: removes them; the names of those that it could not.
    """

    def __init__(
        self,
        account: str,
        prefix: str,
        open_target: Callable[[Fingerprint, str], Target],
        source: Source,
        remove: Callable[[str], list[bytes]],
    ) -> None:
        self._account, self._prefix, self._open_target = account, prefix, open_target
        self._source, self._remove = source, remove

    @property
    def description(self) -> str:
        return f"imap:{self._account}, below {self._prefix}"

    def open(self, fingerprint: Fingerprint) -> Target:
        return self._open_target(fingerprint, self._prefix)

    def read_back(self, names: Mapping[str, bytes]) -> Iterator[Back]:
        session = self._source.open()
        try:
            found = [each.mailbox for each in session.discover() if each.mailbox.name in names]
            for mailbox in found:
                for some in session.scan(mailbox, None).uids.chunks(_AT_ONCE):
                    for each in session.fetch(mailbox, UidSet.from_ranges(some.ranges)):
                        if isinstance(each, Fetched):
                            moment = dates.timestamp(each.facts.internaldate)
                            yield Back(names[mailbox.name], each.body, each.state.flags, moment)
        finally:
            session.close()

    def clear(self) -> str:
        left = self._remove(self._prefix)
        return ", ".join(name.decode("utf-8", "backslashreplace") for name in left)
