"""Mail on disk between its making and its delivery: one file a mailbox, each message behind its length.

The harness thus holds one message in memory at a time, and the raw append reads what all others restore.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote, unquote

_LENGTH = struct.Struct(">Q")


def write_spool(folder: Path, messages: Iterable[tuple[str, bytes]]) -> tuple[int, int]:
    """Write (mailbox, message) pairs. Returns how many messages there were, and their octets."""
    folder.mkdir(parents=True)
    count = octets = 0
    with ExitStack() as open_files:
        files: dict[str, BinaryIO] = {}
        for mailbox, raw in messages:
            if mailbox not in files:
                files[mailbox] = open_files.enter_context((folder / quote(mailbox, safe="")).open("wb"))
            files[mailbox].write(_LENGTH.pack(len(raw)))
            files[mailbox].write(raw)
            count, octets = count + 1, octets + len(raw)
    return count, octets


def read_spool(folder: Path) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Each mailbox with its messages, in order of name; read one mailbox to its end before the next."""
    for path in sorted(folder.iterdir()):
        yield unquote(path.name), _messages(path)


def _messages(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while head := file.read(_LENGTH.size):
            yield file.read(_LENGTH.unpack(head)[0])
