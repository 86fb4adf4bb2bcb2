"""The connection to an S3 service: one boto3 client for all threads, and how long a failing request is tried again.

boto3's standard mode tries a request three times within seconds. That is right for a hiccup, and too little for a
service that restarts; so `Connection.call` goes on until its budget of seconds is used up, and no request but the first
is begun after that. Every request that goes out is counted here, retries too, because services charge for each.
Importing boto3 takes a third of a second, so it waits for the first call.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final, Protocol, TypeVar

from backupd.errors import BackupdError, ConfigError, StorageUnavailable
from backupd.storage import s3_errors
from backupd.storage.base import Requests
from backupd.storage.s3_settings import S3Settings

T = TypeVar("T")

_ATTEMPTS: Final = 3
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
_CONNECT_SECONDS = 10.0


class _OutOfTime(Exception):
    """Raised in the place of a further request that would begin after the budget was used up."""


class Clock(Protocol):
    """Time, as tests may replace it."""

    def now(self) -> float:
        """Seconds; only differences count."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class RealClock:
    """Time as it is."""

    def now(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class Connection:
    """Thread-safe. The client is made at the first call."""

    def __init__(self, settings: S3Settings, url: str, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._url = url
        self._clock = clock or RealClock()
        self._client: Any = None
        self._lock = threading.Lock()
        self._thread = threading.local()
        self._requests = Requests()

    def call(
        self, work: Callable[[Any], T], *, subject: str = "", expected: Callable[[Exception], bool] | None = None
    ) -> T:
        """What `work` returns; it is given the client, and may be called several times.

        Args:
            subject: the object's name, for errors.
            expected: boto3's errors that the caller wants to see as they are.

        Raises the errors of `Storage`; StorageUnavailable when the budget was used up.
        """
        where = f"{self._url}: {subject}" if subject else self._url
        start = self._clock.now()
        deadline = self._thread.deadline = start + self._settings.retry_seconds
        self._thread.seen = None
        pause, renewed, failure = _FIRST_PAUSE, False, None
        while True:
            client = None
            try:
                client = self._the_client()
                return work(client)
            except _OutOfTime:
                seen = self._thread.seen
                failure = failure or s3_errors.explain(seen, where, self._endpoint())
                raise self._given_up(failure, where, start) from seen
            except _faults() as error:
                if expected and expected(error):
                    raise
                if s3_errors.code_of(error) in s3_errors.EXPIRED and not renewed:
                    renewed = True
                    self._forget(client)  # its secrets may be others by now
                    continue
                explained = s3_errors.explain(error, where, self._endpoint())
                if not isinstance(explained, StorageUnavailable):
                    raise explained from error
                failure = explained
                wait = pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that not all come back at once
                if self._clock.now() + wait >= deadline:
                    raise self._given_up(failure, where, start) from error
            self._clock.sleep(wait)
            pause = min(pause * 2, _LONGEST_PAUSE)

    @property
    def requests(self) -> Requests:
        """What was asked of the service so far."""
        return self._requests

    def _given_up(self, failure: BackupdError, where: str, start: float) -> StorageUnavailable:
        what = f"{failure.what}; tried for {self._clock.now() - start:.0f} seconds"
        return StorageUnavailable(what, subject=where, remedy=failure.remedy)

    def _endpoint(self) -> str:
        return self._settings.endpoint_url or "the S3 service"

    def _the_client(self) -> Any:
        with self._lock:
            if self._client is None:
                self._client = self._make_client()
            return self._client

    def _forget(self, client: Any) -> None:
        with self._lock:
            if self._client is client:
                self._client = None

    def _make_client(self) -> Any:
        try:
            import boto3.session
            from botocore.config import Config
        except ImportError:
            raise ConfigError(
                "boto3 is not installed, and buckets need it", subject=self._url, remedy="install backupd[s3]"
            ) from None
        settings = self._settings
        if settings.ca_file and not os.access(settings.ca_file, os.R_OK):
            raise ConfigError("ca_file cannot be read", subject=str(settings.ca_file), remedy="check path and owner")
        config = Config(
            retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
            connect_timeout=min(settings.timeout, _CONNECT_SECONDS, settings.retry_seconds),
            read_timeout=min(settings.timeout, settings.retry_seconds),
            max_pool_connections=settings.connections,
            tcp_keepalive=True,
            # What boto3 adds by itself (CRC32, in trailers over TLS) many services do not know. We send SHA-256.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            # The signature covers the body's SHA-256 over TLS too: services that know no checksums check that.
            s3={"addressing_style": settings.addressing, "payload_signing_enabled": True},
            user_agent_appid="backupd",
        )
        secret = settings.secret_access_key() if settings.secret_access_key else None
        token = settings.session_token() if settings.session_token else None
        session = boto3.session.Session(profile_name=settings.profile)
        try:
            client = session.client(
                "s3",
                endpoint_url=settings.endpoint_url,
                region_name=settings.region,
                verify=str(settings.ca_file) if settings.ca_file else None,
                aws_access_key_id=settings.access_key_id,
                aws_secret_access_key=secret,
                aws_session_token=token,
                config=config,
            )
        except ValueError:  # which quotes what may have a password in it
            raise ConfigError(
                "endpoint_url is no address of a service", subject=self._url, remedy="write one such as https://host"
            ) from None
        client.meta.events.register("before-send.s3", self._before_request)
        client.meta.events.register("needs-retry.s3", self._see)
        client.meta.events.register("before-call.s3.HeadBucket", _stay)
        return client

    def _before_request(self, request: Any, event_name: str, **_: Any) -> None:
        """boto3 calls it for each attempt. event_name: before-send.s3.PutObject and the like."""
        if self._thread.seen is not None and self._clock.now() >= self._thread.deadline:
            raise _OutOfTime
        with self._lock:
            self._requests = _and_one(self._requests, event_name.rpartition(".")[2], request.method)

    def _see(self, response: Any = None, caught_exception: Any = None, operation: Any = None, **_: Any) -> None:
        """Keep what a request failed of: boto3 may pause until the time is up, and then nobody else knows."""
        from botocore.exceptions import ClientError

        if caught_exception is None and response is not None and response[0].status_code >= 300:
            self._thread.seen = ClientError(response[1], operation.name)
        elif caught_exception is not None and not isinstance(caught_exception, _OutOfTime):
            self._thread.seen = caught_exception


def _and_one(requests: Requests, operation: str, method: str) -> Requests:
    """With one more of the kind that services charge for."""
    if operation.startswith("List"):
        return requests._replace(listings=requests.listings + 1)
    if method in ("PUT", "POST"):
        return requests._replace(writes=requests.writes + 1)
    if method in ("GET", "HEAD"):
        return requests._replace(reads=requests.reads + 1)
    return requests


def _stay(context: dict[str, Any], **_: Any) -> None:
    """boto3 asks HeadBucket where to go when it is sent elsewhere; sent elsewhere again, it would ask for ever."""
    context.setdefault("s3_redirect", {})["redirected"] = True


def _faults() -> tuple[type[Exception], ...]:
    """What requests may raise, and what is said of their answers; not what is a mistake of ours."""
    try:
        from botocore.exceptions import BotoCoreError, ClientError
        from botocore.parsers import ResponseParserError
        from urllib3.exceptions import HTTPError
    except ImportError:
        return ()
    return (BotoCoreError, ClientError, HTTPError, OSError, ResponseParserError, ValueError, StorageUnavailable)
