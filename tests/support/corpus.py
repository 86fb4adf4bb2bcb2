"""Real mail for tests: the archives below $BACKUPD_CORPUS where there are any, else mail made here.

The folder holds bulk-dev.tar.zst (ordinary mail) and nasty-dev.tar.zst (mail that breaks parsers), one message a file
as <source>/<mailbox>/<name>.eml. They are unpacked once, under .cache, however many tests and workers ask.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

import zstandard

from tests.support.mail import nasty_mail, nasty_octets, office_mail

Kind = Literal["bulk", "nasty"]

_CACHE = Path(__file__).resolve().parents[2] / ".cache" / "corpus"
_LONE_LF = re.compile(rb"(?<!\r)\n")
_GENERATED_BULK = 600


class CorpusMessage(NamedTuple):
    """One message. mailbox: its folder, such as "usrp-users/2023"; name: unique in the corpus, the same every time."""

    mailbox: str
    name: str
    raw: bytes


def crlf(raw: bytes) -> bytes:
    """The message as IMAP can carry it: a lone LF becomes CRLF, and NUL, which APPEND forbids, becomes 0x80.

    A lone CR stays: it is legal, and a server keeps it. Dovecot does the same two changes to what it serves.
    """
    return _LONE_LF.sub(b"\r\n", raw).replace(b"\0", b"\x80")


def folder() -> Path | None:
    """Where real mail lies, and the programs that make more of it; None where there is none."""
    found = os.environ.get("BACKUPD_CORPUS")
    return Path(found) if found else None


def available() -> bool:
    """Whether real mail is at hand; without it the functions below give generated mail."""
    return _archive("bulk") is not None


def messages(kind: Kind = "bulk", limit: int | None = None) -> Iterator[CorpusMessage]:
    """The corpus in its own order, with the bytes of its files (often LF: see crlf). limit: at most so many."""
    return islice(generated(kind) if _archive(kind) is None else _real(kind), limit)


def spread(kind: Kind, count: int) -> list[CorpusMessage]:
    """About `count` messages, taken evenly from the whole corpus, so that every source of mail is in it."""
    every = list(_paths(kind)) if _archive(kind) is not None else []
    if not every:
        return list(messages(kind, count))
    root = unpacked(kind)
    step = max(1, len(every) // count)
    return [_read(root, path) for path in every[::step][:count]]


def _archive(kind: Kind) -> Path | None:
    place = folder()
    if place is None:
        return None
    archive = place / f"{kind}-dev.tar.zst"
    if not archive.is_file():
        raise FileNotFoundError(f"BACKUPD_CORPUS is {place}, and there is no {archive.name} in it")
    return archive


def unpacked(kind: Kind) -> Path:
    """The folder with the messages of an archive; the first caller unpacks, the others wait for it."""
    archive = _archive(kind)
    if archive is None:
        raise FileNotFoundError("BACKUPD_CORPUS is not set")
    facts = archive.stat()
    target = _CACHE / f"{kind}-{facts.st_size}-{int(facts.st_mtime)}"
    if target.is_dir():
        return target
    _CACHE.mkdir(parents=True, exist_ok=True)
    with (_CACHE / f"{kind}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.is_dir():
            partial = target.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            _unpack(archive, partial)
            partial.rename(target)
    return target


def _unpack(archive: Path, target: Path) -> None:
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 31)  # the archives use long-distance matching
    with (
        archive.open("rb") as packed,
        decompressor.stream_reader(packed) as plain,
        tarfile.open(fileobj=plain, mode="r|") as tar,
    ):
        for member in tar:
            path = PurePosixPath(member.name)
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{archive.name} holds a file outside itself: {member.name}")
            content = tar.extractfile(member)
            if content is not None:
                place = target.joinpath(*path.parts)
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(content.read())


def _paths(kind: Kind) -> Iterator[Path]:
    yield from sorted(unpacked(kind).rglob("*.eml"))


def _real(kind: Kind) -> Iterator[CorpusMessage]:
    root = unpacked(kind)
    for path in _paths(kind):
        yield _read(root, path)


def _read(root: Path, path: Path) -> CorpusMessage:
    parts = path.relative_to(root).parts[1:]  # the first is the name of the archive
    return CorpusMessage("/".join(parts[:-1]), "/".join(parts), path.read_bytes())


def generated(kind: Kind) -> Iterator[CorpusMessage]:
    """Mail made here, as `messages` gives it where there is none."""
    if kind == "bulk":
        for number, raw in enumerate(office_mail(_GENERATED_BULK)):
            mailbox = f"generated/{number % 6}"
            yield CorpusMessage(mailbox, f"{mailbox}/{number:06}.eml", raw)
        return
    for mailbox, alter in _ALTERED.items():
        for name, raw in {**nasty_mail(), **nasty_octets()}.items():
            yield CorpusMessage(f"generated/{mailbox}", f"generated/{mailbox}/{name}.eml", alter(raw))


def _forwarded(raw: bytes) -> bytes:
    head = b'Subject: Fwd\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="fwd"\r\n\r\n'
    return head + b"--fwd\r\nContent-Type: message/rfc822\r\n\r\n" + raw + b"\r\n--fwd--\r\n"


_ALTERED: dict[str, Callable[[bytes], bytes]] = {
    "nasty": bytes,
    "nasty, delivered": lambda raw: b"Received: from a.example by b.example; Mon, 2 Nov 2026 10:00:00 +0100\r\n" + raw,
    "nasty, forwarded": _forwarded,
    "nasty, cut": lambda raw: raw[: len(raw) * 2 // 3 + 2],  # of an empty line no less: a lone CR no server takes
}
"""By mailbox, what becomes of each nasty message."""
