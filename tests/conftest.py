"""Fixtures for all tests. Each worker of a parallel run has servers of its own; each test has accounts of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.support.dovecot import Dovecot
from tests.support.dovecot_account import Account
from tests.support.tls import Authority

StartDovecot = Callable[..., Dovecot]


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
        for server in running.values():
            server.close()


@pytest.fixture(scope="session")
def dovecot(start_dovecot: StartDovecot) -> Dovecot:
    """A Dovecot with all its capabilities."""
    return start_dovecot()


@pytest.fixture
def account(dovecot: Dovecot) -> Account:
    """A new, empty account."""
    return dovecot.account()
