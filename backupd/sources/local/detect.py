"""Which format a store of local mail has: by its name, or by a look at it.

The formats are asked from the most particular to the plainest: a Thunderbird profile is full of mbox files, and a
folder of Got-Your-Back full of `.eml` files. Each is a module of its own, imported when it is asked.
"""

from __future__ import annotations

import importlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from backupd.errors import UsageError
from backupd.sources.local.base import Format

_FORMATS = {
    "takeout": ("takeout", "FORMAT"),
    "thunderbird": ("thunderbird", "FORMAT"),
    "gyb": ("gyb", "FORMAT"),
    "imap-backup": ("imap_backup", "FORMAT"),
    "emlx": ("emlx", "FORMAT"),
    "apple-mbox": ("apple_mbox", "FORMAT"),
    "pst": ("pst", "FORMAT"),
    "zip": ("eml_zip", "FORMAT"),
    "maildir": ("maildir", "FORMAT"),
    "eml": ("eml", "FORMAT"),
    "mbox": ("mbox", "FORMAT"),
    "mboxo": ("mbox", "MBOXO"),
}
"""Names as users give them: module, and the object in it. The order is that of asking."""

_ONLY_BY_NAME = {"mboxo"}
_PACKED = (".zip", ".tgz", ".tar", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def names() -> list[str]:
    """What --format takes."""
    return list(_FORMATS)


def by_name(name: str) -> Format:
    """The format of this name. Raises UsageError."""
    if name not in names():
        raise UsageError("no such format of local mail", subject=name, remedy=f"one of {', '.join(names())}")
    module, attribute = _FORMATS[name]
    return cast("Format", getattr(importlib.import_module(f"{__package__}.{module}"), attribute))


def chosen(path: Path, name: str | None) -> Format:
    """The format of this name, or of what is at the path where none is given. Raises UsageError, also where the
    path is neither file nor folder: who opens a pipe may wait for ever."""
    format_ = by_name(name) if name else detect(path)
    try:
        is_other = not stat.S_ISREG(mode := path.stat().st_mode) and not stat.S_ISDIR(mode)
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", subject=str(path), remedy="check the path, and its permissions"
        ) from error
    if is_other:
        raise UsageError(
            "a pipe, socket or device, which is not read",
            subject=str(path),
            remedy="write what comes from it to a file, and import that",
        )
    return format_


def detect(path: Path) -> Format:
    """The format of what is at the path. Raises UsageError if there is nothing, or nothing that any format knows."""
    try:
        folder = path.is_dir()
        if not folder and not path.exists():
            raise UsageError("not there", subject=str(path), remedy="check the path")
        if path.is_file():
            path.open("rb").close()
        if folder and not any(path.iterdir()):
            raise UsageError("an empty folder", subject=str(path), remedy="name the folder that the mail is in")
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", subject=str(path), remedy="check its permissions"
        ) from error
    for format_ in _asked():
        if format_.recognises(path):
            return format_
    if not folder and path.suffix.lower() in _PACKED:
        raise UsageError("a packed file", subject=str(path), remedy="unpack it, and import the folder that comes out")
    raise UsageError(
        "no mail of a kind that is known",
        subject=str(path),
        remedy=f"looked for {', '.join(format_.name for format_ in _asked())}; name the folder that the mail is in, "
        "or the format with --format",
    )


def _asked() -> Iterator[Format]:
    return (by_name(name) for name in names() if name not in _ONLY_BY_NAME)

