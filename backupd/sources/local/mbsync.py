"""What mbsync writes into the messages it stores: a field X-TUID, by which it finds them again.

It puts the field at the end of the header, and a message that has it is not the one the server has any more. So it is
taken out, but only where the file's name shows that mbsync wrote it, and only the field that mbsync itself would write.
A field that stands elsewhere came with the message.
"""

from __future__ import annotations

import re

from backupd.sources.local.body import Chunks
from backupd.sources.local.files import OpenFile

_ITS_NAME = re.compile(r",U=\d+")
_FIELD = re.compile(rb"\nX-TUID: [A-Za-z0-9+/]{12}\r?(?=\n\r?\n)")
_END = re.compile(rb"\n\r?\n")
_LONGEST_HEADER = 1 << 20


def without_its_field(file: OpenFile, name: str) -> tuple[Chunks, int]:
    """The octets of a message without the field, and how many they are."""
    if not _ITS_NAME.search(name):
        return file.chunks, file.size
    head = file.read(_LONGEST_HEADER)
    field = _FIELD.search(head)
    end = _END.search(head)
    if field is None or end is None or end.start() != field.end():
        return file.chunks, file.size
    # From behind the line end in front of the field to behind its own.
    start, rest = field.start() + 1, field.end() + 1
    return lambda: (chunk for part in ((0, start), (rest, file.size)) for chunk in file.chunks(*part)), (
        file.size - (rest - start)
    )
