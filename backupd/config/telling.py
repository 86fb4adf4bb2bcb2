"""Sections about what is told, and to whom: the log, notifications, pings."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from backupd.config.secrets import Name, Secret
from backupd.config.sections import AccountName, Section, wrong
from backupd.config.times import Duration, duration

Kind = Literal["failure", "recovery", "loss", "objective", "expiry", "lock", "audit", "weekly"]
KINDS: tuple[Kind, ...] = ("failure", "recovery", "loss", "objective", "expiry", "lock", "audit", "weekly")


def _reminder(value: object) -> timedelta | None:
    if value == "never":
        return None
    found = duration(value)
    if found < timedelta(days=1):
        raise ValueError("too often to be heeded; write 1d or more, or never")
    return found


class LogConfig(Section):
    """What the daemon writes to standard error."""

    format: Literal["auto", "text", "journal", "json"] = "auto"
    """text: for people; journal: a priority and key=value; json: a document a line; auto: journal in a unit of systemd,
    else text."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """What is less grave than this is left out."""


class NotifyConfig(Section):
    """One place that is told of trouble."""

    url: Secret
    """Its Apprise address, such as mailtos://user:password@example.com?to=me@example.com; needs backupd[notify]."""
    name: Name | None = None
    """What this place is called in lists and in the log; its number if left out. What it was told goes by that name."""
    on: tuple[Kind, ...] = Field(default=KINDS, strict=False, min_length=1)
    """Of what it is told; everything if left out."""
    accounts: tuple[Name, ...] = Field(default=("*",), strict=False, min_length=1)
    """Of which accounts: shell patterns over their names. What concerns no account is told all the same."""
    patience: Duration = timedelta(minutes=15)
    """How long an account may fail before that is told; it may pass by itself."""
    remind: Annotated[
        timedelta | None, BeforeValidator(_reminder, json_schema_input_type=Annotated[str, Field(min_length=1)])
    ] = timedelta(days=1)
    """How often it is reminded of trouble that lasts, a day or more; or never."""
    most_per_hour: int = Field(default=6, ge=1, le=1000)
    """Messages in an hour; when there is more to tell, it is told together."""

    @field_validator("on")
    @classmethod
    def _something_to_recover_from(cls, value: tuple[Kind, ...]) -> tuple[Kind, ...]:
        if not set(value) - {"recovery", "weekly"} and "recovery" in value:
            raise ValueError("recovery of what nobody was told; add failure or another one")
        return value


class PingsConfig(Section):
    """Addresses that are asked for when a backup begins (/start), has succeeded (as it is) or failed (/fail)."""

    url: Secret | None = None
    """One for all accounts together: success is when each account's last run left nothing out."""
    accounts: dict[AccountName, Secret] = Field(default={}, json_schema_extra={"additionalProperties": False})
    """One for each of these accounts, by their names."""

    @model_validator(mode="after")
    def _something(self) -> PingsConfig:
        if self.url is None and not self.accounts:
            raise wrong("url", "neither url nor accounts; add one of them")
        return self
