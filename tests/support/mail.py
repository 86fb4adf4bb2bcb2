"""Builders of mail: one line each, the same bytes for the same arguments, CRLF throughout unless that is the point."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from hypothesis import strategies

_WORDS = (
    "the quarterly figures invoice attached please find meeting tomorrow regards contract draft review customer order "
    "delivery question about server backup restore mailbox weekend holiday photo thanks again reply soon project plan"
).split()


class Attachment(NamedTuple):
    """A file in a message. line_length: characters in a line of its base64 (a multiple of 4)."""

    name: str
    content: bytes
    content_type: str = "application/octet-stream"
    line_length: int = 76


def text(seed: int | str, octets: int) -> bytes:
    """Readable filler of about that many octets, in CRLF lines."""
    chooser = random.Random(f"text {seed}")
    lines: list[str] = []
    left = octets
    while left > 0:
        line = " ".join(chooser.choices(_WORDS, k=chooser.randint(4, 11)))
        lines.append(line)
        left -= len(line) + 2
    return "".join(f"{line}\r\n" for line in lines).encode()


def noise(seed: int | str, octets: int) -> bytes:
    """Octets that do not compress, as of a photograph."""
    return random.Random(f"noise {seed}").randbytes(octets)


def base64_lines(content: bytes, line_length: int = 76, *, line_end: bytes = b"\r\n") -> bytes:
    """Base64 in lines, the last one ended too."""
    encoded = base64.b64encode(content)
    lines = (encoded[start : start + line_length] for start in range(0, len(encoded), line_length))
    return b"".join(line + line_end for line in lines)


def message(
    subject: str = "Hello",
    body: str | bytes = "Hi,\r\nall is well.\r\n",
    *,
    attachments: Sequence[Attachment] = (),
    sender: str = "Alice <alice@example.com>",
    to: str = "Bob <bob@example.com>",
    date: str = "Wed, 17 Jul 1996 02:44:25 -0700",
    message_id: str | None = None,
    size: int | None = None,
    headers: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A well-formed message.

    Args:
        message_id: without angle brackets; by default made from the subject, so give different subjects.
        size: octets the whole message shall have at the least: the body is filled up, and no more than 100 are added.
        headers: more header fields, written last.
    """
    identity = message_id or f"{base64.urlsafe_b64encode(subject.encode()).decode().rstrip('=') or 'none'}@example.com"
    fields = [
        ("From", sender), ("To", to), ("Subject", subject), ("Date", date), ("Message-ID", f"<{identity}>"),
        ("MIME-Version", "1.0"), *headers,
    ]  # fmt: skip
    content = body if isinstance(body, bytes) else body.encode()
    raw = _assemble(fields, content, attachments)
    if size is not None and len(raw) < size:
        raw = _assemble(fields, content + text(subject, size - len(raw)), attachments)
    return raw


def _assemble(fields: Sequence[tuple[str, str]], content: bytes, attachments: Sequence[Attachment]) -> bytes:
    head = "".join(f"{name}: {value}\r\n" for name, value in fields).encode()
    plain = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
    if not attachments:
        return head + plain + content
    boundary = b"=_part_boundary_7d1f"
    parts = [plain + content]
    for file in attachments:
        described = (
            f'Content-Type: {file.content_type}; name="{file.name}"\r\n'
            f'Content-Disposition: attachment; filename="{file.name}"\r\n'
            "Content-Transfer-Encoding: base64\r\n\r\n"
        )
        parts.append(described.encode() + base64_lines(file.content, file.line_length))
    opened = b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts)
    kind = b'Content-Type: multipart/mixed; boundary="%s"\r\n\r\n' % boundary
    return head + kind + opened + b"--%s--\r\n" % boundary


def large_message(octets: int, *, seed: int | str = 0) -> bytes:
    """A message with one attachment that does not compress, of about that many octets."""
    content = noise(seed, octets * 57 // 78)
    return message(f"Large {seed}", attachments=[Attachment("large.bin", content)])


def office_mail(count: int, *, seed: int = 1) -> list[bytes]:
    """Mail as an office gets it: mostly short text, a fifth with one of a few files, wrapped variously."""
    chooser = random.Random(f"office {seed}")
    files = [Attachment(f"file-{n}.pdf", noise(f"{seed} {n}", 3_000 * (n + 1)), "application/pdf") for n in range(12)]
    mails = []
    for number in range(count):
        chosen = []
        if chooser.random() < 0.2:
            chosen.append(chooser.choice(files)._replace(line_length=chooser.choice((60, 72, 76))))
        body = text(f"{seed} {number}", chooser.choice((200, 900, 2_500, 9_000)))
        mails.append(message(f"Message {number} of {seed}", body, attachments=chosen))
    return mails


def _nested() -> bytes:
    inner = message("Innermost", attachments=[Attachment("a.bin", noise("nested", 2_000))])
    for depth in range(4):
        head = f"Subject: Fwd {depth}\r\nMIME-Version: 1.0\r\nContent-Type: message/rfc822\r\n\r\n".encode()
        inner = head + inner
    return inner


def _with_base64(encoded: bytes) -> bytes:
    head = b"Subject: odd base64\r\nMIME-Version: 1.0\r\nContent-Type: application/octet-stream\r\n"
    return head + b"Content-Transfer-Encoding: base64\r\n\r\n" + encoded


def _uneven_base64() -> bytes:
    encoded = base64.b64encode(noise("uneven", 30_000))
    return _with_base64(encoded[:76] + b"\r\n" + encoded[76:100] + b"\r\n" + encoded[100:] + b"\r\n")


_NASTY: dict[str, Callable[[], bytes]] = {
    "only-line-end": lambda: b"\r\n",
    "no-final-newline": lambda: message("no end").rstrip(b"\r\n") + b"\r\nthe end",
    "no-body": lambda: b"Subject: header only\r\nFrom: a@example.com\r\n",
    "no-header": lambda: b"\r\nbody only\r\n",
    "no-message-id": lambda: b"Subject: nobody\r\n\r\nbody\r\n",
    "eight-bit-header": lambda: b"Subject: Gr\xfc\xdfe aus K\xf6ln\r\nFrom: M\xfcller <m@example.com>\r\n\r\n\xe9\r\n",
    "utf8-header": "Subject: Grüße 🎉\r\nFrom: \u202eÜ <u@example.com>\r\n\r\nü\r\n".encode,
    "every-octet-but-nul": lambda: b"Subject: octets\r\n\r\n" + bytes(range(1, 256)) + b"\r\n",
    "long-line": lambda: b"Subject: long\r\n\r\n" + b"x" * 200_000 + b"\r\n",
    "long-header-line": lambda: b"Subject: " + b"y" * 100_000 + b"\r\n\r\nbody\r\n",
    "huge-header": lambda: b"".join(b"X-Field-%d: %s\r\n" % (n, b"z" * 70) for n in range(4_000)) + b"\r\nbody\r\n",
    "bare-cr": lambda: b"Subject: cr\r\n\r\none\rtwo\r\r\nthree\r\n",
    "trailing-space": lambda: b"Subject: space \r\n\r\nline  \r\n\t\r\n \r\n\r\n\r\n",
    "from-line": lambda: b"Subject: mbox\r\n\r\nFrom the start\r\n>From quoted\r\n>>From twice\r\n",
    "dots": lambda: b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\n",
    "looks-like-imap": lambda: b'Subject: imap\r\n\r\n)\r\n* 1 FETCH (UID 1 BODY[] {5}\r\nabcde)\r\nT1 OK done\r\n',
    "nested": _nested,
    "base64-60": lambda: _with_base64(base64_lines(noise("sixty", 40_000), 60)),
    "base64-one-line": lambda: _with_base64(base64_lines(noise("one", 40_000), 1 << 20)),
    "base64-uneven": _uneven_base64,
    "base64-not-padded": lambda: _with_base64(base64_lines(noise("pad", 30_000)).replace(b"=", b"")),
    "base64-stray-bits": lambda: _with_base64(base64_lines(noise("bits", 30_000)) + b"QR==\r\n"),
    "base64-then-text": lambda: _with_base64(base64_lines(noise("footer", 30_000)) + b"\r\n-- \r\nlist footer\r\n"),
    "base64-bad-character": lambda: _with_base64(base64_lines(noise("bad", 30_000)).replace(b"A", b"!", 1)),
    "boundary-missing": lambda: b'Content-Type: multipart/mixed; boundary="x"\r\n\r\n--x\r\n\r\nnever closed\r\n',
    "boundary-empty": lambda: b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\npart\r\n----\r\n',
    "many-parts": lambda: (
        b"Content-Type: multipart/mixed; boundary=b\r\n\r\n"
        + b"".join(b"--b\r\n\r\npart %d\r\n" % n for n in range(500)) + b"--b--\r\n"
    ),
}  # fmt: skip


def nasty_mail() -> dict[str, bytes]:
    """Mail that breaks parsers, by name. All of it can be appended over IMAP: none is empty, none holds NUL."""
    return {name: build() for name, build in _NASTY.items()}


def nasty_octets() -> dict[str, bytes]:
    """Mail that no server would take or serve as it is, for code that must bear any bytes."""
    return {
        "empty": b"",
        "nul": b"Subject: nul\r\n\r\na\0b\r\n",
        "bare-lf": b"Subject: lf\n\nline\nline\n",
        "mixed-line-ends": b"Subject: mixed\r\nX: y\n\r\none\ntwo\r\nthree\r",
        "cr-only": b"Subject: cr\r\rbody\r",
        "base64-lf": b"Content-Transfer-Encoding: base64\n\n" + base64_lines(noise("lf", 30_000), line_end=b"\n"),
        "all-octets": bytes(range(256)) * 64,
    }


def _header_values() -> strategies.SearchStrategy[bytes]:
    return strategies.binary(max_size=60).map(lambda raw: raw.translate(None, b"\r\n\0"))


@strategies.composite
def messages(draw: strategies.DrawFn) -> bytes:
    """Messages of every shape: well-formed ones, nasty ones, bytes at random, and cuts and splices of all these."""
    kind = draw(strategies.sampled_from(("plain", "plain", "attachments", "nasty", "octets", "cut", "random")))
    if kind == "random":
        return draw(strategies.binary(max_size=2_000))
    if kind == "nasty":
        return nasty_mail()[draw(strategies.sampled_from(sorted(_NASTY)))]
    if kind == "octets":
        return draw(strategies.sampled_from(sorted(nasty_octets().values())))
    if kind == "plain":
        values = draw(strategies.lists(_header_values(), max_size=5))
        head = b"".join(b"X-%d: %s\r\n" % (number, value) for number, value in enumerate(values))
        return head + b"\r\n" + draw(strategies.binary(max_size=3_000))
    chosen = [
        Attachment(
            f"{number}.bin",
            noise(draw(strategies.integers(0, 5)), draw(strategies.integers(0, 6_000))),
            line_length=draw(strategies.sampled_from((4, 60, 64, 72, 76, 998 // 4 * 4))),
        )
        for number in range(draw(strategies.integers(1, 3)))
    ]
    whole = message(f"Drawn {draw(strategies.integers(0, 99))}", attachments=chosen)
    if kind == "cut":
        return whole[: draw(strategies.integers(0, len(whole)))] + draw(strategies.binary(max_size=20))
    return whole
