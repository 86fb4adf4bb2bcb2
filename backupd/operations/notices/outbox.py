"""Messages on their way to one target: in order, tried again for hours, and never waited for by anybody.

A message that cannot be delivered is given up in the end. It is not forgotten: `status` and `notify` tell of it, and
the next message that arrives mentions it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

import msgspec

from backupd.errors import BackupdError
from backupd.operations.notices.sending import NotDelivered
from backupd.operations.notices.store import NoticeStore, Waiting
from backupd.operations.notices.wording import Text, span
from backupd.redaction import scrub

PAUSES = (30.0, 120.0, 600.0, 1800.0, 3600.0)
"""Seconds between attempts, the last over and over. A new message for the target means one at once."""

GIVEN_UP_AFTER = 6 * 3600.0
"""Seconds after which a message is old news, if it was tried so many times:"""
_FEWEST_ATTEMPTS = 4

MOST = 100
"""Messages that wait for a target; of more the oldest are given up. As many are kept that were given up."""

_KEPT = 30 * 86400.0


class Log(Protocol):
    """Where it is written what becomes of messages; a logger of structlog's is one."""

    def info(self, event: str, **fields: object) -> object: ...
    def warning(self, event: str, **fields: object) -> object: ...
    def error(self, event: str, **fields: object) -> object: ...


class Silent:
    """A log that nobody keeps."""

    def info(self, event: str, **fields: object) -> None:
        """Nothing."""

    def warning(self, event: str, **fields: object) -> None:
        """Nothing."""

    def error(self, event: str, **fields: object) -> None:
        """Nothing."""


class Outbox:
    """Sends messages to one target on a thread of its own.

    Args:
        send: sends one. Raises NotDelivered, or ConfigError where the address cannot be had.
        clock: seconds since 1970.
        pauses: see PAUSES.
    """

    def __init__(
        self,
        target: str,
        send: Callable[[Text], None],
        store: NoticeStore | None,
        *,
        waiting: Iterable[Waiting] = (),
        clock: Callable[[], float] = time.time,
        log: Log | None = None,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._target, self._send, self._store, self._clock = target, send, store, clock
        self._log, self._pauses = log or Silent(), pauses
        self._changed = threading.Condition()
        from_before = list(waiting)
        self._waiting = deque(each for each in from_before if not each.given_up)
        self._given_up = deque((each for each in from_before if each.given_up), maxlen=MOST)
        self._again = 0.0  # by the clock that only goes forward
        self._closed = False
        self._idle = True
        self._thread = threading.Thread(target=self._serve, name=f"notify-{target}", daemon=True)
        self._thread.start()

    def put(self, messages: Iterable[Waiting]) -> None:
        """Send these as soon as can be; waits for nothing."""
        with self._changed:
            self._waiting.extend(messages)
            excess = max(0, len(self._waiting) - MOST)
            kept = list(self._waiting)
            dropped = kept[1 : 1 + excess]  # the first one may be under way
            self._waiting = deque([*kept[:1], *kept[1 + excess :]])
            self._again = 0.0
            self._changed.notify_all()
        for each in dropped:
            self._give_up(msgspec.structs.replace(each, error=each.error or "too many messages waited"))

    @property
    def idle(self) -> bool:
        """Whether nothing is under way, and nothing can be done now."""
        with self._changed:
            return self._idle and not (self._waiting and self._again <= time.monotonic())

    def taken(self) -> list[Waiting]:
        """End, and give away what has not arrived. What is under way may arrive all the same."""
        with self._changed:
            taken = [*self._given_up, *self._waiting]
            self._waiting.clear()
            self._given_up.clear()
        self.end()
        return taken

    def end(self) -> None:
        """Begin nothing more; what has not arrived is sent after the next start."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def join(self, seconds: float) -> bool:
        """Wait so long for the end of what is under way; whether it has ended."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._idle = True
                while not self._closed and (pause := self._pause()) != 0:
                    self._changed.wait(pause)
                if self._closed:
                    return
                self._idle = False
                first = self._waiting[0]
            self._try(first)

    def _pause(self) -> float | None:
        """Seconds until there is something to do; None: until somebody says so."""
        return max(0.0, self._again - time.monotonic()) if self._waiting else None

    def _try(self, waiting: Waiting) -> None:
        before = list(self._given_up)
        try:
            self._send(_mentioning(waiting.text, before, self._clock()))
        except (NotDelivered, BackupdError) as error:
            self._failed(waiting, scrub(str(error)))
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
            self._failed(waiting, scrub(f"{type(error).__name__}: {error}"))
        else:
            if waiting.attempts:
                self._log.info("notification delivered at last", target=self._target, attempts=waiting.attempts + 1)
            self._arrived([waiting, *before])

    def _arrived(self, done: list[Waiting]) -> None:
        numbers = {each.number for each in done}
        with self._changed:
            self._waiting = deque(each for each in self._waiting if each not in done)
            self._given_up = deque((each for each in self._given_up if each not in done), maxlen=MOST)
            self._again = 0.0
        self._keep(lambda store: store.arrived(numbers))

    def _failed(self, waiting: Waiting, why: str) -> None:
        attempts = waiting.attempts + 1
        now = msgspec.structs.replace(waiting, attempts=attempts, error=why)
        age = self._clock() - waiting.made
        if age > GIVEN_UP_AFTER and attempts >= _FEWEST_ATTEMPTS:
            self._give_up(now)
            return
        pause = self._pauses[min(attempts, len(self._pauses)) - 1]
        with self._changed:
            self._waiting = deque(now if each == waiting else each for each in self._waiting)
            self._again = time.monotonic() + pause
        self._log.warning(
            "notification not delivered", target=self._target, why=why, attempts=attempts, again_in=pause,
            about=waiting.text.subject,
        )  # fmt: skip
        self._keep(lambda store: store.not_arrived(now))

    def _give_up(self, waiting: Waiting) -> None:
        given_up = msgspec.structs.replace(waiting, given_up=True)
        old = self._clock() - _KEPT
        with self._changed:
            self._waiting = deque(each for each in self._waiting if each.number != waiting.number)
            forgotten = [each for each in self._given_up if each.made < old]
            forgotten += [self._given_up[0]] if len(self._given_up) == MOST and not forgotten else []
            self._given_up = deque((each for each in self._given_up if each not in forgotten), maxlen=MOST)
            self._given_up.append(given_up)
        self._log.error(
            "notification given up", target=self._target, why=waiting.error, attempts=waiting.attempts,
            about=waiting.text.subject,
        )  # fmt: skip
        self._keep(lambda store: store.not_arrived(given_up))
        self._keep(lambda store: store.arrived([each.number for each in forgotten]))

    def _keep(self, change: Callable[[NoticeStore], None]) -> None:
        """Store what has become of a message. If that cannot be, it may come twice after a restart; that is all."""
        if self._store is None:
            return
        try:
            change(self._store)
        except BackupdError as error:
            self._log.warning("notification not recorded", target=self._target, why=str(error))


def _mentioning(text: Text, before: list[Waiting], now: float) -> Text:
    """The message with those that did not arrive."""
    if not before:
        return text
    lines = [f"- {each.text.subject} ({span(now - each.made)} ago)" for each in before[-10:]]
    heading = f"{len(before)} earlier message{'' if len(before) == 1 else 's'} did not reach you:"
    return msgspec.structs.replace(text, body="\n".join([text.body, "", heading, *lines]))
