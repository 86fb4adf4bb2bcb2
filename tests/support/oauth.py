"""Apps at the test provider, and logins as if time had passed."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from backupd.oauth.app import App
from backupd.oauth.store import Logins
from tests.support.oidc_provider import Client, OidcProvider

KEY = bytes(range(32))


def app_at(provider: OidcProvider, client: Client, **more: Any) -> App:
    """The app of account alice, as it would be configured."""
    values: dict[str, Any] = {
        "account": "alice", "provider": provider.issuer, "issuer": provider.issuer, "grant": "user",
        "scopes": ("openid", "offline_access"), "client_id": client.client_id, "username": client.user,
    }  # fmt: skip
    if client.secret:
        values["client_secret"] = lambda: client.secret
    return App(**(values | more))


def logins_in(folder: Path) -> Logins:
    """Logins under a key that only tests have."""
    return Logins(folder / "logins", lambda: KEY)


def grow_older(logins: Logins, account: str, by: timedelta) -> None:
    """Let so much time pass for a stored login."""
    with logins.lock(account), logins.replacing(account) as commit:
        login = logins.read(account)
        assert login is not None
        known = msgspec.structs.asdict(login.facts)
        times = {name: value - by for name, value in known.items() if isinstance(value, datetime)}
        commit(msgspec.structs.replace(login, facts=msgspec.structs.replace(login.facts, **times)))


def everything_below(folder: Path) -> bytes:
    """All octets of all files, and all names."""
    return b"\n".join(
        str(path).encode() + b"\n" + path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    )
