"""MLflow's own page shows a training that runs."""

from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from playwright.sync_api import Browser, Page

from cots.progress import Progress
from cots.stages import pretrain
from cots.tracking import live_curves
from tests.browser import needs_chromium
from tests.training.conftest import MlflowServer, tiny_params

pytestmark = [pytest.mark.slow, needs_chromium]
TABS = {
    "model-metrics": ["loss/total", "grad_norm/total", "val/rsum"],
    "system-metrics": ["system/cpu_utilization_percentage"],
}
# Points of each curve that the page draws, by metric; Plotly keeps what it draws beside its element.
POINTS = """() => Object.fromEntries([...document.querySelectorAll(".js-plotly-plot")].map(
    (plot) => [plot.data[0].metricKey, plot.data[0].x.length]))"""


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A window so high that MLflow, which draws what is in sight, draws every chart."""
    with browser.new_context(viewport={"width": 1400, "height": 6000}) as within:
        page = within.new_page()
        page.set_default_timeout(120_000)
        yield page


def test_curves_of_a_training_move_on_its_page_while_it_runs(
    mlflow_server: MlflowServer,
    tiny_data: Path,
    tokenized: Path,
    tmp_path: Path,
    page: Page,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_curves, "INTERVAL_SECONDS", 0.0)
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    log_step, seen = Progress.log_step, list[dict[str, int]]()

    def look_after_two_steps(progress: Progress, metrics: dict[str, float]) -> None:
        log_step(progress, metrics)
        if metrics["step"] == 2:
            seen.append(points(page, mlflow_server.address))

    monkeypatch.setattr(Progress, "log_step", look_after_two_steps)
    inputs = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "tokens", tokenized / "tokenizer")
    params = tiny_params(pretrain={"validate_every": 1})
    with mlflow_server.running():
        pretrain.stage(*inputs, tmp_path / "model", tmp_path / "report", tmp_path / "run.json", params=params)
        seen.append(points(page, mlflow_server.address))

    during, after = seen
    assert all(after[name] > during[name] > 0 for tab in TABS.values() for name in tab)
    assert after["loss/total"] == params.pretrain.steps


def points(page: Page, address: str) -> dict[str, int]:
    """Number of points of each curve on the training's page, by metric, once all of `TABS` are drawn."""
    [run] = mlflow.search_runs(filter_string="run_name = 'pretrain'", search_all_experiments=True, output_format="list")
    counts: dict[str, int] = {}
    for tab, names in TABS.items():
        page.goto("about:blank")
        path = f"#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}/{tab}"
        page.goto(f"{address}/{path}?workflowType=machine_learning", wait_until="commit")
        page.wait_for_function(f"(names) => names.every((name) => ({POINTS})()[name])", arg=names)
        counts |= page.evaluate(POINTS)
    return counts
