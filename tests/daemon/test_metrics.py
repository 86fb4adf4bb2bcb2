"""The page of metrics is what Prometheus takes, says what is so, and costs little."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from backupd.daemon.board import Board
from backupd.daemon.metrics import Metrics
from backupd.daemon.report import Facts
from tests.support import promtool
from tests.support.daemon_facts import ACCOUNTS, HOUR, NOW, facts, kept

Samples = dict[tuple[str, str], float]


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Facts]:
    made = facts(tmp_path / "state")
    yield made
    made.state.close()


def samples(made: Facts) -> Samples:
    """Value of each sample, by name and by the values of its labels."""
    families = text_string_to_metric_families(Metrics(made).page().decode())
    return {
        (sample.name.removeprefix("backupd_"), " ".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


def test_prometheus_own_judge_has_nothing_against_names_and_help(everything: Facts) -> None:
    assert promtool.lint(Metrics(everything).page()) == ""


def test_an_account_that_is_fine(everything: Facts) -> None:
    found = samples(everything)
    last = NOW.timestamp() - 60
    assert found["account_last_good_timestamp_seconds", "fine"] == last
    assert found["account_last_complete_timestamp_seconds", "fine"] == last
    assert found["account_age_seconds", "fine"] == 60
    assert found["account_objective_seconds", "fine"] == 3600
    assert found["account_overdue", "fine"] == 0
    assert found["account_level", "fine"] == 0
    assert (found["account_messages", "fine"], found["account_bytes", "fine"]) == (1000, 50_000_000)
    assert found["account_last_run_duration_seconds", "fine"] == 3
    assert found["account_state", "fine idle"] == 1
    assert found["account_new_messages_total", "fine"] == 12
    assert ("account_failing_since_timestamp_seconds", "fine") not in found


def test_an_account_that_fails_says_of_what_and_since_when(everything: Facts) -> None:
    found = samples(everything)
    assert found["account_failing", "failing login"] == 1
    assert found["account_consecutive_failures", "failing"] == 3
    assert found["account_failing_since_timestamp_seconds", "failing"] == (NOW - 2 * HOUR).timestamp()
    assert (found["account_overdue", "failing"], found["account_level", "failing"]) == (1, 2)
    assert found["account_problems", "failing"] == 2


def test_an_account_that_was_never_backed_up_is_as_old_as_can_be(everything: Facts) -> None:
    found = samples(everything)
    assert found["account_last_good_timestamp_seconds", "never"] == 0
    assert found["account_overdue", "never"] == 1
    assert ("account_age_seconds", "never") not in found


def test_what_is_done_with_each_account(everything: Facts) -> None:
    found = samples(everything)
    for doing in ("held", "running", "waiting"):
        assert found["account_state", f"{doing} {doing}"] == 1
    assert found["account_held_until_timestamp_seconds", "held throttled"] == NOW.timestamp() + 600
    assert found["account_watching", "watched idle"] == 1
    assert sum(value for (name, _), value in found.items() if name == "account_state") == len(ACCOUNTS)


def test_losses_repository_maintenance_audits_and_tokens(everything: Facts) -> None:
    found = samples(everything)
    assert found["account_sudden_losses", "lossy"] == 1
    assert found["repository_bytes", ""] == 200_000_000
    # Eight accounts of 50 MB, all but the one that was never backed up.
    assert found["repository_dedup_ratio", ""] == 2.0
    assert found["maintenance_last_success_timestamp_seconds", "copy"] == (NOW - HOUR).timestamp()
    assert found["maintenance_last_success_timestamp_seconds", "prune"] == 0
    assert (found["maintenance_last_run_ok", "copy"], found["maintenance_last_run_ok", "prune"]) == (1, 0)
    assert (found["audit_last_result", "metadata"], found["audit_last_result", "storage"]) == (0, 1)
    assert found["account_token_expiry_timestamp_seconds", "fine"] == (NOW + timedelta(days=30)).timestamp()
    assert (found["queue_accounts", ""], found["queue_longest_seconds", ""]) == (1, 60)


def test_a_run_by_hand_counts_as_one_of_the_daemon(everything: Facts) -> None:
    """`backupd backup` runs beside the daemon, whose board hears nothing of it."""
    everything.board().update("fine", last_good=NOW - 2 * HOUR)
    assert samples(everything)["account_age_seconds", "fine"] == 60
    everything.board().update("fine", last_good=NOW)
    assert samples(everything)["account_age_seconds", "fine"] == 0


def test_nothing_is_told_of_a_repository_that_is_not_open(tmp_path: Path) -> None:
    made = facts(tmp_path / "state", made=Board())
    made = Facts(made.board, made.state, made.objectives, not_ready=lambda: "starting", clock=lambda: NOW)
    found = samples(made)
    assert found["ready", ""] == 0
    assert not any(name.startswith(("repository", "audit", "maintenance")) for name, _ in found)
    assert found["account_messages", "fine"] == 1000, "what is known of accounts is told all the same"
    made.state.close()


def test_the_same_page_serves_all_who_ask_within_a_second(everything: Facts) -> None:
    times = iter((0.0, 0.0, 0.5, 1.5, 1.5))
    metrics = Metrics(everything, clock=lambda: next(times))
    first = metrics.page()
    everything.board().update("fine", failures=1, cause="network")
    assert metrics.page() == first
    assert metrics.page() != first


def test_a_thousand_accounts_are_scraped_in_no_time(tmp_path: Path) -> None:
    names = [f"user{number:04}@example.com" for number in range(1000)]
    board = Board()
    board.set_accounts(dict.fromkeys(names, "every 15 minutes"))
    made = facts(tmp_path / "state", made=board)
    for name in names:
        kept(made.state, name)
    many = Facts(made.board, made.state, lambda: dict.fromkeys(names, HOUR), clock=lambda: NOW)
    began = time.process_time()
    page = Metrics(many).page()
    # 0.13 s on an idle machine; this is to notice if it is done a thousand times over.
    assert time.process_time() - began < 2
    assert page.count(b"backupd_account_messages{") == 1000
    made.state.close()
