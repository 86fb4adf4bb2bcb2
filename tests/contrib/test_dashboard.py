"""Grafana's dashboard: its shape is what Grafana imports, and each of its queries gives something on real metrics."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backupd.daemon.metrics import Metrics
from tests.support import promtool
from tests.support.daemon_facts import facts
from tests.support.prometheus import names_in, names_of, series_of

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "contrib/grafana/backupd.json").read_text())
WIDTH = 24


def panels() -> list[dict[str, Any]]:
    return [each for panel in DASHBOARD["panels"] for each in (panel, *panel.get("panels", ()))]


def queries() -> Iterator[tuple[str, str]]:
    """(panel and query, expression)."""
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", target["expr"]


def plain(expression: str) -> str:
    """The expression with Grafana's variables filled in: every daemon, every account."""
    for variable, value in (("$instance", ".*"), ("$account", ".*"), ("$__rate_interval", "5m")):
        expression = expression.replace(variable, value)
    return expression


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[bytes]:
    made = facts(tmp_path_factory.mktemp("dashboard") / "state")
    yield Metrics(made).page()
    made.state.close()


def test_panels_have_ids_of_their_own_and_a_place_of_their_own() -> None:
    ids = [panel["id"] for panel in panels()]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= WIDTH, panel["title"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, f"{panel['title']} lies over another one"
        taken |= cells


def test_each_panel_says_what_it_shows_and_asks_the_chosen_data_source() -> None:
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"]
        assert panel["targets"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
        for each in (panel, *panel["targets"]):
            assert each["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    # Grafana keeps it by these, and refuses one without.
    assert DASHBOARD["uid"] == "backupd"
    assert DASHBOARD["schemaVersion"] >= 36
    assert DASHBOARD.get("id") is None


def test_every_variable_it_uses_is_one_it_has_or_grafanas_own() -> None:
    text = json.dumps([DASHBOARD["panels"], DASHBOARD["templating"]])
    used = set(re.findall(r"\$\{?([a-z_]+)", text)) - {"__rate_interval", "__all"}
    assert used == {each["name"] for each in DASHBOARD["templating"]["list"]}


def test_what_columns_are_renamed_to_is_what_overrides_speak_of() -> None:
    for panel in panels():
        if panel["type"] != "table":
            continue
        organize = panel["transformations"][1]["options"]
        shown = set(organize["renameByName"].values())
        assert {each["matcher"]["options"] for each in panel["fieldConfig"]["overrides"]} <= shown
        refs = {f"Value #{target['refId']}" for target in panel["targets"]}
        assert refs <= {*organize["renameByName"], *organize["excludeByName"]}


def test_every_metric_it_names_is_one_that_there_is(page: bytes) -> None:
    named = {name for _, expression in queries() for name in names_in(expression)}
    named |= {name for each in DASHBOARD["templating"]["list"] for name in names_in(str(each["query"]))}
    assert named - names_of(page) == set()


def test_every_query_gives_something_on_real_metrics(page: bytes, tmp_path: Path) -> None:
    series = [{"series": name, "values": f"{value}+0x10"} for name, value in series_of(page)]
    wanted = [
        {"expr": f"count({plain(query)}) > bool 0", "eval_time": "8m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for _, query in queries()
    ]
    assert len(wanted) > 30
    said = promtool.hold_to(tmp_path, None, [{"interval": "1m", "input_series": series, "promql_expr_test": wanted}])
    assert said == ""


def test_a_query_that_gives_nothing_is_noticed(page: bytes, tmp_path: Path) -> None:
    series = [{"series": name, "values": f"{value}+0x10"} for name, value in series_of(page)]
    wanted = {"expr": "count(backupd_gone) > bool 0", "eval_time": "8m", "exp_samples": [{"labels": "{}", "value": 1}]}
    said = promtool.hold_to(tmp_path, None, [{"interval": "1m", "input_series": series, "promql_expr_test": [wanted]}])
    assert "backupd_gone" in said
