"""Names of objects: what lies where in a repository (docs/format.md, "Objects")."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime

from backupd.repository.parity import whose
from backupd.storage.base import Buffer

DESCRIPTION = "repository.json"
KEYS = "keys/"
PACKS = "packs/"
INDEX = "index/"
SNAPSHOTS = "snapshots/"
HOLDS = "holds/"
ERASURES = "erasures/"
LOG = "log/"
MARKS = "marks/"
NEEDS = "needs/"
PARITY = "parity/"
PROBE = "probe/"
ALL = (DESCRIPTION, KEYS, PACKS, INDEX, SNAPSHOTS, HOLDS, ERASURES, LOG)
"""How the names begin of all that a repository is made of. Marks and needs are none of it: they are about what is
superfluous. Parity is about other objects, and each repository has its own, or none."""

_SNAPSHOT_NAME = re.compile(r"snapshots/([0-9a-f]{16})/(\d{8}T\d{9}Z-[0-9a-f]{8})\Z")
_TIMED_NAME = re.compile(r"(marks|needs|holds|erasures|log)/(\d{8}T\d{9}Z-[0-9a-f]{8})\Z")
_CONTENT_NAME = re.compile(r"(?:packs/([0-9a-f]{2})|index)/([0-9a-f]{64})\Z")


def sha256(data: Sequence[Buffer]) -> str:
    """SHA-256 of the concatenation, in hexadecimal."""
    digest = hashlib.sha256()
    for piece in data:
        digest.update(piece)
    return digest.hexdigest()


def pack(digest: str) -> str:
    """The object name of the pack whose bytes have this SHA-256."""
    return f"{PACKS}{digest[:2]}/{digest}"


def index(digest: str) -> str:
    """The object name of the index object whose bytes have this SHA-256."""
    return f"{INDEX}{digest}"


def snapshot_id(time: datetime, digest: str) -> str:
    """A snapshot's id: its time in UTC to the millisecond and the first 8 digits of its object's SHA-256."""
    time = time.astimezone(UTC)
    return f"{time:%Y%m%dT%H%M%S}{time.microsecond // 1000:03}Z-{digest[:8]}"


def snapshot(tag: str, identifier: str) -> str:
    """The object name of a snapshot."""
    return f"{SNAPSHOTS}{tag}/{identifier}"


def snapshot_time(identifier: str) -> datetime:
    """The time in a snapshot's id."""
    return datetime.strptime(identifier[:18] + "000", "%Y%m%dT%H%M%S%f").replace(tzinfo=UTC)


def parse_snapshot(name: str) -> tuple[str, str] | None:
    """(account tag, snapshot id) of a snapshot's object name, or None for any other name."""
    match = _SNAPSHOT_NAME.match(name)
    if not match:
        return None
    try:
        snapshot_time(match[2])
    except ValueError:  # digits that are no time
        return None
    return match[1], match[2]


def hold(identifier: str) -> str:
    """The object name of a hold."""
    return f"{HOLDS}{identifier}"


def erasure(identifier: str) -> str:
    """The object name of an erasure."""
    return f"{ERASURES}{identifier}"


def parity(name: str) -> str:
    """The object name of the parity of an object."""
    return PARITY + name


def mark_time(name: str) -> datetime | None:
    """The time in the object name of a mark, or None for any other name."""
    return _time_below(MARKS, name)


def need_time(name: str) -> datetime | None:
    """The time in the object name of a need, or None for any other name."""
    return _time_below(NEEDS, name)


def hold_time(name: str) -> datetime | None:
    """The time in the object name of a hold, or None for any other name."""
    return _time_below(HOLDS, name)


def erasure_time(name: str) -> datetime | None:
    """The time in the object name of an erasure, or None for any other name."""
    return _time_below(ERASURES, name)


def log_time(name: str) -> datetime | None:
    """The time in the object name of a piece of the signed record, or None for any other name."""
    return _time_below(LOG, name)


def _time_below(prefix: str, name: str) -> datetime | None:
    match = _TIMED_NAME.match(name)
    try:
        return snapshot_time(match[2]) if match and name.startswith(prefix) else None
    except ValueError:  # digits that are no time
        return None


def proves(name: str, data: Sequence[Buffer]) -> bool | None:
    """Whether these bytes are the ones the name promises; None where the name promises nothing.

    Needs no key: this is what an auditor checks.
    """
    if name.startswith(PARITY):
        digest = whose(b"".join(data))
        return digest is not None and digest.hex().startswith(_promised(name.removeprefix(PARITY)) or "")
    promised = _promised(name)
    return sha256(data).startswith(promised) if promised is not None else None


def _promised(name: str) -> str | None:
    """How the SHA-256 of the object of this name begins, in hexadecimal; None where the name does not tell."""
    if match := _CONTENT_NAME.match(name):
        return match[2] if match[1] in (None, match[2][:2]) else "a pack in the wrong folder"
    if parse_snapshot(name) or any(_time_below(prefix, name) for prefix in (MARKS, NEEDS, HOLDS, ERASURES, LOG)):
        return name[-8:]
    return None
