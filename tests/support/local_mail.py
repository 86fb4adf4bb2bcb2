"""Stores of local mail for tests, and what was read from them in a form that is easily compared."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from backupd.model import Body
from backupd.sources.local.base import LocalMessage, LocalProblem, LocalStore

ARRIVED = 1_000_000_000
"""9 September 2001, in seconds since 1970."""


def octets(body: bytes | Body) -> bytes:
    """The whole of a message, whose size is what it says."""
    if isinstance(body, bytes):
        return body
    whole = b"".join(body.chunks())
    assert len(whole) == body.size
    return whole


def read(store: LocalStore) -> tuple[list[LocalMessage], list[LocalProblem]]:
    """Messages and problems of a store."""
    items = list(store.messages())
    return (
        [each for each in items if isinstance(each, LocalMessage)],
        [each for each in items if isinstance(each, LocalProblem)],
    )


def bodies(store: LocalStore) -> list[bytes]:
    """The messages of a store that has no problems."""
    messages, problems = read(store)
    assert problems == []
    return [octets(each.body) for each in messages]


def by_mailbox(store: LocalStore) -> dict[str, list[bytes]]:
    """The messages of a store that has no problems, by the names of their mailboxes; empty mailboxes too."""
    messages, problems = read(store)
    assert problems == []
    found: dict[str, list[bytes]] = {box.name: [] for box in store.mailboxes()}
    for each in messages:
        for box in each.mailboxes:
            found.setdefault(box.name, []).append(octets(each.body))
    return found


def put(path: Path, content: bytes, seconds: float = ARRIVED) -> Path:
    """A file with a time, in folders that are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    os.utime(path, (seconds, seconds))
    return path


def maildir(path: Path, names: Iterable[str] = (), *, content: bytes | None = None) -> Path:
    """A Maildir with messages of these names in cur; each says its folder and name, unless content is given."""
    for part in ("cur", "new", "tmp"):
        (path / part).mkdir(parents=True, exist_ok=True)
    for name in names:
        said = b"Subject: %s\r\n\r\n%s\r\n" % (os.fsencode(path.name), os.fsencode(name))
        put(path / "cur" / name, said if content is None else content)
    return path
