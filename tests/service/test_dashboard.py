"""The dashboard and the alert rules, asked of a real Prometheus that scrapes a service under load."""

import json
import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from cots.cli.addresses import CHAMPION_URI
from tests.servers import free_port, waited_for
from tests.servers import serving as serving_process

from .conftest import Champion, serving

pytestmark = pytest.mark.slow
MONITORING = Path(__file__).parents[2] / "infra/monitoring"
PANELS = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
ALERTS = set(re.findall(r"alert: (\w+)", (MONITORING / "rules.yml").read_text()))


@contextmanager
def scraping(target: str, folder: Path) -> Iterator[httpx.Client]:
    """Prometheus by our configuration, except that it looks every second, and at `target`; a client of its API."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed: apt install prometheus")
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    config["global"] = dict.fromkeys(config["global"], "1s")
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    shutil.copy(MONITORING / "rules.yml", folder)
    url = f"http://127.0.0.1:{free_port()}"
    command = [program, "--config.file=prometheus.yml", f"--web.listen-address={url.removeprefix('http://')}"]
    with (
        serving_process(command, answers=f"{url}/-/ready", folder=folder, environment=os.environ),
        httpx.Client(base_url=f"{url}/api/v1", timeout=20) as client,
    ):
        yield client


def ask(prometheus: httpx.Client, expression: str) -> list[dict[str, Any]]:
    """The series that the expression returns now, those without a value (NaN) left out."""
    answer = prometheus.get("/query", params={"query": expression}).json()
    assert answer["status"] == "success", f"{expression}: {answer}"
    return [series for series in answer["data"]["result"] if not math.isnan(float(series["value"][1]))]


def rules(prometheus: httpx.Client) -> list[dict[str, Any]]:
    return [rule for group in prometheus.get("/rules").json()["data"]["groups"] for rule in group["rules"]]


def test_each_curve_has_values_and_no_alert_is_raised_while_the_champion_answers(
    champion: Champion, tiny_package: Path, tmp_path: Path
) -> None:
    champion.move(champion.register(tiny_package / "index"))
    missing = {(panel["title"], target["refId"]): target for panel in PANELS for target in panel["targets"]}
    with serving(CHAMPION_URI) as served, scraping(served.url.removeprefix("http://"), tmp_path) as prometheus:

        def show() -> bool:
            served.search(text="a red square")
            for place, target in list(missing.items()):
                if series := ask(prometheus, target["expr"]):
                    assert series[0]["metric"].keys() >= set(re.findall(r"{{(\w+)}}", target["legendFormat"])), series
                    del missing[place]
            return not missing

        waited_for(show, 60, every=0.5)
        waited_for(lambda: all(rule["health"] != "unknown" for rule in rules(prometheus)), 60)
        states = {rule["name"]: (rule["health"], rule.get("state")) for rule in rules(prometheus)}
    assert states.keys() >= ALERTS
    assert states == {name: ("ok", "inactive" if name in ALERTS else None) for name in states}
