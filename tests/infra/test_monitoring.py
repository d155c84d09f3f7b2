"""Prometheus's configuration, the alert rules and the dashboard of the search service."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from cots.service.metrics import ServiceMetrics

MONITORING = Path(__file__).parents[2] / "infra/monitoring"
SERVING = Path(__file__).parents[2] / "docs/serving.md"
RULES, DASHBOARD = (MONITORING / "rules.yml").read_text(), (MONITORING / "dashboard.json").read_text()


def promtool(*arguments: str) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed: apt install prometheus")
    done = subprocess.run([program, *arguments], cwd=MONITORING, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_accepts_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", "rules_test.yml")
    tested = (MONITORING / "rules_test.yml").read_text()
    assert all(name in tested for name in re.findall(r"alert: (\w+)", RULES))


@pytest.fixture
def families() -> list[Metric]:
    """What the service shows once it has answered a request."""
    metrics = ServiceMetrics()
    metrics.requests.labels("/search", "POST", "200").inc()
    metrics.seconds.labels("/search").observe(0.1)
    metrics.item_changes.labels("accepted").inc()
    metrics.set_version({"index": {"version": "1"}, "encoders": {"version": "1", "digest": "a"}})
    return list(text_string_to_metric_families(metrics.render().decode()))


@pytest.mark.parametrize("text", [RULES, DASHBOARD], ids=["rules", "dashboard"])
def test_rules_and_dashboard_ask_for_metrics_that_the_service_has(text: str, families: list[Metric]) -> None:
    known = {sample.name for family in families for sample in family.samples}
    asked = set(re.findall(r"\bcots_\w+", text))
    assert asked
    assert asked <= known


def test_every_metric_of_the_service_stands_in_its_manual_with_its_labels(families: list[Metric]) -> None:
    manual = SERVING.read_text().partition("## Metrics\n")[2].partition("\n## ")[0]
    found = re.findall(r"`(cots_\w+)(?:\{([\w,]+)\})?`", manual)
    documented = {name: set(filter(None, labels.split(","))) for name, labels in found}
    shown = {
        family.name + "_total" * (family.type == "counter"): set(family.samples[0].labels) - {"le"}
        for family in families
        if not family.name.endswith("_created")
    }
    assert documented == shown


def test_the_dashboard_asks_for_recorded_series_that_the_rules_record() -> None:
    recorded = set(re.findall(r"record: (\S+)", RULES))
    assert set(re.findall(r"cots:[\w:]+", DASHBOARD)) <= recorded


def test_every_panel_of_the_dashboard_has_a_title_a_unit_and_a_place_of_its_own() -> None:
    panels = json.loads(DASHBOARD)["panels"]
    assert all(panel["title"] and panel["fieldConfig"]["defaults"]["unit"] for panel in panels)
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
