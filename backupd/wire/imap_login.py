"""Logging in: SASL PLAIN, XOAUTH2 and OAUTHBEARER, in one round trip where the server can (RFC 4959), or LOGIN.

Secrets are sent and forgotten: no error, log line or chained exception may hold one, even where the server repeats it.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

from backupd.errors import ConnectionFailed, LoginRefused, ServerError
from backupd.wire import throttling
from backupd.wire.imap_commands import string
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
    secret = settings.secret()
    mechanism = _mechanism(connection, settings)
    if mechanism == b"LOGIN":
        name, word = string(settings.username.encode()), string(secret.encode())
        answer = connection.wait(connection.send(b"LOGIN", name, word))
    else:
        answer = _sasl(connection, mechanism, _initial(mechanism, settings, secret))
        if answer.status.kind == b"BAD" and settings.authentication == "auto":
            name, word = string(settings.username.encode()), string(secret.encode())
            answer = connection.wait(connection.send(b"LOGIN", name, word))
    if answer.status.kind != b"OK":
        said = () if mechanism == b"LOGIN" else (base64.b64encode(_initial(mechanism, settings, secret)),)
        raise _refused(answer, settings, (secret.encode(), *said))
    connection.learn_capabilities(answer)


def _mechanism(connection: ImapConnection, settings: ImapSettings) -> bytes:
    wanted = settings.authentication
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


def _initial(mechanism: bytes, settings: ImapSettings, secret: str) -> bytes:
    user = settings.username
    if mechanism == b"PLAIN":
        return f"\0{user}\0{secret}".encode()
    if mechanism == b"XOAUTH2":
        return f"user={user}\1auth=Bearer {secret}\1\1".encode()
    name = user.replace("=", "=3D").replace(",", "=2C")
    return f"n,a={name},\1host={settings.host}\1port={settings.port}\1auth=Bearer {secret}\1\1".encode()


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
        connection.stream.send(b"\r\n")  # the reason came as a challenge; the refusal follows (RFC 7628, 3.2.3)
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
        remedy="check username and password; many providers want an app password",
    )
