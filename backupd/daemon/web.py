"""How the daemon is asked, over HTTP: health and metrics where the configuration says, and beside that control, on a
socket in the state directory that its owner alone can open.

    /healthz    200 while the main loop and all work advance
    /readyz     200 while the repository is open and schedules run; else 503, and why in a line
    /metrics    for Prometheus
    /status     what `backupd status` shows, as JSON; ?account=NAME, once or more, for these alone
    /trigger    control only, POST: back up the accounts of the JSON body, {"accounts": [...]}, or all
    /reload     control only, POST: read the configuration again
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec

from backupd.daemon.asked import CONTROL_SOCKET, Trigger, Triggered
from backupd.daemon.http_server import HttpServer, Request, Response
from backupd.daemon.metrics import CONTENT_TYPE, Metrics
from backupd.daemon.report import Facts
from backupd.daemon.sockets import Bound, listen_tcp, listen_unix
from backupd.errors import BackupdError

if TYPE_CHECKING:
    from backupd.config.health import Health, Listen

_HEALTH_MODE = 0o660
_JSON = "application/json"
_HOST = re.compile(r"(?:\[([^\]]*)\]|([^:]*))(?::\d*)?")


class Actions(Protocol):
    """What may be asked of the daemon. Called from threads of the server's."""

    def trigger(self, names: Sequence[str]) -> Collection[str]:
        """Back these accounts up now, or all if there are none; names of those that there are not."""

    def reload(self) -> str | None:
        """Read the configuration again; None, or why the old one stays."""


class Web:
    """Serves from `start` to `close`."""

    def __init__(self, facts: Facts, actions: Actions, state_dir: Path) -> None:
        self._facts, self._actions = facts, actions
        self._metrics = Metrics(facts)
        self._control_path = state_dir / CONTROL_SOCKET
        self._control: _Served | None = None
        self._health: _Served | None = None
        self._listen: Listen | None = None
        self._names: frozenset[str] = frozenset()

    def start(self, health: Health) -> None:
        """Serve the control socket, and health where it is configured.

        Raises Busy where another daemon serves it, ConfigError, StorageDenied.
        """
        self._control = _Served(listen_unix(self._control_path, 0o600), self.control)
        try:
            self.follow(health)
        except BaseException:
            self.close()
            raise

    def follow(self, health: Health) -> None:
        """Serve health where the configuration says now. Raises, and serves where it did, as `start` does."""
        names = frozenset(name.lower() for name in ("localhost", *health.hosts))
        if health.listen != self._listen:
            served = _Served(_bound(health.listen), self._app(health.listen)) if health.listen else None
            if self._health:
                self._health.close()
            self._health, self._listen = served, health.listen
        self._names = names

    def close(self) -> None:
        """Serve no longer."""
        for served in (self._health, self._control):
            if served:
                served.close()
        self._health = self._control = self._listen = None

    def _app(self, listen: Listen) -> Callable[[Request], Response]:
        return self.health if listen.path else self.by_name

    # Apps

    def by_name(self, request: Request) -> Response:
        """Health over TCP: only for whoever asks by an address, or by a name that is ours. A web page that a browser
        has loaded cannot read what we say by having its own name lead to this machine."""
        if request.host is not None and not is_ours(request.host, self._names):
            return Response.line(421, "asked for under a name that is not allowed here; health.hosts allows more")
        return self.health(request)

    def health(self, request: Request) -> Response:
        """What only tells."""
        found = self._told(request)
        return found if found is not None else Response.line(404, "no such page")

    def control(self, request: Request) -> Response:
        """All there is."""
        if (found := self._told(request)) is not None:
            return found
        done = {"/trigger": self._trigger, "/reload": self._reload}.get(request.path)
        if done is None:
            return Response.line(404, "no such page")
        if request.method != "POST":
            return _refused("POST")
        return done(request)

    def _told(self, request: Request) -> Response | None:
        page = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._page,
            "/status": self._status,
        }.get(request.path)
        if page is None:
            return None
        if request.method not in ("GET", "HEAD"):
            return _refused("GET, HEAD")
        try:
            return page(request)
        except BackupdError as error:  # the state cannot be read: that is trouble of the disk, and runs log it
            return Response.line(503, " ".join(str(error).split()))

    def _healthz(self, request: Request) -> Response:
        return Response.line(200, "ok") if self._facts.alive() else Response.line(503, "work does not advance")

    def _readyz(self, request: Request) -> Response:
        why = " ".join(self._facts.not_ready().split())
        return Response.line(503, why) if why else Response.line(200, "ok")

    def _page(self, request: Request) -> Response:
        return Response(200, self._metrics.page(), CONTENT_TYPE)

    def _status(self, request: Request) -> Response:
        return _json(200, self._facts.report(frozenset(request.query.get("account", ()))))

    def _trigger(self, request: Request) -> Response:
        try:
            wanted = msgspec.json.decode(request.body or b"{}", type=Trigger)
        except msgspec.DecodeError as error:
            return Response.line(400, f"the body is not what it should be: {error}")
        if why := self._facts.not_ready():
            return Response.line(503, " ".join(why.split()))
        known = {live.account: live for live in self._facts.board().accounts()}
        if unknown := [name for name in wanted.accounts if name not in known]:
            return _json(404, Triggered({}, unknown))
        names = wanted.accounts or list(known)
        # What runs now began before it was asked for: what was asked for is the run after it.
        runs = {
            name: known[name].runs + known[name].failed_runs + 1 + (known[name].running_since is not None)
            for name in names
        }
        gone = list(self._actions.trigger(names))
        return _json(404 if gone else 202, Triggered({} if gone else runs, gone))

    def _reload(self, request: Request) -> Response:
        why = self._actions.reload()
        return Response.line(409, " ".join(why.split())) if why else Response.line(200, "ok")


class _Served:
    """A socket that listens, and its server."""

    def __init__(self, bound: Bound, app: Callable[[Request], Response]) -> None:
        self._bound = bound
        self._server = HttpServer([(bound.socket, app)])
        self._server.start()

    def close(self) -> None:
        self._server.close()
        self._bound.close()


def _bound(listen: Listen) -> Bound:
    return listen_unix(listen.path, _HEALTH_MODE) if listen.path else listen_tcp(listen.host, listen.port)


def _refused(allow: str) -> Response:
    return Response(405, f"only {allow}\n".encode(), allow=allow)


def _json(status: int, value: object) -> Response:
    return Response(status, msgspec.json.encode(value) + b"\n", _JSON)


def is_ours(host: str, names: Collection[str]) -> bool:
    """Whether a Host field names us: by a plain address, which leads nowhere else, or by one of these names."""
    match = _HOST.fullmatch(host)
    if match is None:
        return False
    name = (match[1] or match[2] or "").rstrip(".").lower()
    if name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
