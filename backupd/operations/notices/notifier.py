"""What the daemon holds: it says what happens, and the right people hear of it, once, or a service is pinged.

The daemon's threads only leave an event here. One thread decides, and one for each target sends; so neither a mail
server that hangs nor a full disk ever holds up a backup.
"""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from backupd.errors import BackupdError
from backupd.operations.notices import pings, sending
from backupd.operations.notices.causes import Memory, Policy, changed, forget_accounts
from backupd.operations.notices.deciding import decide
from backupd.operations.notices.events import (
    Completed,
    Event,
    Failed,
    Incomplete,
    Relief,
    Started,
    Trouble,
    about,
    meaning,
)
from backupd.operations.notices.outbox import PAUSES, Log, Outbox, Silent
from backupd.operations.notices.store import NoticeStore, Waiting
from backupd.operations.notices.weekly import Week, due, summary
from backupd.operations.notices.wording import LONGEST_LINE, Text, worded
from backupd.operations.state import State
from backupd.redaction import scrub

if TYPE_CHECKING:
    from backupd.config import Config
    from backupd.config.telling import NotifyConfig

GLANCE_SECONDS = 10.0
"""What has become due by the passing of time is looked for so often."""

CLOSE_SECONDS = 3.0
_WEEKLY_AGAIN = 3600.0
_READ = 4000  # characters of an error that are looked through for secrets before it is cut
_LAST_ALL_TO_DO = 0.1

Send = Callable[..., None]


class Notifier:
    """Tells of what happens. Safe to use from several threads; close it.

    Args:
        state: of the daemon; where what is open is kept.
        config: gives targets and pings.
        summary_of: gathers the week from this time to that, for the weekly summary; called on a thread of its own.
        send: sends a text to an address, and takes `stop`. Raises NotDelivered.
        request: asks for an address. Raises NotDelivered.
    """

    def __init__(
        self,
        state: State,
        config: Config,
        *,
        summary_of: Callable[[datetime, datetime], Week] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        log: Log | None = None,
        machine: str | None = None,
        zone: tzinfo | None = None,
        send: Send = sending.send,
        request: Callable[[str, str], None] = pings.ask,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._state, self._clock, self._log = state, clock, log or Silent()
        self._summary_of, self._machine, self._zone = summary_of, machine or socket.gethostname(), zone
        self._send, self._request, self._pauses = send, request, pauses
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._deciding = threading.Lock()  # taken before the other one
        self._inbox: OrderedDict[tuple[str, ...], tuple[Trouble | Relief, ...]] = OrderedDict()
        self._looked = self._wanted = 0
        self._closed = False
        self._unkept = itertools.count(-1, -1)
        self._weekly_again = 0.0
        self._store = self._opened(state.path)
        self._targets: dict[str, _Target] = {}
        self._pinger: pings.Pinger | None = None
        self._apply(config)
        self._thread = threading.Thread(target=self._serve, name="notices", daemon=True)
        self._thread.start()

    # -- what the daemon calls -----------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Something has happened. Returns at once, and never raises."""
        try:
            self._ping(event)
            meant = tuple(_harmless(each) for each in meaning(event))
            if not meant:
                return
            with self._changed:
                if self._closed or not self._targets:
                    return
                self._inbox.pop(about(event), None)  # one of the same sort that was not looked at yet is old news
                self._inbox[about(event)] = meant
                self._wake()
        except Exception as error:  # noqa: BLE001 - nothing that is told is worth a backup
            self._log.error("event could not be told", told=type(event).__name__, why=repr(error))

    def tick(self) -> None:
        """Look now for what has become due: reminders, ends, the weekly summary. That happens by itself, too."""
        with self._changed:
            self._wake()

    def reconfigure(self, config: Config) -> None:
        """Follow another configuration. What is open of accounts that are gone is forgotten."""
        with self._deciding, self._changed:
            targets, pinger = self._targets, self._pinger
            self._apply(config)
            ended = [target for name, target in targets.items() if self._targets.get(name) is not target]
        for target in ended:
            target.outbox.end()
        if pinger is not None:
            threading.Thread(target=pinger.close, args=(CLOSE_SECONDS,), name="pings-end", daemon=True).start()

    def settle(self, seconds: float) -> bool:
        """Wait so long until what was told is decided and sent, or cannot be for now; whether it is."""
        until = time.monotonic() + seconds
        with self._changed:
            self._wake()
            wanted = self._wanted
            while self._looked < wanted and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            targets = list(self._targets.values())
        while not all(target.outbox.idle for target in targets):
            if time.monotonic() >= until:
                return False
            time.sleep(0.01)
        return True

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Decide what is left, send what can be sent within so many seconds, and end. What is left then is sent after
        the next start."""
        until = time.monotonic() + seconds
        if self._closed:
            return
        self.settle(max(0.0, seconds - 2 * _LAST_ALL_TO_DO))
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            targets, pinger = list(self._targets.values()), self._pinger
        self._stop.set()  # whoever is sending gives up
        for target in targets:
            target.outbox.end()
        if pinger is not None:
            pinger.close(max(_LAST_ALL_TO_DO, until - time.monotonic()))
        ended = [target.outbox.join(max(_LAST_ALL_TO_DO, until - time.monotonic())) for target in targets]
        self._thread.join(max(_LAST_ALL_TO_DO, until - time.monotonic()))
        if self._store is not None and all(ended) and not self._thread.is_alive():
            self._store.close()

    # -- configuration -------------------------------------------------------------------------------------------------

    def _opened(self, path: Path) -> NoticeStore | None:
        try:
            return NoticeStore(path)
        except BackupdError as error:
            self._log.error("notices cannot be kept over a restart", why=str(error))
            return None

    def _apply(self, config: Config) -> None:
        before, self._targets = self._targets, {}
        kept = self._kept()
        for number, each in enumerate(config.notify, 1):
            name = each.name or str(number)
            known = before.get(name)
            memory = known.memory if known else self._remembered(name)
            policy = policy_of(each)
            memory = forget_accounts(memory, policy, config.accounts)
            if known and known.config == each:
                self._targets[name] = known
                known.memory, known.policy = memory, policy
                continue
            send = partial(self._send_to, each)
            waiting = [] if known else [waiting for waiting in kept if waiting.target == name]
            outbox = Outbox(
                name, send, self._store, waiting=waiting, log=self._log, pauses=self._pauses,
                clock=lambda: self._clock().timestamp(),
            )  # fmt: skip
            if known:
                outbox.put(known.outbox.taken())
            self._targets[name] = _Target(name, each, policy, memory, outbox)
        self._pinger = self._pings(config)

    def _send_to(self, target: NotifyConfig, text: Text) -> None:
        self._send(target.url.resolve(), text, stop=self._stop)

    def _kept(self) -> list[Waiting]:
        try:
            return self._store.outbox() if self._store else []
        except BackupdError as error:
            self._log.warning("notices of before cannot be read", why=str(error))
            return []

    def _remembered(self, name: str) -> Memory:
        try:
            return self._store.memory(name) if self._store else Memory()
        except BackupdError as error:
            self._log.warning("notices of before cannot be read", target=name, why=str(error))
            return Memory()

    def _pings(self, config: Config) -> pings.Pinger | None:
        if config.pings is None:
            return None
        urls = {name: secret.resolve for name, secret in config.pings.accounts.items()}
        if config.pings.url is not None:
            urls[pings.OVERALL] = config.pings.url.resolve
        complete = last_outcomes(self._state, config) if pings.OVERALL in urls else {}
        return pings.Pinger(urls, config.accounts, complete=complete, request=self._request, log=self._log)

    def _ping(self, event: Event) -> None:
        pinger = self._pinger
        if pinger is None:
            return
        match event:
            case Started(account):
                pinger.started(account)
            case Completed(account):
                pinger.ended(account)
            case Incomplete(account, problems, what):
                pinger.ended(account, f"{problems} could not be backed up, first: {what}")
            case Failed(account, _, what, remedy):
                pinger.ended(account, f"{what} ({remedy})" if remedy else what)
            case _:
                pass

    # -- the thread that decides ---------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._wanted += 1
        self._changed.notify_all()

    def _serve(self) -> None:
        while True:
            with self._changed:
                if self._looked >= self._wanted and not self._closed:
                    self._changed.wait(GLANCE_SECONDS)
                if self._closed:
                    return
                wanted, events = self._wanted, list(self._inbox.values())
                self._inbox.clear()
                targets = list(self._targets.values())
            try:
                with self._deciding:
                    self._look(targets, [each for meant in events for each in meant])
            except Exception as error:  # noqa: BLE001 - whatever it is, the next event must find somebody
                self._log.error("notices failed", why=repr(error))
            with self._changed:
                self._looked = max(self._looked, wanted)
                self._changed.notify_all()

    def _look(self, targets: list[_Target], events: list[Trouble | Relief]) -> None:
        now = self._clock()
        week: Week | None = None
        for target in targets:
            before = target.memory
            messages, after = decide(before, events, now.timestamp(), target.policy)
            texts = [worded(message, self._machine, self._zone) for message in messages]
            if self._weekly_due(target, after, now):
                if not after.weekly:
                    after = msgspec.structs.replace(after, weekly=now.timestamp())
                elif week := week or self._gathered(after, now):
                    texts.append(summary(week, self._machine, self._zone))
                    after = msgspec.structs.replace(after, weekly=now.timestamp())
            target.memory = after
            made = [Waiting(next(self._unkept), target.name, now.timestamp(), text) for text in texts]
            if made or after.weekly != before.weekly or changed(before, after):
                made = self._keep(target.name, before, after, made)
            if made:
                target.outbox.put(made)

    def _keep(self, name: str, before: Memory, after: Memory, made: list[Waiting]) -> list[Waiting]:
        if self._store is None:
            return made
        try:
            return self._store.save(name, before, after, made)
        except BackupdError as error:  # that the disk is full must be told all the more
            self._log.warning("notices cannot be kept over a restart", target=name, why=str(error))
            return made

    def _weekly_due(self, target: _Target, memory: Memory, now: datetime) -> bool:
        if self._summary_of is None or "weekly" not in target.policy.kinds or now.timestamp() < self._weekly_again:
            return False
        return not memory.weekly or due(datetime.fromtimestamp(memory.weekly, UTC), now, self._zone)

    def _gathered(self, memory: Memory, now: datetime) -> Week | None:
        begins = max(datetime.fromtimestamp(memory.weekly, UTC), now - timedelta(days=7))
        assert self._summary_of is not None  # noqa: S101 - else it is not due
        try:
            return self._summary_of(begins, now)
        except Exception as error:  # noqa: BLE001 - it reads the repository, of which anything may be wrong
            self._weekly_again = now.timestamp() + _WEEKLY_AGAIN
            self._log.warning("the weekly summary has to wait", why=str(error) or type(error).__name__)
            return None


class _Target:
    """A place that is told, what it wants to hear, and what it knows."""

    def __init__(self, name: str, config: NotifyConfig, policy: Policy, memory: Memory, outbox: Outbox) -> None:
        self.name, self.config, self.policy, self.memory, self.outbox = name, config, policy, memory, outbox


def _harmless(event: Trouble | Relief) -> Trouble | Relief:
    """Without secrets, and short: it will be stored."""
    if isinstance(event, Relief):
        return event
    what, remedy = (scrub(text[:_READ])[:LONGEST_LINE] for text in (event.what, event.remedy))
    return msgspec.structs.replace(event, what=what, remedy=remedy)


def policy_of(target: NotifyConfig) -> Policy:
    """What a target wants to hear."""
    return Policy(
        kinds=frozenset(target.on) - {"recovery"},
        recovery="recovery" in target.on,
        accounts=target.accounts,
        patience=target.patience.total_seconds(),
        remind=target.remind.total_seconds() if target.remind else None,
        most=target.most_per_hour,
    )


def last_outcomes(state: State, config: Config) -> Mapping[str, bool]:
    """Of each account with a backup: whether the last one left nothing out. Imports tell nothing of the server."""
    found = {}
    for name in config.accounts:
        last = next((run for run in state.runs(name, 20) if run.outcome != "imported"), None)
        if last is not None:
            found[name] = last.outcome in ("stored", "unchanged") and not last.problems
    return found
