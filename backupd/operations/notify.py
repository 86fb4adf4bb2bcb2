"""`backupd notify`: who is told of trouble, what trouble is open, and whether a message arrives."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import TYPE_CHECKING

import msgspec

from backupd.errors import BackupdError, ConfigError
from backupd.operations.finding import Finding
from backupd.operations.notices import pings, sending
from backupd.operations.notices.causes import Cause
from backupd.operations.notices.sending import NotDelivered, shown
from backupd.operations.notices.store import NoticeStore
from backupd.operations.notices.wording import Text
from backupd.operations.state import State

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.telling import NotifyConfig

_AT_ONCE = 8
_INSTALL = "Apprise is not installed"


class Target(msgspec.Struct, frozen=True):
    """A place that is told. address: its kind and host. problem: why nothing can be sent there; empty if nothing is
    known to be amiss."""

    name: str
    address: str
    on: tuple[str, ...]
    accounts: tuple[str, ...]
    problem: str = ""


class Check(msgspec.Struct, frozen=True):
    """An address that is pinged. account: empty for all of them together."""

    account: str
    address: str
    problem: str = ""


class Open(msgspec.Struct, frozen=True):
    """Trouble that a target knows, or will hear of if it lasts. Times are RFC 3339 in UTC; told is None before."""

    target: str
    kind: str
    cause: str
    subjects: list[str]
    place: str
    what: str
    since: str
    told: str | None
    flapping: bool


class NotArrived(msgspec.Struct, frozen=True):
    """A message that has not arrived. made: RFC 3339 in UTC. given_up: it is not tried again."""

    target: str
    subject: str
    made: str
    attempts: int
    why: str
    given_up: bool


class Notices(msgspec.Struct, frozen=True):
    """All there is to know about notifications."""

    targets: list[Target]
    pings: list[Check]
    open: list[Open]
    not_arrived: list[NotArrived]


class Tried(msgspec.Struct, frozen=True):
    """What became of a test message. why: it has not arrived."""

    name: str
    address: str
    arrived: bool
    why: str = ""


def notices(config: Config, state: State) -> Notices:
    """Targets, pings, open causes, and messages that have not arrived. Sends nothing."""
    store = NoticeStore(state.path)
    try:
        known = [_open(name, cause) for name in _names(config) for cause in store.memory(name).causes.values()]
        waiting = not_arrived(store)
    finally:
        store.close()
    targets = [_target(name, each) for name, each in zip(_names(config), config.notify, strict=True)]
    return Notices(targets, list(_checks(config)), [each for each in known if each], waiting)


def not_arrived(store: NoticeStore) -> list[NotArrived]:
    """Messages that were tried and have not arrived."""
    return [
        NotArrived(each.target, each.text.subject, _utc(each.made), each.attempts, each.error, each.given_up)
        for each in store.outbox()
        if each.attempts or each.given_up
    ]


def undelivered(state: State) -> list[NotArrived]:
    """The same, of a state directory."""
    store = NoticeStore(state.path)
    try:
        return not_arrived(store)
    finally:
        store.close()


def try_targets(
    config: Config, *, machine: str | None = None, send: Callable[[str, Text], None] = sending.send
) -> list[Tried]:
    """Send a test message to each target; what became of each."""
    name = machine or socket.gethostname()
    text = Text("this is a test", f"If you read this, backupd on {name} can tell you of trouble.", "info")
    if not config.notify:
        return []
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda name, each: _try(name, each, text, send), _names(config), config.notify))


def _try(name: str, target: NotifyConfig, text: Text, send: Callable[[str, Text], None]) -> Tried:
    address = ""
    try:
        url = target.url.resolve()
        address = shown(url)
        send(url, text)
    except (NotDelivered, BackupdError) as error:
        return Tried(name, address, False, str(error))
    return Tried(name, address, True)


def check(config: Config) -> None:
    """Whether all targets and pings can be used, as far as that shows without sending anything.

    Raises ConfigError for the first that cannot.
    """
    for finding in findings(config):
        if finding.level == "problem":
            raise ConfigError(finding.what, subject=finding.subject, remedy=finding.remedy)


def findings(config: Config) -> Iterator[Finding]:
    """The same as findings of `backupd doctor`."""
    for name, each in zip(_names(config), config.notify, strict=True):
        target, subject = _target(name, each), f"notify {name}"
        if target.problem:
            missing = target.problem == _INSTALL
            remedy = "pip install 'backupd[notify]'" if missing else "see docs/commands/notify.md for addresses"
            yield Finding("problem", subject, target.problem, remedy)
        else:
            yield Finding("ok", subject, f"{target.address}; backupd notify --test tries it")
    for check in _checks(config):
        subject = f"ping {check.account or 'of all accounts'}"
        if check.problem:
            yield Finding("problem", subject, check.problem, "write its http:// or https:// address")
        else:
            yield Finding("ok", subject, check.address)


def _names(config: Config) -> list[str]:
    return [each.name or str(number) for number, each in enumerate(config.notify, 1)]


def _target(name: str, target: NotifyConfig) -> Target:
    try:
        url = target.url.resolve()
    except BackupdError as error:
        return Target(name, "", target.on, target.accounts, str(error))
    return Target(name, shown(url), target.on, target.accounts, _problem(url))


def _problem(url: str) -> str:
    if find_spec("apprise") is None:
        return _INSTALL
    import apprise

    logging.getLogger("apprise").setLevel(
        logging.CRITICAL
    )  # it would say on standard error what is wrong, and with what
    return "" if apprise.Apprise.instantiate(url) is not None else "not an address that Apprise knows"


def _checks(config: Config) -> Iterator[Check]:
    if config.pings is None:
        return
    overall = {"": config.pings.url} if config.pings.url else {}
    for account, secret in {**overall, **config.pings.accounts}.items():
        try:
            url = secret.resolve()
            pings.address(url, "")
        except BackupdError as error:
            yield Check(account, "", str(error))
        else:
            yield Check(account, shown(url))


def _open(target: str, cause: Cause) -> Open | None:
    trouble = cause.latest.trouble
    if not cause.members or trouble.once:
        return None
    return Open(
        target=target,
        kind=trouble.kind,
        cause=trouble.cause,
        subjects=sorted(cause.members),
        place=trouble.place,
        what=trouble.what,
        since=_utc(min(each.since for each in cause.members.values())),
        told=_utc(cause.told) if cause.told else None,
        flapping=cause.flapping,
    )


def _utc(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).isoformat(timespec="seconds")
