"""The daemon for those who ask how it is, at each stage of its life."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from backupd import config
from backupd.config.model import Config
from backupd.daemon.control import Control
from backupd.daemon.health import STARTING, Health
from backupd.errors import BackupdError, Busy
from backupd.operations.audit_state import Audit
from tests.support.config import write
from tests.support.daemon_facts import NOW

TEXT = """\
state_dir: state
repository: {url: repository, passphrase: a passphrase}
accounts:
  alice:
    imap: {host: mail.example.com, username: alice, password: secret}
    objective: 1h
  bob:
    imap:
      host: imap.gmail.com
      username: bob
      oauth2: {provider: google, client_id: app, client_secret: secret}
"""


class Nothing:
    """Actions that do nothing."""

    def trigger(self, names: Sequence[str]) -> list[str]:
        return []

    def reload(self) -> str | None:
        return None


@pytest.fixture
def loaded(tmp_path: Path) -> Config:
    return config.load(write(tmp_path, TEXT))


def test_before_the_repository_is_open_it_says_so_and_shows_what_is_kept(loaded: Config) -> None:
    control = Control(loaded.state_dir)
    with Health(loaded, Nothing(), alive=lambda: False) as health:
        found = control.status()
        assert [account.account for account in found.accounts] == ["alice", "bob"]
        assert found.daemon is not None
        assert found.daemon.not_ready == STARTING
        assert found.daemon.alive, "there is no work yet that could stand still"
        health.waits("no network")
        with pytest.raises(BackupdError, match="no network"):
            control.trigger()
    with pytest.raises(BackupdError, match="not running"):
        control.status()


def test_a_socket_in_use_is_refused_and_nothing_is_left_open(loaded: Config) -> None:
    with Health(loaded, Nothing()):
        second = Health(loaded, Nothing())
        with pytest.raises(Busy), second:
            pass
        assert Control(loaded.state_dir).status().daemon


def test_the_last_audit_of_each_level_is_told_however_many_came_of_another(loaded: Config) -> None:
    with Health(loaded, Nothing()) as health:
        began, here = NOW.isoformat(), loaded.repository.url
        health.state.audited([Audit(here, "", "drill", began, began, "critical")])
        health.state.audited([Audit(here, "alice", "drill", began, began, "ok")])
        health.state.audited([Audit("/a/copy", "", "drill", began, began, "ok")])
        for _ in range(120):
            health.state.audited([Audit(here, "", "freshness", began, began, "ok")])
        assert {audit.level: audit.code for audit in health.facts.audits()} == {"freshness": 0, "drill": 2}
