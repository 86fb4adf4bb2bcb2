"""Fixtures for all tests. Each worker of a parallel run has servers of its own; each test has accounts of its own."""

from __future__ import annotations

import gc
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

from backupd import redaction
from tests.support import machine_tree
from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.rclone import Rclone, RcloneMissing
from tests.support.seaweedfs import SeaweedFS, SeaweedMissing
from tests.support.tls import Authority

if TYPE_CHECKING:
    from tests.support.oidc_provider import OidcProvider

StartDovecot = Callable[..., Dovecot]

# A busy machine is slow, and that proves nothing.
hypothesis.settings.register_profile("backupd", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("backupd")


def pytest_configure() -> None:
    """Programs that tests start must heed Ctrl-C. They do not where the shell started the tests in the background:
    it has them ignore it, and that is inherited; what is handled here is not."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_finish() -> None:
    """Thousands of tests are there to the end: whoever collects garbage need not look through them each time."""
    gc.collect()
    gc.freeze()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Nobody shall think that tests were passed when they were not run."""
    if not machine_tree.usable():
        terminalreporter.write_line("tests/systemd is left out: `make test-systemd`, as root, makes what it needs")


@pytest.fixture(autouse=True)
def nothing_is_secret_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """What one test gave as a password is not hidden from what another says."""
    monkeypatch.setattr(redaction, "_process", redaction.Redactor())


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The certificate authority of this run."""
    return Authority()


@pytest.fixture(scope="session")
def start_dovecot(authority: Authority) -> Iterator[StartDovecot]:
    """start_dovecot(hide=("CONDSTORE",), extra="...") gives a server like that; the same wish gets the same server."""
    running: dict[tuple[tuple[str, ...], str], Dovecot] = {}

    def start(*, hide: tuple[str, ...] = (), extra: str = "") -> Dovecot:
        wish = (tuple(sorted(hide)), extra)
        if wish not in running:
            running[wish] = Dovecot(hide=wish[0], extra=extra, authority=authority)
        return running[wish]

    try:
        yield start
    finally:
        with ThreadPoolExecutor() as pool:  # each takes a second to end
            list(pool.map(Dovecot.close, running.values()))


@pytest.fixture(scope="session")
def dovecot(start_dovecot: StartDovecot) -> Dovecot:
    """A Dovecot with all its capabilities."""
    return start_dovecot()


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    """A new, empty account."""
    return dovecot.account()


@pytest.fixture(scope="session")
def provider() -> Iterator[OidcProvider]:
    """An OpenID provider; each test registers apps of its own with it."""
    from tests.support.oidc_provider import OidcProvider

    with OidcProvider() as provider:
        yield provider


@pytest.fixture(scope="session")
def token_dovecot(start_dovecot: StartDovecot, provider: OidcProvider) -> Iterator[Dovecot]:
    """A Dovecot that takes the provider's access tokens for passwords of their users."""
    folder = Path(tempfile.mkdtemp(prefix="provider-", dir="/tmp"))
    try:
        yield start_dovecot(extra=provider.for_dovecot(folder))
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def rclone() -> Iterator[Rclone]:
    """Another real S3 server, which knows less."""
    try:
        server = Rclone()
    except RcloneMissing as error:
        pytest.skip(str(error))
    with server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[SeaweedFS]:
    """A real S3 server."""
    try:
        server = SeaweedFS()
    except SeaweedMissing as error:
        pytest.skip(str(error))
    with server:
        yield server
