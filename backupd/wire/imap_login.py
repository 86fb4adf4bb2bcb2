"""Logging in: SASL PLAIN, XOAUTH2 and OAUTHBEARER, in one round trip where the server can (RFC 4959), or LOGIN.

Secrets are sent and forgotten: no error, log line or chained exception may hold one, even where the server repeats it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from backupd.errors import ConnectionFailed, LoginRefused, ServerError
from backupd.wire import sasl, throttling
from backupd.wire.imap_commands import string
from backupd.wire.settings import OF_TOKENS
from backupd.wire.stream import show, without

if TYPE_CHECKING:
    from backupd.wire.imap_connection import Answer, ImapConnection
    from backupd.wire.imap_settings import ImapSettings

TRANSIENT_CODES = frozenset({b"UNAVAILABLE", b"INUSE", b"LIMIT", b"SERVERBUG", b"CONTACTADMIN"})
_TRANSIENT_WORDS = ("authenticated but not connected", "too many", "try again", "temporar")


def log_in(connection: ImapConnection, settings: ImapSettings) -> None:
    """Log in and learn the capabilities. Raises LoginRefused, or ConnectionFailed or Throttled when it may pass by
    itself.
    """
    mechanism = _mechanism(connection, settings)
    secret = settings.secret()
    try:
        answer = _accepted(connection, settings, mechanism, secret)
    except LoginRefused:
        # A token may be revoked, or over by the server's clock, long before it expires here.
        other = settings.renew(secret) if settings.renew else None
        if other is None:
            raise
        answer = _accepted(connection, settings, mechanism, other)
    connection.learn_capabilities(answer)


def _accepted(connection: ImapConnection, settings: ImapSettings, mechanism: bytes, secret: str) -> Answer:
    """The answer to a login with this secret. Raises LoginRefused, ConnectionFailed."""
    said: tuple[bytes, ...] = (secret.encode(),)
    if mechanism != b"LOGIN":
        initial = sasl.initial(mechanism.decode(), settings, secret)
        said += (base64.b64encode(initial),)
        answer = _sasl(connection, mechanism, initial)
        if answer.status.kind == b"BAD" and mechanism == b"PLAIN" and settings.authentication == "auto":
            mechanism = b"LOGIN"
    if mechanism == b"LOGIN":
        name, word = string(settings.username.encode()), string(secret.encode())
        answer = connection.wait(connection.send(b"LOGIN", name, word))
    if answer.status.kind != b"OK":
        raise _refused(answer, settings, said)
    return answer


def _mechanism(connection: ImapConnection, settings: ImapSettings) -> bytes:
    wanted = settings.authentication
    if wanted == "auto" and settings.renew:
        for name in (b"OAUTHBEARER", b"XOAUTH2"):
            if connection.has(b"AUTH=" + name):
                return name
        raise LoginRefused(
            "the server takes no tokens: it offers neither OAUTHBEARER nor XOAUTH2",
            subject=settings.address,
            remedy="use password in place of oauth2",
        )
    if wanted == "auto":
        if connection.has(b"AUTH=PLAIN"):
            return b"PLAIN"
        wanted = "login"
    if wanted == "login" and connection.has(b"LOGINDISABLED"):
        raise LoginRefused(
            "the server allows no login by password here",
            subject=settings.address,
            remedy="use tls: implicit or starttls; or the account needs OAuth2",
        )
    return wanted.upper().encode()


def _sasl(connection: ImapConnection, mechanism: bytes, initial: bytes) -> Answer:
    encoded = base64.b64encode(initial)
    if connection.has(b"SASL-IR"):
        tag = connection.send(b"AUTHENTICATE", mechanism, encoded)
    else:
        tag = connection.send(b"AUTHENTICATE", mechanism)
        if connection.continuation() is None:
            return connection.wait(tag)
        connection.stream.send(encoded + b"\r\n")
    if mechanism != b"PLAIN" and connection.continuation() is not None:
        # The reason came as a challenge; the refusal follows when it is acknowledged (RFC 7628, 3.2.3).
        connection.stream.send(b"AQ==\r\n" if mechanism == b"OAUTHBEARER" else b"\r\n")
    return connection.wait(tag)


def _refused(answer: Answer, settings: ImapSettings, secrets: tuple[bytes, ...]) -> ServerError:
    """secrets: what the server may repeat, and nobody shall see, not even the half of it that a cut would leave."""
    status = answer.status
    text = show(without(status.text, secrets))
    if found := throttling.wish(status.code, status.text):
        return throttling.throttled(found, text, subject=settings.address)
    lowered = text.lower()
    if status.code in TRANSIENT_CODES or any(word in lowered for word in _TRANSIENT_WORDS):
        return ConnectionFailed(
            f"the server does not let {settings.username} in now: {text}",
            subject=settings.address,
            remedy="it may be too many connections at once; another try comes later",
        )
    return LoginRefused(
        f"the server refused the login of {settings.username}: {text}",
        subject=settings.address,
        remedy=OF_TOKENS if settings.renew else "check username and password; many providers want an app password",
    )
