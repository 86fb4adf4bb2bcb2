"""An IMAP server that behaves as badly as a test wants, on loopback, in a thread.

By itself it is a small and well-behaved server with mailboxes in memory. `on` puts an answer of the test's choice
before its own. It writes down every command, so that a test can prove what was never sent.
"""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

CAPABILITIES = b"IMAP4rev1 AUTH=PLAIN SASL-IR ID ENABLE LITERAL+"
USER, PASSWORD = "tester", "pa55-word"


@dataclass
class Box:
    """A mailbox in memory. messages: bytes by UID; flags and size (an announced RFC822.SIZE) where they matter."""

    messages: dict[int, bytes] = field(default_factory=dict)
    flags: dict[int, bytes] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    modseqs: dict[int, int] = field(default_factory=dict)
    uidvalidity: int | None = 7
    uidnext: int | None = None
    highestmodseq: int | None = None

    def next(self) -> int:
        return self.uidnext or max(self.messages, default=0) + 1


@dataclass(frozen=True)
class Cut:
    """Send these bytes, and close the connection."""

    octets: bytes = b""


@dataclass(frozen=True)
class Challenge:
    """Send `+ text`, take the client's line, and send the rest."""

    then: bytes
    text: bytes = b""


Reply = bytes | Cut | Challenge | Callable[[bytes], bytes | Cut]


def done(tag: bytes, untagged: bytes = b"", text: bytes = b"done") -> bytes:
    """An answer with its tagged OK."""
    return untagged + tag + b" OK " + text + b"\r\n"


def uids_of(command: bytes, there: list[int]) -> list[int]:
    """Those UIDs (or numbers) that the set in a command such as UID FETCH 1:3,7 names."""
    wanted = re.search(rb"(?:FETCH|SEARCH(?: UID)?) ([\d:,*]+)", command)
    if not wanted:
        return there
    kept = set()
    for part in wanted[1].split(b","):
        first, _, last = part.partition(b":")
        low, high = int(first), (max(there, default=0) if last == b"*" else int(last or first))
        kept |= {uid for uid in there if low <= uid <= high}
    return sorted(kept)


class ScriptedImap:
    """The server. commands: every command received, without its tag; literals inlined, as quoted strings where they can
    be. responses: what came after a challenge. refuse_literals: what to answer a literal that asks for leave.

    Args:
        boxes: by raw name; INBOX is always there.
        capabilities: what it announces.
        greeting: its first line.
        certificate: PEM certificate and key in one folder (cert.pem, key.pem): TLS from the start, or with STARTTLS.
        starttls: "" for none, "yes", or "inject" to send a forged answer in the clear behind the OK.
    """

    host = "127.0.0.1"

    def __init__(
        self,
        boxes: dict[bytes, Box] | None = None,
        *,
        capabilities: bytes = CAPABILITIES,
        greeting: bytes = b"* OK ready\r\n",
        certificate: Path | None = None,
        starttls: str = "",
    ) -> None:
        self.boxes = {b"INBOX": Box(), **(boxes or {})}
        self.capabilities = capabilities
        self.greeting = greeting
        self.commands: list[bytes] = []
        self.responses: list[bytes] = []
        self.refuse_literals = b""
        self.connections = 0
        self._starttls = starttls
        self._context: ssl.SSLContext | None = None
        if certificate:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate / "cert.pem", certificate / "key.pem")
        self._scripts: list[tuple[re.Pattern[bytes], Reply, list[int]]] = []
        self._listener = socket.create_server((self.host, 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._speaking: list[socket.socket] = []
        self._beneath: dict[int, socket.socket] = {}
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def on(self, pattern: bytes, reply: Reply, *, times: int = 1_000_000) -> None:
        """Answer commands that match (from their start, without tag) this way. %TAG% stands for the command's tag.

        A reply may be a function of the command, in which case it gives the bytes. times: for so many commands.
        """
        self._scripts.append((re.compile(pattern, re.DOTALL), reply, [times]))

    def say(self, octets: bytes, connection: int = -1) -> None:
        """Send this, unasked, on the latest connection (or that one of all there were)."""
        self._speaking[connection].sendall(octets)

    def beneath(self, connection: int = -1) -> socket.socket:
        """The socket below the TLS of this connection, to send octets that are no record."""
        return self._beneath[id(self._speaking[connection])]

    def hang_up(self, connection: int = -1) -> None:
        """Cut this connection."""
        with contextlib.suppress(OSError):
            self._speaking[connection].shutdown(socket.SHUT_RDWR)

    def received(self, pattern: bytes) -> list[bytes]:
        """The commands that match."""
        return [command for command in self.commands if re.match(pattern, command, re.DOTALL)]

    def close(self) -> None:
        """Stop listening and cut all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in self._open:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)

    def __enter__(self) -> ScriptedImap:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- one connection ------------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.connections += 1
                self._open.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            if self._context and not self._starttls:
                plain = sock.dup()
                sock = self._context.wrap_socket(sock, server_side=True)
                self._open += [sock, plain]
                self._beneath[id(sock)] = plain
            try:
                self._talk(sock)
            finally:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    def _talk(self, sock: socket.socket) -> None:
        sock.sendall(self.greeting)
        self._speaking.append(sock)
        file = sock.makefile("rb")
        selected: list[bytes] = []
        idle = b""
        while command := self._read(file, sock):
            tag, _, words = command.partition(b" ")
            if command.upper() == b"DONE":
                tag, words = idle, b"DONE"
            elif words.upper() == b"IDLE":
                idle = tag
            self.commands.append(words)
            if words.upper() == b"STARTTLS" and self._starttls:
                forged = b"* CAPABILITY IMAP4rev1 FORGED\r\n" if self._starttls == "inject" else b""
                sock.sendall(done(tag) + forged)
                assert self._context
                plain = sock
                sock = self._context.wrap_socket(sock, server_side=True)
                self._open.append(sock)
                self._speaking[self._speaking.index(plain)] = sock
                file = sock.makefile("rb")
                continue
            reply = self._scripted(words)
            if isinstance(reply, Challenge):
                sock.sendall(b"+ " + reply.text + b"\r\n")
                self.responses.append(file.readline().rstrip(b"\r\n"))
                reply = reply.then
            if reply is None:
                reply = self._answer(words, selected)
            sock.sendall((reply.octets if isinstance(reply, Cut) else reply).replace(b"%TAG%", tag))
            if isinstance(reply, Cut) or words.upper() == b"LOGOUT":
                return

    def _read(self, file: BinaryIO, sock: socket.socket) -> bytes:
        """One command without its line end; its literals inlined."""
        pieces: list[bytes] = []
        while line := file.readline():
            pieces.append(line[:-2] if line.endswith(b"\r\n") else line)
            literal = re.search(rb"\{(\d+)(\+?)\}\r\n\Z", line)
            if not literal:
                return b"".join(pieces)
            if not literal[2] and self.refuse_literals:
                sock.sendall(pieces[0].split(b" ")[0] + b" " + self.refuse_literals + b"\r\n")
                pieces.clear()
                continue
            if not literal[2]:
                sock.sendall(b"+ go on\r\n")
            pieces[-1] = re.sub(rb"\{\d+\+?\}\Z", b"", pieces[-1])
            pieces.append(_quoted(file.read(int(literal[1]))))
        return b""

    def _scripted(self, words: bytes) -> bytes | Cut | Challenge | None:
        for pattern, reply, left in self._scripts:
            if left[0] and pattern.match(words):
                left[0] -= 1
                return reply if isinstance(reply, bytes | Cut | Challenge) else reply(words)
        return None

    def _answer(self, words: bytes, selected: list[bytes]) -> bytes:
        verb = words.split(b" ", 1)[0].upper()
        if verb in (b"LOGIN", b"AUTHENTICATE"):
            return done(b"%TAG%", text=b"[CAPABILITY " + self.capabilities + b"] welcome")
        if verb == b"CAPABILITY":
            announced = self.capabilities + (b" STARTTLS" if self._starttls else b"")
            return done(b"%TAG%", b"* CAPABILITY " + announced + b"\r\n")
        if verb == b"LIST":
            return done(b"%TAG%", b"".join(b'* LIST () "/" %s\r\n' % _quoted(name) for name in self.boxes))
        if verb == b"STATUS":
            name = _argument(words)
            if name not in self.boxes:
                return b"%TAG% NO no such mailbox\r\n"
            return done(b"%TAG%", self._status(name))
        if verb == b"EXAMINE":
            name = _argument(words)
            if name not in self.boxes:
                return b"%TAG% NO no such mailbox\r\n"
            selected[:] = [name]
            return self._examine(self.boxes[name])
        if verb in (b"UID", b"FETCH"):
            return self._messages(words, self.boxes[selected[0]]) if selected else b"%TAG% BAD nothing selected\r\n"
        if verb == b"IDLE":
            return b"+ idling\r\n"
        if verb in (b"ID", b"ENABLE", b"NOOP", b"LSUB", b"LOGOUT", b"DONE", b"NOTIFY"):
            return done(b"%TAG%", b"* BYE goodbye\r\n" if verb == b"LOGOUT" else b"")
        return b"%TAG% BAD unknown command\r\n"

    def _status(self, name: bytes) -> bytes:
        box = self.boxes[name]
        data = b"MESSAGES %d UIDNEXT %d" % (len(box.messages), box.next())
        data += b" UIDVALIDITY %d" % box.uidvalidity if box.uidvalidity is not None else b""
        data += b" HIGHESTMODSEQ %d" % box.highestmodseq if box.highestmodseq else b""
        return b"* STATUS %s (%s)\r\n" % (_quoted(name), data)

    def _examine(self, box: Box) -> bytes:
        lines = [b"* %d EXISTS" % len(box.messages), b"* OK [UIDNEXT %d] next" % box.next()]
        if box.uidvalidity is not None:
            lines.append(b"* OK [UIDVALIDITY %d] valid" % box.uidvalidity)
        lines.append(b"* OK [HIGHESTMODSEQ %d]" % box.highestmodseq if box.highestmodseq else b"* OK [NOMODSEQ] none")
        return done(b"%TAG%", b"".join(line + b"\r\n" for line in lines), b"[READ-ONLY] done")

    def _messages(self, words: bytes, box: Box) -> bytes:
        there = sorted(box.messages)
        if words.upper().startswith(b"UID SEARCH RETURN"):
            joined = b",".join(b"%d" % uid for uid in there)
            return done(b"%TAG%", b'* ESEARCH (TAG "%%TAG%%") UID%s\r\n' % (b" ALL " + joined if joined else b""))
        if words.upper().startswith(b"UID SEARCH"):
            numbers = uids_of(words, list(range(1, len(there) + 1)))
            joined = b" ".join(b"%d" % there[number - 1] for number in numbers)
            return done(b"%TAG%", b"* SEARCH %s\r\n" % joined if joined else b"* SEARCH\r\n")
        if words.upper().startswith(b"FETCH"):
            uids = [there[number - 1] for number in uids_of(words, list(range(1, len(there) + 1)))]
        else:
            uids = uids_of(words, there)
        since = re.search(rb"CHANGEDSINCE (\d+)", words)
        uids = [uid for uid in uids if not since or box.modseqs.get(uid, 1) > int(since[1])]
        return done(b"%TAG%", b"".join(self.fetched(box, uid, words) for uid in uids))

    def fetched(self, box: Box, uid: int, words: bytes) -> bytes:
        """The well-behaved answer to a FETCH for one message."""
        raw = box.messages[uid]
        items = [b"UID %d" % uid]
        if b"FLAGS" in words:
            items.append(b"FLAGS (%s)" % box.flags.get(uid, b""))
        if b"INTERNALDATE" in words:
            items.append(b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"')
        if b"RFC822.SIZE" in words:
            items.append(b"RFC822.SIZE %d" % box.sizes.get(uid, len(raw)))
        if b"MODSEQ" in words:
            items.append(b"MODSEQ (%d)" % box.modseqs.get(uid, 1))
        if b"BODY.PEEK[HEADER]" in words:
            head = raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            items.append(b"BODY[HEADER] {%d}\r\n%s" % (len(head), head))
        if b"BODY.PEEK[]" in words:
            items.append(b"BODY[] {%d}\r\n%s" % (len(raw), raw))
        number = sorted(box.messages).index(uid) + 1
        return b"* %d FETCH (%s)\r\n" % (number, b" ".join(items))


def _quoted(name: bytes) -> bytes:
    if re.fullmatch(rb"[\x20-\x7e]*", name):
        return b'"%s"' % name.replace(b"\\", b"\\\\").replace(b'"', b'\\"')
    return b"{%d}\r\n%s" % (len(name), name)


def _argument(words: bytes) -> bytes:
    """The mailbox name in a command."""
    rest = words.split(b" ", 1)[1]
    if literal := re.match(rb"\{(\d+)\}\r\n", rest):
        return rest[literal.end() : literal.end() + int(literal[1])]
    if quoted := re.match(rb'"((?:[^"\\]|\\.)*)"', rest):
        return re.sub(rb"\\(.)", rb"\1", quoted[1])
    return rest.split(b" ")[0]
