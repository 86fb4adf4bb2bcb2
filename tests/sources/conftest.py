"""Fixtures for tests of sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from backupd.sources.imap import ImapSource
from backupd.sources.imap.session import ImapSession
from backupd.wire.imap_connection import ImapSettings
from tests.support.scripted_imap import PASSWORD, USER, ScriptedImap
from tests.support.scripted_reading import Open, box_of


@pytest.fixture
def server() -> Iterator[ScriptedImap]:
    with ScriptedImap({b"INBOX": box_of()}) as running:
        yield running


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def open_session(pauses: list[float]) -> Iterator[Open]:
    opened: list[ImapSession] = []

    def start(server: ScriptedImap, *, spool: Path | None = None, patience: float = 600) -> ImapSession:
        settings = ImapSettings(
            server.host, USER, PASSWORD, port=server.port, tls="none", timeout=5, spool_folder=spool
        )
        opened.append(ImapSource(settings, sleep=pauses.append, patience=patience).open())
        return opened[-1]

    yield start
    for one in opened:
        one.close()
