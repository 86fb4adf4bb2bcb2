"""What is needed to reach an IMAP account."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from backupd.wire.settings import ServerSettings


@dataclass(frozen=True)
class ImapSettings(ServerSettings):
    """An IMAP account: 993 for tls: implicit, 143 for others.

    Args:
        authentication: auto takes PLAIN where offered, else LOGIN; the others insist.
    """

    port: int = 993
    authentication: Literal["auto", "plain", "login", "xoauth2", "oauthbearer"] = "auto"
