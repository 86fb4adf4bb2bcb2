"""Logging in to POP3: USER and PASS, APOP (RFC 1939, 7), SASL PLAIN, XOAUTH2 and OAUTHBEARER (RFC 5034).

Secrets are sent and forgotten: no error or log line may hold one, even where the server repeats it.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING

from backupd.errors import ConnectionFailed, LoginRefused, ServerError, Throttled
from backupd.wire import sasl
from backupd.wire.settings import OF_TOKENS

if TYPE_CHECKING:
    from backupd.wire.pop3_connection import Pop3Connection
    from backupd.wire.pop3_settings import Pop3Settings
    from backupd.wire.pop3_stream import Reply


def log_in(connection: Pop3Connection, settings: Pop3Settings) -> None:
    """Log in. Raises LoginRefused, or ConnectionFailed when it may pass by itself."""
    way = _way(connection, settings)
    secret = settings.secret()
    try:
        _log_in(connection, settings, way, secret)
    except LoginRefused:
        # A token may be revoked, or over by the server's clock, long before it expires here.
        other = settings.renew(secret) if settings.renew else None
        if other is None:
            raise
        _log_in(connection, settings, way, other)


def _log_in(connection: Pop3Connection, settings: Pop3Settings, way: str, secret: str) -> None:
    if any(end in settings.username + secret for end in "\r\n\0"):
        raise LoginRefused("user name or password has a line end in it", subject=settings.address, remedy="remove it")
    connection.stream.secrets = (secret.encode(),)
    if way == "apop":
        digest = hashlib.md5(connection.timestamp + secret.encode(), usedforsecurity=False).hexdigest()
        connection.stream.secrets += (digest.encode(),)
        reply = connection.command(f"APOP {settings.username} {digest}".encode())
    elif way == "user":
        reply = _user(connection, settings.username, secret)
    elif way == "plain":
        known = len(connection.stream.secrets)
        reply = _sasl(connection, b"PLAIN", sasl.initial("plain", settings, secret))
        never_asked = len(connection.stream.secrets) == known
        if settings.authentication == "auto" and never_asked and not (reply.ok or reply.code):
            reply = _user(connection, settings.username, secret)  # it offered what it does not have
    else:
        reply = _sasl(connection, way.upper().encode(), sasl.initial(way, settings, secret))
    if not reply.ok:
        raise _refused(connection, settings, reply)


def _way(connection: Pop3Connection, settings: Pop3Settings) -> str:
    wanted = settings.authentication
    if wanted == "apop" and not connection.timestamp:
        raise LoginRefused("the server offers no APOP", subject=settings.address, remedy="use authentication: auto")
    if wanted != "auto":
        return wanted
    mechanisms = {each.upper() for each in connection.capabilities.get("SASL", ())}
    if settings.renew:
        # Not all servers list what they take: this one is taken by all that take tokens.
        return "oauthbearer" if "OAUTHBEARER" in mechanisms else "xoauth2"
    if settings.tls == "none" and connection.timestamp:
        return "apop"
    return "plain" if "PLAIN" in mechanisms else "user"


def _user(connection: Pop3Connection, username: str, secret: str) -> Reply:
    reply = connection.command(f"USER {username}".encode())
    return connection.command(f"PASS {secret}".encode()) if reply.ok else reply


def _sasl(connection: Pop3Connection, mechanism: bytes, blob: bytes) -> Reply:
    """In two steps, which every server takes: Exchange refuses the initial response of XOAUTH2 with the command."""
    reply = connection.command(b"AUTH " + mechanism)
    if not (reply.asks or reply.ok):  # "+", and from some servers "+OK"
        return reply
    encoded = base64.b64encode(blob)
    connection.stream.secrets += (encoded,)
    reply = connection.command(encoded)
    if reply.asks:
        # The reason came as a challenge; the refusal follows when it is acknowledged (RFC 7628, 3.2.3).
        reply = connection.command(b"AQ==" if mechanism == b"OAUTHBEARER" else b"")
    return reply


def _refused(connection: Pop3Connection, settings: Pop3Settings, reply: Reply) -> ServerError:
    what = f"the server refused the login of {settings.username}"
    error = connection.refusal(what, reply)
    if isinstance(error, ConnectionFailed | Throttled):
        return error
    remedy = OF_TOKENS if settings.renew else "check username and password; many providers want an app password"
    if reply.code == "SYS/PERM":  # RFC 3206, 4: the server cannot, and no other password will help
        remedy = "something is broken at the server; tell its administrator what it said"
    return LoginRefused(error.what, subject=settings.address, remedy=remedy)
