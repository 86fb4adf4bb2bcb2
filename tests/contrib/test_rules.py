"""Alert rules: each rings when it should, and only then; and speaks of metrics that there are.

Prometheus' own evaluation runs on series written here. Its time begins at 0, in 1970.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from backupd.daemon.metrics import Metrics
from tests.support import promtool
from tests.support.daemon_facts import facts
from tests.support.prometheus import SCRAPED, names_in, names_of

ROOT = Path(__file__).parents[2]
RULES = ROOT / "contrib/prometheus/backupd.rules.yaml"
ALERTS: dict[str, dict[str, Any]] = {
    rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]
}
Series = Mapping[str, str]
ACCOUNT = 'account="alice"'


class Case(NamedTuple):
    """Series, by name and labels, under which the alert rings at this time, and under which it does not. Values are in
    promtool's notation, which is start+step x how often; every: the time between two of them."""

    at: str
    rings: Series
    silent: Series
    every: str = "1m"


def of_alice(**values: str) -> Series:
    return {f"backupd_account_{name}{{{ACCOUNT}}}": value for name, value in values.items()}


def failing(cause: str, accounts: int = 1, of: int = 100) -> Series:
    fails = {f'backupd_account_failing{{account="{n}",cause="{cause}"}}': "1+0x40" for n in range(accounts)}
    return fails | {f'backupd_account_messages{{account="{n}"}}': "10+0x40" for n in range(of)}


CASES = {
    "BackupdDown": Case("6m", {"up": "0+0x30"}, {"up": "1+0x30"}),
    "BackupdStuck": Case("6m", {"backupd_alive": "0+0x30"}, {"backupd_alive": "1 0 0 1+0x30"}),
    "BackupdNotReady": Case("16m", {"backupd_ready": "0+0x30"}, {"backupd_ready": "0+0x10 1+0x30"}),
    "BackupdRestarts": Case(
        "1h",
        {"process_start_time_seconds": "1+0x9 2+0x9 3+0x9 4+0x9 5+0x30"},
        {"process_start_time_seconds": "1+0x20 2+0x60"},
    ),
    "BackupdFileDescriptors": Case(
        "16m",
        {"process_open_fds": "900+0x30", "process_max_fds": "1024+0x30"},
        {"process_open_fds": "100+0x30", "process_max_fds": "1024+0x30"},
    ),
    "BackupdBehind": Case(
        "20m", {"backupd_queue_longest_seconds": "901+60x30"}, {"backupd_queue_longest_seconds": "60+0x30"}
    ),
    "BackupdObjectiveMissed": Case(
        "67m",
        of_alice(last_good_timestamp_seconds="60+0x100", objective_seconds="3600+0x100"),
        of_alice(last_good_timestamp_seconds="60+60x100", objective_seconds="3600+0x100"),
    ),
    "BackupdNeverBackedUp": Case(
        "390m",
        of_alice(last_good_timestamp_seconds="0+0x20"),
        of_alice(last_good_timestamp_seconds="0+0x8 9+0x10"),
        every="30m",
    ),
    "BackupdStale": Case(
        "50h",
        of_alice(last_good_timestamp_seconds="60+0x120"),
        of_alice(last_good_timestamp_seconds="60+0x120", objective_seconds="604800+0x120"),
        every="30m",
    ),
    "BackupdNeedsAPerson": Case("31m", failing("login"), failing("network")),
    "BackupdFailing": Case("210m", failing("network"), failing("login"), every="30m"),
    "BackupdManyFailing": Case("16m", failing("network", 11), failing("network", 9)),
    "BackupdSuddenLoss": Case("1m", of_alice(sudden_losses="1+0x5"), of_alice(sudden_losses="0+0x5")),
    "BackupdIncomplete": Case("25h", of_alice(problems="2+0x60"), of_alice(problems="2+0x20 0+0x40"), every="30m"),
    "BackupdThrottled": Case(
        "8h",
        of_alice(throttled_seconds_total="0+1800x20"),
        of_alice(throttled_seconds_total="0+300x20"),
        every="30m",
    ),
    "BackupdNotWatching": Case(
        "31m",
        {f'backupd_account_watching{{{ACCOUNT},how="lost"}}': "1+0x40"},
        {f'backupd_account_watching{{{ACCOUNT},how="idle"}}': "1+0x40"},
    ),
    "BackupdTokenExpires": Case(
        "1m",
        of_alice(token_expiry_timestamp_seconds="86400+0x5"),
        of_alice(token_expiry_timestamp_seconds="2592000+0x5"),
    ),
    "BackupdRepositoryFails": Case("16m", failing("storage"), failing("network")),
    "BackupdCopiesBehind": Case(
        "26h",
        {'backupd_maintenance_last_success_timestamp_seconds{task="copy"}': "60+0x60"},
        {'backupd_maintenance_last_success_timestamp_seconds{task="copy"}': "60+1800x60"},
        every="30m",
    ),
    "BackupdMaintenanceFails": Case(
        "390m",
        {'backupd_maintenance_last_run_ok{task="prune"}': "0+0x20"},
        {'backupd_maintenance_last_run_ok{task="prune"}': "0+0x5 1+0x20"},
        every="30m",
    ),
    "BackupdMaintenanceLate": Case(
        "7h",
        {'backupd_maintenance_next_run_timestamp_seconds{task="prune"}': "60+0x20"},
        {'backupd_maintenance_next_run_timestamp_seconds{task="prune"}': "86400+0x20"},
        every="30m",
    ),
    "BackupdAuditFailed": Case(
        "1m",
        {'backupd_audit_last_result{level="storage"}': "2+0x5"},
        {'backupd_audit_last_result{level="storage"}': "1+0x5"},
    ),
    "BackupdAuditWarns": Case(
        "25h",
        {'backupd_audit_last_result{level="storage"}': "1+0x60"},
        {'backupd_audit_last_result{level="storage"}': "0+0x60"},
        every="30m",
    ),
    "BackupdAuditOld": Case(
        "49h",
        {"backupd_ready": "1+0x120"},
        {"backupd_ready": "1+0x120", 'backupd_audit_last_timestamp_seconds{level="metadata"}': "60+1800x120"},
        every="30m",
    ),
}


def scraped(series: Series) -> list[dict[str, str]]:
    """The series as after a scrape, with the labels that Prometheus adds."""
    labels = ",".join(f'{key}="{value}"' for key, value in SCRAPED.items())
    found = []
    for name, values in series.items():
        bare, _, own = name.rstrip("}").partition("{")
        found.append({"series": f"{bare}{{{labels}{',' + own if own else ''}}}", "values": values})
    return found


def firing(alert: str, at: str, rings: bool) -> dict[str, object]:
    """A test that the alert rings at this time, or does not."""
    query = f'count by (alertname) (ALERTS{{alertname="{alert}",alertstate="firing"}} > 0) > bool 0'
    wanted = [{"labels": f'{{alertname="{alert}"}}', "value": 1}] if rings else []
    return {"expr": query, "eval_time": at, "exp_samples": wanted}


def judged(folder: Path, cases: Mapping[str, Case], *, rings: bool) -> str:
    said = []
    for every in {case.every for case in cases.values()}:
        tests = [
            {
                "interval": every,
                "input_series": scraped(case.rings if rings else case.silent),
                "promql_expr_test": [firing(alert, case.at, rings)],
            }
            for alert, case in cases.items()
            if case.every == every
        ]
        said.append(promtool.hold_to(folder, RULES, tests, every=every))
    return "".join(said)


def test_there_is_a_case_of_every_alert() -> None:
    assert set(CASES) == set(ALERTS)


def test_each_alert_rings_when_it_should(tmp_path: Path) -> None:
    assert judged(tmp_path, CASES, rings=True) == ""


def test_and_is_silent_otherwise(tmp_path: Path) -> None:
    assert judged(tmp_path, CASES, rings=False) == ""


def test_a_rule_that_never_rings_is_noticed(tmp_path: Path) -> None:
    deaf = {"BackupdDown": Case("6m", {"up": "1+0x30"}, {})}
    assert "BackupdDown" in judged(tmp_path, deaf, rings=True)


def test_an_audit_of_long_ago_rings_too(tmp_path: Path) -> None:
    level = 'backupd_audit_last_timestamp_seconds{level="storage"}'
    case = Case("11d", {"backupd_ready": "1+0x600", level: "60+0x600"}, {}, every="30m")
    assert judged(tmp_path, {"BackupdAuditOld": case}, rings=True) == ""


def test_nobody_rings_for_a_daemon_that_is_down_but_the_one_alert(tmp_path: Path) -> None:
    wanted = [firing(alert, "6m", alert == "BackupdDown") for alert in ALERTS]
    tests = [{"interval": "1m", "input_series": scraped({"up": "0+0x30"}), "promql_expr_test": wanted}]
    assert promtool.hold_to(tmp_path, RULES, tests) == ""


def test_every_metric_they_name_is_one_that_there_is(tmp_path: Path) -> None:
    made = facts(tmp_path / "state")
    there = names_of(Metrics(made).page())
    made.state.close()
    named = {name for rule in ALERTS.values() for name in names_in(rule["expr"])}
    assert named
    assert named - there == set()


@pytest.mark.parametrize("alert", ALERTS)
def test_it_says_what_happened_to_what_and_how_grave_it_is(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in ("critical", "warning")
    texts = rule["annotations"]
    assert set(texts) == {"summary", "description"}
    by_account = "backupd_account_" in rule["expr"] and not rule["expr"].startswith("count by")
    assert ("$labels.account" in texts["summary"]) == by_account
    assert re.search(r"\$labels\.(account|instance)|\$value", texts["description"])


def test_what_they_say_can_be_rendered(tmp_path: Path) -> None:
    """promtool renders an annotation when it compares it: compared with nothing, it shows what it would be."""
    said = ""
    for every in {case.every for case in CASES.values()}:
        tests = [
            {
                "interval": every,
                "input_series": scraped(case.rings),
                "alert_rule_test": [{"eval_time": case.at, "alertname": alert, "exp_alerts": []}],
            }
            for alert, case in CASES.items()
            if case.every == every
        ]
        said += promtool.hold_to(tmp_path, RULES, tests, every=every)
    for alert in CASES:
        assert f"alertname: {alert}" in said or f'alertname="{alert}"' in said, f"{alert} is not shown"
    assert "error expanding template" not in said
    assert "<no value>" not in said
    assert "alice: no backup within its objective" in said
    assert "began 1h 6m" in said
