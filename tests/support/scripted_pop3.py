"""A POP3 server that behaves as badly as a test wants, on loopback, in a thread.

By itself it is a small and well-behaved server with a maildrop in memory. It writes down every command of every
session, so that a test can prove what was never sent.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

USER, PASSWORD = "tester", "pa55-word"
CAPABILITIES = ("TOP", "UIDL", "USER", "SASL PLAIN XOAUTH2", "PIPELINING", "RESP-CODES", "IMPLEMENTATION scripted")


def stuffed(text: bytes, end: bytes = b"\r\n") -> bytes:
    """A text of many lines as it goes over the wire, with the line end that it lacks (RFC 1939, 3)."""
    if text and not text.endswith(end):
        text += end
    if text.startswith(b"."):
        text = b"." + text
    return text.replace(end + b".", end + b"..") + b"." + end


@dataclass
class Scripted:
    """What the server has and does.

    mail: (UIDL, message) in order. sizes: what LIST says instead of the truth. on: an answer of the test's choice to a
    command, in place of the server's own; None in it closes the connection. pieces: octets sent at once. forgets: QUIT
    removes what was read, as with EXPIRE 0.
    """

    mail: list[tuple[bytes, bytes]] = field(default_factory=list)
    sizes: dict[int, bytes] = field(default_factory=dict)
    capabilities: tuple[str, ...] | None = CAPABILITIES
    greeting: bytes = b"+OK ready"
    end: bytes = b"\r\n"
    uidl: bool = True
    top: bool = True
    stls: bool = False
    on: dict[bytes, list[bytes | None]] = field(default_factory=dict)
    before: Callable[[bytes], None] = lambda _line: None
    pieces: int = 1 << 30
    deletes: bool = True
    forgets: bool = False


class ScriptedPop3:
    """The server. Use as a context manager.

    Args:
        certificate: PEM file with key and certificate, for TLS from the start, or after STLS where `scripted.stls`.
    """

    def __init__(self, scripted: Scripted | None = None, certificate: Path | None = None) -> None:
        self.scripted = scripted or Scripted()
        self.commands: list[bytes] = []
        self.sessions = 0
        self._certificate = certificate
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.host, self.port = self._listener.getsockname()
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()

    def __enter__(self) -> ScriptedPop3:
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)

    def settle(self) -> None:
        """Wait until all sessions have ended, whose clients have gone."""
        for thread in self._threads[1:]:  # the first waits for clients
            thread.join(10)

    def count(self, command: bytes) -> int:
        """How often the command came."""
        return sum(line.split()[:1] == [command] for line in self.commands)

    def _start(self, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self._open.add(sock)
            self.sessions += 1
            self._start(lambda sock=sock: self._serve(sock))  # type: ignore[misc]

    def _serve(self, sock: socket.socket) -> None:
        try:
            if self._certificate and not self.scripted.stls:
                sock = self._wrapped(sock)
            _Session(self, sock).run()
        except OSError:
            pass  # the client has gone
        finally:
            self._open.discard(sock)
            sock.close()

    def _wrapped(self, sock: socket.socket) -> ssl.SSLSocket:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self._certificate))
        return context.wrap_socket(sock, server_side=True)

    def start_tls(self, sock: socket.socket) -> ssl.SSLSocket:
        """The handshake after STLS."""
        return self._wrapped(sock)


class _Session:
    """One connection."""

    def __init__(self, server: ScriptedPop3, sock: socket.socket) -> None:
        self._server, self._sock, self._script = server, sock, server.scripted
        self._lines = sock.makefile("rb")
        self._mail = list(self._script.mail)
        self._marked: set[int] = set()
        self._user = b""

    def run(self) -> None:
        self._line(self._script.greeting)
        while line := self._lines.readline():
            line = line.rstrip(b"\r\n")
            self._server.commands.append(line)
            self._script.before(line)
            word, _, rest = line.partition(b" ")
            word = word.upper()
            if answers := self._script.on.get(line) or self._script.on.get(word):
                answer = answers.pop(0)
                if answer is None:
                    return
                self._send(answer)
                continue
            if not getattr(self, f"on_{word.decode('ascii', 'replace').lower()}", self.on_unknown)(rest):
                return

    def _send(self, octets: bytes) -> None:
        for start in range(0, len(octets), self._script.pieces):
            self._sock.sendall(octets[start : start + self._script.pieces])

    def _line(self, text: bytes) -> bool:
        self._send(text + self._script.end)
        return True

    def _text(self, first: bytes, text: bytes) -> bool:
        self._send(first + self._script.end + stuffed(text, self._script.end))
        return True

    def _listing(self, first: bytes, lines: list[bytes]) -> bool:
        return self._text(first, b"".join(line + self._script.end for line in lines))

    def on_unknown(self, rest: bytes) -> bool:
        return self._line(b"-ERR unknown command")

    def on_capa(self, rest: bytes) -> bool:
        if self._script.capabilities is None:
            return self.on_unknown(rest)
        return self._listing(b"+OK", [each.encode() for each in self._script.capabilities])

    def on_stls(self, rest: bytes) -> bool:
        if not self._script.stls:
            return self.on_unknown(rest)
        self._line(b"+OK begin")
        self._sock = self._server.start_tls(self._sock)
        self._lines = self._sock.makefile("rb")
        return True

    def _judge(self, good: bool) -> bool:
        return self._line(b"+OK welcome" if good else b"-ERR [AUTH] no such user or wrong password")

    def on_user(self, rest: bytes) -> bool:
        self._user = rest
        return self._line(b"+OK")

    def on_pass(self, rest: bytes) -> bool:
        return self._judge(rest == PASSWORD.encode())

    def on_apop(self, rest: bytes) -> bool:
        found = re.search(rb"<[^>]*>", self._script.greeting)
        stamp = found[0] if found else b""
        digest = hashlib.md5(stamp + PASSWORD.encode(), usedforsecurity=False).hexdigest()
        return self._judge(rest == f"{USER} {digest}".encode())

    def on_auth(self, rest: bytes) -> bool:
        if b" " in rest:
            return self._line(b"-ERR the initial response is not taken")
        self._line(b"+ ")
        blob = base64.b64decode(self._lines.readline())
        if rest == b"PLAIN":
            return self._judge(blob == f"\0{USER}\0{PASSWORD}".encode())
        who, token = (f"user={USER}\1".encode(), f"n,a={USER},\1".encode()), f"auth=Bearer {PASSWORD}\1\1".encode()
        if blob.startswith(who) and blob.endswith(b"\1" + token):
            return self._judge(True)
        self._line(b"+ " + base64.b64encode(b'{"status":"401"}'))
        self._lines.readline()
        return self._judge(False)

    def on_list(self, rest: bytes) -> bool:
        sizes = self._script.sizes
        lines = [b"%d %b" % (n, sizes.get(n, b"%d" % len(raw))) for n, (_, raw) in enumerate(self._mail, 1)]
        return self._listing(b"+OK", lines)

    def on_uidl(self, rest: bytes) -> bool:
        if not self._script.uidl:
            return self.on_unknown(rest)
        return self._listing(b"+OK", [b"%d %b" % (n, name) for n, (name, _) in enumerate(self._mail, 1)])

    def on_top(self, rest: bytes) -> bool:
        if not self._script.top:
            return self.on_unknown(rest)
        head = re.match(rb"(?s).*?(?:\r?\n\r?\n|\Z)", self._mail[int(rest.split()[0]) - 1][1])
        return self._text(b"+OK", head[0] if head else b"")

    def on_retr(self, rest: bytes) -> bool:
        number = int(rest)
        if not 0 < number <= len(self._mail):
            return self._line(b"-ERR no such message")
        if self._script.forgets:
            self._marked.add(number)
        return self._text(b"+OK", self._mail[number - 1][1])

    def on_dele(self, rest: bytes) -> bool:
        self._marked.add(int(rest))
        return self._line(b"+OK marked")

    def on_quit(self, rest: bytes) -> bool:
        if self._script.deletes and self._marked:
            gone = {self._mail[number - 1][0] for number in self._marked}
            self._script.mail = [each for each in self._script.mail if each[0] not in gone]
        self._line(b"+OK bye")
        return False
