"""The file targets as tests use them, and what operations do with a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from backupd.model import Mailbox
from backupd.targets.base import Outcome, Outgoing, Present, Target
from backupd.targets.eml import EmlTarget
from backupd.targets.maildir import MaildirTarget
from backupd.targets.mbox import MboxTarget
from backupd.targets.zip import ZipTarget
from tests.support.restoring import fingerprint

CLASSES: dict[str, Callable[..., Target]] = {
    "eml": EmlTarget,
    "maildir": MaildirTarget,
    "mbox": MboxTarget,
    "zip": ZipTarget,
}


@dataclass(frozen=True)
class Files:
    """A kind of file target and its place."""

    kind: str
    path: Path

    def open(self, *, into: str = "") -> Target:
        """The target."""
        return CLASSES[self.kind](self.path, fingerprint, into=into)


def restore(target: Target, box: Mailbox, messages: list[Outgoing]) -> list[Outcome]:
    """Write what is not there yet."""
    there = Counter(target.present(box))
    wanted = []
    for each in messages:
        key = Present(each.fingerprint, each.size)
        if there[key]:
            there[key] -= 1
        else:
            wanted.append(each)
    target.prepare(box)
    return list(target.write(box, wanted))
