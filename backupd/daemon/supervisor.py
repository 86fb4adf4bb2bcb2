"""The service manager: it hears when the daemon is ready, what it does, and that its work advances.

systemd's notification protocol (sd_notify(3)) is one datagram of KEY=VALUE lines to the socket named in $NOTIFY_SOCKET.
Where there is no such socket - cron, a container, a terminal - everything here does nothing. What cannot be sent is
told once and harms nothing else: a backup is worth more than a status line.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from backupd.daemon.pulse import Pulse

LONGEST_STATUS = 1024
"""Octets. systemd ignores datagrams of more than 4,096, and a status is one line on a terminal."""
_SECONDS = 5.0
"""systemd takes notes at once; one that does not for so long is not waited for again until it does."""


class Supervisor:
    """The service manager, or nobody. Safe to use from several threads.

    Args:
        address: of the notification socket, as in $NOTIFY_SOCKET: a path, or "@" and an abstract name. None: nobody.
        watchdog: seconds within which the manager wants a sign of life; None if it does not.
        tell: hears the one line of what could not be sent, and of what keeps the watchdog hungry.
    """

    def __init__(
        self, address: str | None, watchdog: float | None = None, *, tell: Callable[[str], None] = lambda text: None
    ) -> None:
        self.watchdog = watchdog if address else None
        self._address, self._tell = address, tell
        self._lock = threading.Lock()
        self._failed = False
        self._said = ""

    @classmethod
    def from_environment(
        cls,
        environ: MutableMapping[str, str],
        *,
        pid: int | None = None,
        tell: Callable[[str], None] = lambda text: None,
    ) -> Supervisor:
        """Whoever started this process, by its environment. The variables are taken out of it: programs that we start
        ourselves (secrets by command) are none of the manager's business."""
        address = environ.pop("NOTIFY_SOCKET", "")
        microseconds, meant = environ.pop("WATCHDOG_USEC", ""), environ.pop("WATCHDOG_PID", "")
        ours = not meant or meant == str(os.getpid() if pid is None else pid)
        wanted = ours and microseconds.isascii() and microseconds.isdigit() and int(microseconds) > 0
        return cls(
            address if address[:1] in ("/", "@") and len(address) > 1 else None,
            int(microseconds) / 1e6 if wanted else None,
            tell=tell,
        )

    @property
    def present(self) -> bool:
        """Whether there is a manager that listens."""
        return self._address is not None

    def ready(self, status: str = "") -> None:
        """Started, or reloaded: the configuration holds, and schedules run."""
        self._send("READY=1", *_status(status))

    def reloading(self, status: str = "", *, clock: Callable[[], int] = time.monotonic_ns) -> None:
        """The configuration is being read again; `ready` ends this, also when the old one stays. clock: nanoseconds of
        CLOCK_MONOTONIC, by which systemd 253 and later tells this reload from an earlier one."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={clock() // 1000}", *_status(status))

    def stopping(self, status: str = "") -> None:
        """On the way out, in order."""
        self._send("STOPPING=1", *_status(status))

    def status(self, text: str) -> None:
        """What is going on, as one line for people; nothing is sent when it is the last one again."""
        with self._lock:
            if text == self._said:
                return
            self._said = text
        self._send(*_status(text))

    def extend(self, seconds: float) -> None:
        """Starting or stopping takes time: do not lose patience for so long from now."""
        self._send(f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}")

    def alive(self) -> None:
        """Feed the watchdog. Only `feeding` should: it asks first whether work advances."""
        self._send("WATCHDOG=1")

    @contextmanager
    def feeding(self, pulse: Pulse) -> Iterator[None]:
        """Within the block the watchdog is fed from a thread of its own, as long as all work advances."""
        if self.watchdog is None:
            yield
            return
        ended = threading.Event()
        feeder = Feeder(self.alive, pulse, self._tell)

        def feed(every: float) -> None:
            feeder.step()
            while not ended.wait(every):
                feeder.step()

        thread = threading.Thread(target=feed, args=(self.watchdog / 2,), name="watchdog", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def _send(self, *lines: str) -> None:
        if self._address is None or not lines:
            return
        name = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as there:
                there.settimeout(0 if self._failed else _SECONDS)
                there.connect(name)
                there.sendall("\n".join(lines).encode())
        except OSError as error:
            with self._lock:
                first, self._failed = not self._failed, True
            if first:
                self._tell(f"the service manager cannot be told anything: {self._address}: {error}")
        else:
            with self._lock:
                self._failed = False


class Feeder:
    """Feeds while all work advances, and says once who does not, before the watchdog ends the process for it."""

    def __init__(self, feed: Callable[[], None], pulse: Pulse, tell: Callable[[str], None]) -> None:
        self._feed, self._pulse, self._tell = feed, pulse, tell
        self._hungry = False

    def step(self, now: float | None = None) -> None:
        """One look. now: by the pulse's clock."""
        silent = self._pulse.silent(now)
        if not silent:
            self._feed()
            if self._hungry:
                self._tell("work advances again")
        elif not self._hungry:
            who = ", ".join(f"{name} for {seconds:.0f} s" for name, seconds in silent[:5])
            more = f" and {len(silent) - 5} more" if len(silent) > 5 else ""
            self._tell(f"no sign of work from {who}{more}; if this lasts, the watchdog ends this process")
        self._hungry = bool(silent)


def _status(text: str) -> tuple[str, ...]:
    """The text as one line that fits. Nothing for no text: an empty one would remove the last."""
    if not text:
        return ()
    line = "".join(char if char.isprintable() else " " for char in text)
    return ("STATUS=" + line.encode()[:LONGEST_STATUS].decode(errors="ignore"),)
