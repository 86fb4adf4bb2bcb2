"""HTTP to a provider: one request at a time, bounded in time and size, TLS always checked, redirects never followed.

A provider is a stranger who is sent secrets. The library's timeouts are for each piece of an answer, so somebody who
sends an octet now and then would hold us for days: here the connection is cut when the whole takes too long.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import getproxies, proxy_bypass

import httpx2

from backupd.errors import ConnectionFailed, ProtocolError
from backupd.wire import tls

SECONDS = 30.0
LARGEST = 256 * 1024
"""Octets of an answer: discovery documents have 2 to 10 kB, tokens up to some."""
_SILENCE = 15.0


class Bounded(httpx2.BaseTransport):
    """A transport whose answers come whole, soon, and in a size that can be; or raise ConnectionFailed, ProtocolError.

    Args:
        provider: for messages.
        seconds: how long a request may take in all.
    """

    def __init__(self, inner: httpx2.BaseTransport, provider: str, *, seconds: float = SECONDS) -> None:
        self._inner, self._provider, self._seconds = inner, provider, seconds

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """See httpx2.BaseTransport."""
        request.headers["Accept-Encoding"] = "identity"  # what is packed has any size when it is unpacked
        pause = min(_SILENCE, self._seconds)
        with _Deadline(self._seconds) as deadline:
            request.extensions = {
                **request.extensions,
                "trace": deadline.watch,
                "timeout": dict.fromkeys(("connect", "read", "write", "pool"), pause),
            }
            try:
                response = self._inner.handle_request(request)
                try:
                    body = self._body(response)
                finally:
                    response.close()
            except httpx2.TransportError as error:
                if deadline.passed or isinstance(error, httpx2.TimeoutException):
                    what = f"the provider did not answer within {self._seconds if deadline.passed else pause:g} seconds"
                    raise ConnectionFailed(what, subject=self._provider, remedy="another try comes later") from None
                raise
        return httpx2.Response(response.status_code, headers=response.headers, content=body, request=request)

    def _body(self, response: httpx2.Response) -> bytes:
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self._odd("packed its answer, which nobody asked for")
        body = bytearray()
        for chunk in response.stream:  # type: ignore[union-attr]
            body += chunk
            if len(body) > LARGEST:
                raise self._odd(f"sent more than {LARGEST // 1024} KiB")
        return bytes(body)

    def _odd(self, what: str) -> ProtocolError:
        return ProtocolError(
            f"the provider {what}", subject=self._provider, remedy="check that issuer or token_endpoint is right"
        )

    def close(self) -> None:
        """See httpx2.BaseTransport."""
        self._inner.close()


class _Deadline:
    """Cuts a request's connection when its time is over, by a duplicate of its socket, which TLS leaves be."""

    def __init__(self, seconds: float) -> None:
        self.passed = False
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for sock in sockets:
            sock.close()

    def watch(self, event: str, info: Mapping[str, Any]) -> None:
        """Hears of each step of the request (the library's extension `trace`)."""
        if event == "connection.connect_tcp.complete":
            sock = info["return_value"].get_extra_info("socket").dup()
            with self._lock:
                self._sockets.append(sock)
            if self.passed:
                self._cut()

    def _cut(self) -> None:
        self.passed = True
        with self._lock:
            for sock in self._sockets:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


def open_transport(url: str, ca_file: Path | None, provider: str, *, seconds: float = SECONDS) -> Bounded:
    """A transport for requests to this address, through the environment's proxy if there is one for it.

    Raises CertificateRefused when ca_file cannot be used.
    """
    parts = httpx2.URL(url)
    context = tls.context_for(tls.Trust(ca_file), provider, own=True)
    # http is this machine's, and needs no proxy.
    proxy = None if parts.scheme == "http" or proxy_bypass(parts.host) else getproxies().get(parts.scheme)
    inner = httpx2.HTTPTransport(verify=context, trust_env=False, proxy=proxy or None)
    return Bounded(inner, provider, seconds=seconds)
