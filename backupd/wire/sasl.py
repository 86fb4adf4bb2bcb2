"""What a SASL mechanism sends, whatever carries it: PLAIN (RFC 4616), XOAUTH2, OAUTHBEARER (RFC 7628)."""

from __future__ import annotations

from backupd.wire.settings import ServerSettings


def initial(mechanism: str, settings: ServerSettings, secret: str) -> bytes:
    """The client's first message, not yet base64. mechanism: plain, xoauth2 or oauthbearer, in any case."""
    user = settings.username
    match mechanism.lower():
        case "plain":
            return f"\0{user}\0{secret}".encode()
        case "xoauth2":
            return f"user={user}\1auth=Bearer {secret}\1\1".encode()
        case "oauthbearer":
            name = user.replace("=", "=3D").replace(",", "=2C")
            where = f"host={settings.host}\1port={settings.port}"
            return f"n,a={name},\1{where}\1auth=Bearer {secret}\1\1".encode()
    raise ValueError(mechanism)
