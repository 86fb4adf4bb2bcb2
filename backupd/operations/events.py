"""What operations tell while they work. A skin shows it; nothing depends on it being shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """What lies ahead for an account: messages, and their octets where known. A later one replaces an earlier one."""

    account: str
    messages: int
    octets: int | None = None


class Advance(msgspec.Struct, frozen=True):
    """So many more messages and octets are done."""

    account: str
    mailbox: str
    messages: int
    octets: int


class Notice(msgspec.Struct, frozen=True):
    """Something worth knowing that stops nothing."""

    account: str
    severity: Literal["note", "warning"]
    text: str


Event = Plan | Advance | Notice
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """An observer that looks away."""
