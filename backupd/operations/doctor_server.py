"""What `backupd doctor` asks of an account's server: can it be reached and believed, does the login work, and how well
can it be backed up? Nothing is changed there, and no message is read.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

from cryptography import x509

from backupd.errors import BackupdError, ConnectionFailed
from backupd.mail import dates
from backupd.mail.uidset import UidSet
from backupd.operations.counting import count
from backupd.operations.finding import Finding, of_error
from backupd.sources.base import Discovered, Session, Source
from backupd.wire import tls
from backupd.wire.tls import Trust

_SECONDS = 20.0
_EXPIRES_SOON = timedelta(days=14)
_CLOCKS_DIFFER = timedelta(minutes=5)
_LOOKED_AT = 100

MEANING = (
    # (one of these capabilities, level without it, what it is good for, what happens without it)
    (("CONDSTORE", "QRESYNC"), "changed flags cost only what changed", "all flags are compared in each run (slower)"),
    (("QRESYNC",), "deleted messages are told by the server", "UIDs are compared to find deleted messages"),
    (("LIST-STATUS", "IMAP4REV2"), "unchanged mailboxes are seen in one round trip", "one question a mailbox"),
    (
        ("SPECIAL-USE", "IMAP4REV2"),
        "Sent, Trash and Junk are known as such",
        "special mailboxes are known by name only",
    ),
    (("UIDPLUS", "IMAP4REV2"), "a restore is told what it wrote", "a restore proves by headers what it wrote"),
    (("MULTIAPPEND",), "a restore sends many messages at once", "a restore sends one message at a time"),
    (
        ("LITERAL+", "LITERAL-", "IMAP4REV2"),
        "a restore need not wait for the server",
        "a restore waits at each message",
    ),
    (("OBJECTID", "X-GM-EXT-1"), "moved mail is recognised by its id", "moved mail is recognised by its header"),
)


Look = Callable[[str, datetime], Iterator[Finding]]
"""Logs in and looks around, given the subject of findings and the time."""


class Tls(NamedTuple):
    """A TLS connection that was made: its version, and until when the server's certificate is good."""

    version: str
    expires: datetime


class Address(NamedTuple):
    """Where a server is. tls: implicit, starttls or none. protocol: imap or pop3."""

    host: str
    port: int
    tls: str
    trust: Trust
    protocol: str = "imap"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def check_account(
    name: str,
    address: Address,
    look: Look,
    *,
    now: Callable[[], datetime],
    look_up: Callable[[str, int], int] | None = None,
    probe: Callable[[Address], Tls] | None = None,
) -> Iterator[Finding]:
    """All that can be said of an account's server. Ends at the first thing without which the rest cannot be tried.

    Args:
        look_up: how many addresses a host has. probe: makes a TLS connection. Both for tests.
    """
    subject = f"account {name}"
    try:
        (look_up or addresses)(address.host, address.port)
        if address.tls == "none":
            yield Finding("warning", subject, f"{address} is spoken to without TLS", "set tls: implicit or starttls")
        else:
            yield _judge_tls(subject, address, (probe or probe_tls)(address), now())
        yield from look(subject, now())
    except BackupdError as error:
        yield of_error(subject, error)


def check_imap(open_source: Callable[[], Source], subject: str, now: datetime) -> Iterator[Finding]:
    """Log in by IMAP, and see how well the account can be backed up. Raises ServerError."""
    session = open_source().open()
    try:
        yield from _session(subject, session, now)
    finally:
        session.close()


def addresses(host: str, port: int) -> int:
    """How many addresses the host has. Raises ConnectionFailed when it has none."""
    try:
        return len(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
    except OSError as error:
        raise ConnectionFailed(
            f"the host's address cannot be found: {error.strerror or error}",
            subject=host,
            remedy="check the spelling of host, and this machine's DNS",
        ) from None


def _judge_tls(subject: str, address: Address, made: Tls, now: datetime) -> Finding:
    left = made.expires - now
    said = f"{address} is reached with {made.version}, its certificate is good until {made.expires:%Y-%m-%d}"
    if left < timedelta() and not address.trust.fingerprint:
        return Finding("problem", subject, said, "the server's certificate must be renewed")
    if left < _EXPIRES_SOON and not address.trust.fingerprint:
        return Finding("warning", subject, said, "it expires soon: backups will fail if it is not renewed")
    return Finding("ok", subject, said)


def probe_tls(address: Address) -> Tls:
    """Make a TLS connection as a backup does, and end it. Raises ConnectionFailed, CertificateRefused."""
    try:
        sock = socket.create_connection((address.host, address.port), _SECONDS)
    except OSError as error:
        raise ConnectionFailed(
            f"no connection: {error.strerror or error}", subject=str(address), remedy="check host, port and firewall"
        ) from None
    with sock:
        if address.tls == "starttls":
            _start_tls(sock, str(address), address.protocol)
        with tls.wrap(sock, address.host, str(address), address.trust) as wrapped:
            certificate = x509.load_der_x509_certificate(wrapped.getpeercert(binary_form=True) or b"")
            return Tls(wrapped.version() or "TLS", certificate.not_valid_after_utc)


def _start_tls(sock: socket.socket, subject: str, protocol: str) -> None:
    """RFC 3501, 6.2.1; RFC 2595, 4. Reads octet by octet, so that nothing of the handshake is taken."""
    command, good, port = (b"STLS", b"+OK", 995) if protocol == "pop3" else (b"a STARTTLS", b"A OK", 993)
    try:
        _line(sock)
        sock.sendall(command + b"\r\n")
        line = _line(sock)
        while line.startswith(b"* "):
            line = _line(sock)
    except OSError as error:
        raise ConnectionFailed(f"STARTTLS failed: {error.strerror or error}", subject=subject) from None
    if not line.upper().startswith(good):
        raise ConnectionFailed(
            "the server offers no STARTTLS", subject=subject, remedy=f"try tls: implicit and port {port}"
        )


def _line(sock: socket.socket) -> bytes:
    line = b""
    while not line.endswith(b"\n") and len(line) < 8192:
        octet = sock.recv(1)
        if not octet:
            raise ConnectionResetError(104, "the connection was closed")
        line += octet
    return line


def _session(subject: str, session: Session, now: datetime) -> Iterator[Finding]:
    identity = session.identity
    software = f" ({identity.server})" if identity.server else ""
    yield Finding("ok", subject, f"the login works{software}")
    found = session.discover()
    messages = [each.status.messages for each in found if each.status.messages is not None]
    known = f", {count(sum(messages), 'message')}" if messages else ""
    yield Finding("ok", subject, f"{count(len(found), 'mailbox', 'mailboxes')}{known}")
    yield from capability_findings(subject, identity.capabilities)
    if difference := _clock(session, found, now):
        yield Finding(
            "warning",
            subject,
            f"the newest message was received {int(difference.total_seconds() // 60)} minutes in the future",
            "this machine's clock or the server's is wrong: check timedatectl",
        )


def capability_findings(subject: str, capabilities: tuple[str, ...]) -> list[Finding]:
    """What the server's capabilities mean for backups and restores."""
    there = {capability.upper() for capability in capabilities}
    good = [good for names, good, _ in MEANING if there.intersection(names)]
    lacking = [f"no {names[0]}: {without}" for names, _, without in MEANING if not there.intersection(names)]
    findings = [Finding("ok", subject, "; ".join(good))] if good else []
    # Slower is not wrong, and nobody can mend it from here: so it is said, and is no warning.
    return [*findings, Finding("ok", subject, "; ".join(lacking))] if lacking else findings


def _clock(session: Session, found: list[Discovered], now: datetime) -> timedelta | None:
    """How far in the future the newest of the last messages of INBOX was received; None when none was."""
    inbox = next((each for each in found if each.mailbox.raw_name.upper() == b"INBOX"), None)
    if inbox is None:
        return None
    uids = session.scan(inbox.mailbox, None).uids
    last = UidSet.from_uids(list(uids)[-_LOOKED_AT:])
    received = [dates.parse(each.facts.internaldate) for each in session.describe(inbox.mailbox, last)]
    times = [time for time in received if time]
    ahead = max(times, default=now) - now
    return ahead if ahead > _CLOCKS_DIFFER else None
