"""What the watchtower knows of the accounts it watches."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from backupd.errors import BackupdError
from backupd.sources.imap.watching import Watch
from backupd.wire.imap_settings import ImapSettings

State = Literal["notify", "idle", "polling", "connecting", "lost"]
"""How an account is watched. polling: the server tells of nothing, or there is no room for a connection; the caller has
to look by itself, as it has to with lost."""


@dataclass(eq=False)
class Line:
    """One connection, there or wished for.

    holds_place: in the gate. failures: in a row. since, at: clock seconds at which it was made, and at which something
    is due. unable: there is no watching it for now, and that is no failure. gone: nobody wants it any more.
    """

    settings: ImapSettings
    mailbox: str
    account: Account
    watch: Watch | None = None
    holds_place: bool = False
    failures: int = 0
    since: float = 0.0
    at: float | None = None
    unable: bool = False
    error: BackupdError | None = None
    gone: bool = False


@dataclass(eq=False)
class Account:
    """An account that is watched. mailboxes, lines: that of INBOX first. told: what was told of it last."""

    name: str
    settings: ImapSettings
    mailboxes: tuple[str, ...]
    lines: list[Line] = field(default_factory=list)
    told: tuple[State, str] | None = None

    @property
    def state(self) -> tuple[State, BackupdError | None]:
        """How the account as a whole is watched: as INBOX is, with what is wrong there, or else with other mailboxes.
        """
        main, *others = self.lines
        if main.watch:
            return main.watch.how, next((line.error for line in others if line.error), None)
        if main.unable:
            return "polling", main.error
        return ("lost", main.error) if main.error else ("connecting", None)
