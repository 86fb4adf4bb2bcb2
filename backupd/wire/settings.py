"""What is needed to reach an account on a mail server, whatever it speaks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypedDict

from backupd.wire.bandwidth import Flow
from backupd.wire.tls import Trust

OF_TOKENS = "check username and scopes, and that this user's mail may be read so; see `backupd auth status`"
"""What to do when a server refuses a token that its provider has just given."""


class Credentials(TypedDict):
    """The part of ServerSettings that is secret, or gives what is."""

    password: Callable[[], str]
    renew: Callable[[str], str | None] | None


@dataclass(frozen=True)
class ServerSettings:
    """Where an account is, and who asks for it.

    Args:
        tls: implicit, starttls (a server that does not offer it is refused), or none.
        password: the password, or for xoauth2 and oauthbearer an access token; a function is asked at each login.
        renew: given for an account of OAuth2, whose password is always a token: gives another one in place of one that
            the server refused, or None when there is none that could be better.
        ca_file: a PEM file with the authorities to believe instead of the system's.
        fingerprint: SHA-256 of the server's certificate; when given, this certificate and no other is accepted.
        timeout: seconds the server may be silent, and a connection may take.
        spool_folder: where messages above 4 MiB are kept while they are in use; None for the system's folder.
        flow: is told of all octets of all connections, and may hold them up.
    """

    host: str
    username: str
    password: str | Callable[[], str] = field(repr=False)
    port: int
    tls: Literal["implicit", "starttls", "none"] = "implicit"
    ca_file: Path | None = None
    fingerprint: str = ""
    timeout: float = 60.0
    spool_folder: Path | None = None
    flow: Flow | None = field(default=None, repr=False, compare=False)
    renew: Callable[[str], str | None] | None = field(default=None, repr=False)

    @property
    def address(self) -> str:
        """host:port, for messages."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def trust(self) -> Trust:
        """Whom to believe."""
        return Trust(self.ca_file, self.fingerprint)

    def secret(self) -> str:
        """The password or token, now."""
        return self.password if isinstance(self.password, str) else self.password()
