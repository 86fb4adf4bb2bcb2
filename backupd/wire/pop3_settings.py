"""What is needed to reach a POP3 account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backupd.wire.settings import ServerSettings


@dataclass(frozen=True)
class Pop3Settings(ServerSettings):
    """A POP3 account: 995 for tls: implicit, 110 for others.

    Args:
        authentication: auto takes SASL PLAIN where offered, else USER and PASS; without TLS it takes APOP where
            offered, as that does not show the password. The others insist.
    """

    port: int = 995
    authentication: Literal["auto", "plain", "user", "apop", "xoauth2", "oauthbearer"] = "auto"
