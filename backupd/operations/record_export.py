"""The signed record's public key and last entries, to be kept where nobody who can change the repository can change
them: what is compared with them later cannot have lost anything that came before."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from backupd.errors import UsageError
from backupd.repository.record import Signer

_FIRST: Final = "BACKUPD-RECORD-1"
_LINE: Final = re.compile(r"(repository|key|head|time) (\S+)\Z")
_MOST_OCTETS: Final = 1 << 20


class Export(msgspec.Struct, frozen=True):
    """repository: its id. key: the public key. heads: ids of the entries that none came after. All in hexadecimal.
    time: when this was so, RFC 3339."""

    format: int
    repository: str
    key: str
    heads: list[str]
    time: str

    @property
    def signer(self) -> Signer:
        """Whose entries are believed."""
        return Signer(bytes.fromhex(self.repository), bytes.fromhex(self.key))

    @property
    def text(self) -> str:
        """For a file, or for paper."""
        lines = [_FIRST, f"repository {self.repository}", f"key {self.key}", *(f"head {each}" for each in self.heads)]
        return "\n".join([*lines, f"time {self.time}", ""])


def parse(text: str, subject: str) -> Export:
    """What was exported, as text or as JSON. Raises UsageError."""
    wrong = UsageError(
        "this is no export of a signed record", subject=subject, remedy="`backupd record export` makes one"
    )
    try:
        found = msgspec.json.decode(text, type=Export) if text.lstrip().startswith("{") else _of_lines(text)
        sizes = len(bytes.fromhex(found.repository)), len(bytes.fromhex(found.key))
        if sizes != (16, 32) or any(len(bytes.fromhex(each)) != 32 for each in found.heads):
            raise wrong
    except (msgspec.MsgspecError, ValueError) as error:
        raise wrong from error
    return found


def _of_lines(text: str) -> Export:
    first, *lines = [line.strip() for line in text.strip().splitlines()] or [""]
    matches = [_LINE.match(line) for line in lines if line]
    if first != _FIRST or not all(matches):
        raise ValueError("not the lines of an export")
    pairs = [(match[1], match[2]) for match in matches if match]
    single = {key: value for key, value in pairs if key != "head"}
    heads = [value for key, value in pairs if key == "head"]
    return Export(1, single.get("repository", ""), single.get("key", ""), heads, single.get("time", ""))


def load(path: Path) -> Export:
    """The export in a file. Raises UsageError."""
    try:
        with path.open(encoding="utf-8") as file:
            return parse(file.read(_MOST_OCTETS), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"this file cannot be read: {error}", subject=str(path), remedy="check its name") from None
