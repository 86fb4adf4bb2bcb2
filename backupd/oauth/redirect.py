"""Logging in by a browser on this machine, or elsewhere (RFC 8252, 7.3): the provider's page leads back to a port here.

An administrator over ssh has the browser on another machine, where that address leads to nothing. But it stands in the
browser's address bar then, and can be pasted here. Whatever comes is only believed with the `state` that was sent
along, and the code in it is of use only with the verifier that never left this process (RFC 7636).
"""

from __future__ import annotations

import contextlib
import hmac
import os
import secrets
import selectors
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from backupd.errors import Interrupted, LoginRefused, ServerError, UsageError
from backupd.oauth.refusals import refusal
from backupd.oauth.token import Answer

if TYPE_CHECKING:
    from backupd.oauth.app import App
    from backupd.oauth.provider import Provider

SECONDS = 900.0
_GLANCE = 0.5
_PATIENCE = 3.0
_LONGEST = 16 * 1024
_PAGE = (
    "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
    "Cache-Control: no-store\r\nReferrer-Policy: no-referrer\r\nConnection: close\r\n\r\n{text}"
)
_THANKS = "backupd has got what it needs. You can close this page, and look at the terminal.\n"
_NOTHING = "There is nothing here.\n"


@dataclass(frozen=True)
class Request:
    """What a person must do: open this address in a browser. back: where that will lead to in the end."""

    address: str
    back: str
    seconds: float = SECONDS


def log_in(
    provider: Provider,
    tell: Callable[[Request], None],
    *,
    stopped: Callable[[], bool],
    clock: Callable[[], float],
    typed: int | None = None,
    not_it: Callable[[str], None] = lambda why: None,
    port: int = 0,
) -> Answer:
    """Have somebody log in by a browser.

    Args:
        tell: shows the person what to do.
        stopped: whether to give up.
        clock: seconds that only go forward.
        typed: the file descriptor where the address can be pasted, line by line; None for nowhere.
        not_it: hears why what was pasted is of no use.
        port: where to listen on this machine; 0 for any that is free.

    Raises what Provider does, Interrupted, and UsageError where the provider has no such way or the port is taken.
    """
    app = provider.app
    if not provider.endpoints.authorization:
        raise UsageError(f"{app.provider} has no login by browser", subject=app.account, remedy="use --device")
    state, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(64)
    with _listening(port, app.account) as listener:
        back = f"http://{app.redirect_host}:{listener.getsockname()[1]}"
        request = Request(provider.authorization_url(state=state, verifier=verifier, redirect_uri=back), back)
        tell(request)
        code = _Waiting(listener, typed, state, provider, not_it).code(clock() + request.seconds, clock, stopped)
    return provider.exchange(code, verifier, back)


def _listening(port: int, account: str) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else "there is no such port"
        raise UsageError(
            f"port {port} of this machine cannot be listened on: {reason}",
            subject=account,
            remedy="leave out --port, or name another",
        ) from None


class _Waiting:
    """Waits for the browser, or for what is pasted, whichever comes first."""

    def __init__(
        self,
        listener: socket.socket,
        typed: int | None,
        state: str,
        provider: Provider,
        not_it: Callable[[str], None],
    ) -> None:
        self._listener, self._typed, self._state, self._not_it = listener, typed, state, not_it
        self._app, self._issuer = provider.app, provider.endpoints.issuer
        self._half = b""

    def code(self, until: float, clock: Callable[[], float], stopped: Callable[[], bool]) -> str:
        with selectors.DefaultSelector() as selector:
            selector.register(self._listener, selectors.EVENT_READ)
            if self._typed is not None:
                # A file, or nothing, cannot be waited for: nobody types there.
                with contextlib.suppress(OSError, ValueError):
                    selector.register(self._typed, selectors.EVENT_READ)
            while clock() < until:
                if stopped():
                    raise Interrupted("stopped before anybody had logged in", subject=self._app.account)
                for key, _ in selector.select(_GLANCE):
                    found = self._from_browser() if key.fileobj is self._listener else self._from_typed(selector)
                    if found:
                        return found
        raise LoginRefused("nobody has logged in in time", subject=self._app.account, remedy="run it once more")

    def _from_browser(self) -> str | None:
        """One request of whoever connected; the code, if it is the one that is waited for."""
        sock, _ = self._listener.accept()
        with sock:
            method, _, rest = _first_line(sock).partition(" ")
            try:
                code = self._code_in(rest.partition(" ")[0]) if method == "GET" else None
            except ServerError:
                _answer(sock, heard=True)
                raise
            _answer(sock, heard=code is not None)
            return code

    def _from_typed(self, selector: selectors.BaseSelector) -> str | None:
        """What was pasted meanwhile, read without a buffer that could keep a line from us."""
        assert self._typed is not None  # noqa: S101 - only then is it listened to
        piece = os.read(self._typed, _LONGEST)
        if not piece:
            selector.unregister(self._typed)
        *lines, self._half = (self._half + piece).split(b"\n") if piece else (self._half, b"")
        for line in filter(None, (each.strip() for each in lines)):
            if code := self._code_in(line.decode("ascii", "replace")):
                return code
            self._not_it("this is not the address that the login page led to: it holds code= and this login's state=")
        return None

    def _code_in(self, address: str) -> str | None:
        """The code in the address that the page led to (RFC 6749, 4.1.2); None when it is not of this login.

        Raises LoginRefused when it says that there will be none (4.1.2.1).
        """
        try:
            said = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        except ValueError:
            return None
        if not hmac.compare_digest(said.get("state", "").encode(), self._state.encode()):
            return None
        if self._issuer and said.get("iss", self._issuer) != self._issuer:  # RFC 9207, 2.4
            return None
        if "error" in said:
            raise _declined(self._app, said)
        return said.get("code") or None


def _declined(app: App, said: dict[str, str]) -> Exception:
    if said["error"] == "access_denied":
        return LoginRefused("the login was declined at the provider", subject=app.account, remedy="log in, and agree")
    return refusal(app, said["error"], said.get("error_description"), ())


def _first_line(sock: socket.socket) -> str:
    """The request's first line, after all of its header was read: a browser wants to have been listened to. Empty for
    one that takes too long, as those do that browsers open in advance."""
    data, until = b"", time.monotonic() + _PATIENCE
    while b"\r\n\r\n" not in data:
        try:
            sock.settimeout(max(until - time.monotonic(), 0.01))
            piece = sock.recv(4096)
        except OSError:
            return ""
        data += piece
        if not piece or len(data) > _LONGEST:
            return ""
    return data.partition(b"\r\n")[0].decode("ascii", "replace")


def _answer(sock: socket.socket, *, heard: bool) -> None:
    text = _THANKS if heard else _NOTHING
    page = _PAGE.format(status="200 OK" if heard else "404 Not Found", length=len(text), text=text)
    with contextlib.suppress(OSError):  # the browser has gone; what it had to say was heard
        sock.settimeout(_PATIENCE)
        sock.sendall(page.encode())
