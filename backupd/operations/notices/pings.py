"""Pings: a service such as Healthchecks hears of each backup, and raises the alarm itself when it hears of none.

That is the one alarm which also works when this machine is off. An address is asked for with /start when a backup of
its account begins, as it is when the backup has left nothing out, and with /fail, and a line that says why, when it
failed or left something out. Nothing waits for an answer; of several pings for one address only the latest counts.
"""

from __future__ import annotations

import http.client
import threading
import time
import urllib.error
import urllib.request
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit, urlunsplit

from backupd.errors import BackupdError, ConfigError
from backupd.operations.notices.outbox import Log, Silent
from backupd.operations.notices.sending import NotDelivered
from backupd.redaction import scrub

SECONDS = 10.0
"""The longest that one request may take, whatever the other side does."""

PAUSES = (1.0, 4.0, 16.0)
"""Seconds between attempts; then the ping is given up: the next backup makes a new one."""

THREADS = 4
OVERALL = ""
"""The name of what is pinged for all accounts together."""

OVERALL_SECONDS = 60.0
"""The address of all accounts together is told no more often that all is still well, or still not."""

_LONGEST_BODY = 1000


class _Ping(NamedTuple):
    suffix: str
    body: str


class Pinger:
    """Pings addresses on threads of its own. All methods return at once, and never raise.

    Args:
        urls: what fetches the address of each account, and of OVERALL. It may raise ConfigError.
        accounts: all accounts, for OVERALL: it succeeds when each of them has.
        complete: those whose last run is known to have left nothing out, or not.
        request: asks for an address with a body. Raises NotDelivered.
        clock: seconds that only go forward.
    """

    def __init__(
        self,
        urls: Mapping[str, Callable[[], str]],
        accounts: Iterable[str],
        *,
        complete: Mapping[str, bool] | None = None,
        request: Callable[[str, str], None] | None = None,
        log: Log | None = None,
        clock: Callable[[], float] = time.monotonic,
        pauses: tuple[float, ...] = PAUSES,
    ) -> None:
        self._urls, self._accounts = dict(urls), set(accounts)
        self._complete = dict(complete or {})
        self._request, self._log, self._clock, self._pauses = request or ask, log or Silent(), clock, pauses
        self._changed = threading.Condition()
        self._due: OrderedDict[str, _Ping] = OrderedDict()
        self._under_way: set[str] = set()
        self._failing: set[str] = set()
        self._overall: tuple[bool, float] | None = None
        self._closed = False
        number = min(THREADS, len(self._urls))
        names = [f"ping-{place}" for place in range(number)]
        self._threads = [threading.Thread(target=self._serve, name=name, daemon=True) for name in names]
        for thread in self._threads:
            thread.start()

    def started(self, account: str) -> None:
        """A backup of the account begins."""
        self._put(account, _Ping("/start", ""))

    def ended(self, account: str, why: str = "") -> None:
        """A backup of the account has ended. why: what failed or was left out; empty when nothing was."""
        self._put(account, _Ping("/fail" if why else "", why))
        with self._changed:
            self._complete[account] = not why
            well = all(self._complete.get(name) for name in self._accounts)
            known = self._overall
            now = self._clock()
            if not (why or well) or (known and known[0] == (not why) and now - known[1] < OVERALL_SECONDS):
                return
            self._overall = (not why, now)
        self._put(OVERALL, _Ping("/fail" if why else "", f"{account}: {why}" if why else ""))

    def close(self, seconds: float) -> bool:
        """Begin nothing more that is not due now, and wait so long for what is; whether all has ended."""
        until = time.monotonic() + seconds
        with self._changed:
            while (self._due or self._under_way) and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _put(self, name: str, ping: _Ping) -> None:
        if name not in self._urls:
            return
        with self._changed:
            self._due.pop(name, None)
            self._due[name] = ping
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            with self._changed:
                while (name := self._next()) is None:
                    if self._closed:
                        return
                    self._changed.wait()
                ping = self._due.pop(name)
                self._under_way.add(name)
            try:
                self._deliver(name, ping)
            except Exception as error:  # noqa: BLE001 - whatever it is, it must not end the thread
                self._log.error("ping failed", check=name or "all accounts", why=type(error).__name__)
            finally:
                with self._changed:
                    self._under_way.discard(name)
                    self._changed.notify_all()

    def _next(self) -> str | None:
        """The address that has waited longest and is not being asked for: answers must not overtake each other."""
        return next((name for name in self._due if name not in self._under_way and not self._closed), None)

    def _deliver(self, name: str, ping: _Ping) -> None:
        for attempt in range(len(self._pauses) + 1):
            try:
                self._request(address(self._urls[name](), ping.suffix), scrub(ping.body)[:_LONGEST_BODY])
            except (NotDelivered, BackupdError) as error:
                if attempt < len(self._pauses) and not isinstance(error, Refused):
                    if self._superseded(name, self._pauses[attempt]):
                        return
                    continue
                if name not in self._failing:  # an outage is a line in the log, and not one for each backup
                    self._failing.add(name)
                    self._log.warning("ping not delivered", check=name or "all accounts", why=str(error))
            else:
                if name in self._failing:
                    self._failing.discard(name)
                    self._log.info("pings are delivered again", check=name or "all accounts")
            return

    def _superseded(self, name: str, seconds: float) -> bool:
        """Wait; whether a later ping for the same address has come meanwhile, or the end."""
        until = time.monotonic() + seconds
        with self._changed:
            while not self._closed and name not in self._due and (left := until - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._closed or name in self._due


class Refused(NotDelivered):
    """The service says that the request is wrong; another attempt would be as wrong."""


def address(url: str, suffix: str) -> str:
    """The address of a kind of ping. Raises ConfigError when it is none."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ConfigError("the address of a ping is not http:// or https://")
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix if suffix else parts.path))


def ask(url: str, body: str, seconds: float = SECONDS) -> None:
    """Ask for an address by POST, through the proxies of the environment. Raises NotDelivered, Refused.

    The limit holds for the whole: a server that sends an octet now and then is cut off, too.
    """
    opened: list[http.client.HTTPConnection] = []

    def cut() -> None:
        for connection in opened:
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(2)

    class _Http(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_kept(http.client.HTTPConnection, opened), request)

    class _Https(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
            return self.do_open(_kept(http.client.HTTPSConnection, opened), request)

    request = urllib.request.Request(url, body.encode(), {"Content-Type": "text/plain", "User-Agent": "backupd"})  # noqa: S310 - `address` has looked at the scheme
    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        with urllib.request.build_opener(_Http, _Https).open(request, timeout=seconds) as response:
            response.read(1)
    except urllib.error.HTTPError as error:
        kind = Refused if 400 <= error.code < 500 and error.code not in (408, 429) else NotDelivered
        error.close()
        raise kind(f"the service answered {error.code}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise NotDelivered(f"no answer: {scrub(str(reason)) or type(reason).__name__}") from None
    finally:
        timer.cancel()


def _kept(
    kind: type[http.client.HTTPConnection], opened: list[http.client.HTTPConnection]
) -> Callable[..., http.client.HTTPConnection]:
    def make(host: str, **options: object) -> http.client.HTTPConnection:
        opened.append(kind(host, **options))  # type: ignore[arg-type]
        return opened[-1]

    return make
