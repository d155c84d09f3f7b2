"""Losses of any name reach the progress line and the report."""

from pathlib import Path

import pandas as pd
import pytest

from cots.config.objective import LossWeightsConfig
from cots.curves import (
    FILTER_THRESHOLD,
    KEEP_RATE,
    TOTAL_LOSS,
    VALIDATION_RSUM,
    current_column,
    loss_column,
    loss_columns,
)
from cots.progress import Progress
from cots.report.plots import draw_curves
from cots.report.sections import training_charts
from tests.objectives.test_cots import batch, objective
from tests.report.test_plots import count_points


@pytest.mark.parametrize("negatives", ["none", "online"])
def test_other_metrics_of_an_objective_are_not_taken_for_losses(negatives: str) -> None:
    model, some = objective(queue=3, negatives=negatives), batch(4)  # type: ignore[arg-type]
    keys = model.compute_keys(some, [slice(None)])
    losses = {loss_column(name): loss for name, loss in model(some, keys).losses.items()}
    row = {"step": 0, TOTAL_LOSS: 0.0} | losses | model.metrics(keys)
    assert loss_columns(row) == [TOTAL_LOSS, *losses]
    assert list(losses) == [loss_column(level) for level in model.levels]


def test_the_curves_have_the_filter_only_where_it_may_drop_a_pair() -> None:
    model, some = objective(queue=3, negatives="none"), batch(4)
    keys = model.compute_keys(some, [slice(None)])
    assert {KEEP_RATE, FILTER_THRESHOLD} <= set(model.metrics(keys))
    model.noise_filter.num_std = None
    assert [name for name in model.metrics(keys) if name.startswith("filter/")] == []


def test_validation_is_drawn_at_the_steps_after_which_it_was_measured(tmp_path: Path) -> None:
    steps = 9
    columns = {TOTAL_LOSS: 1.0, "pairs_per_second": 1.0, "utilisation": 0.5, "data_wait": 0.0}
    table = pd.DataFrame({"step": range(steps)} | columns)
    table[VALIDATION_RSUM] = [step**2 if step % 4 == 0 else None for step in range(steps)]
    table.to_csv(tmp_path / "curves.csv", index=False)
    [_, chart, _] = training_charts("pre-training", tmp_path)
    assert 'aria-label="RSUM on validation, pre-training: val/rsum over steps"' in chart.svg
    assert 3 in count_points(chart.svg)


def test_a_loss_of_a_new_name_is_shown_while_training_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pretrain", total=1, unit="steps") as progress:
        progress.started = progress.last_logged = progress.started - 60  # a minute ago: the next line is due
        progress.log_step(
            {"step": 0, "loss/total": 2.0, "loss/phrase": 1.0, "filter/keep_rate": 1.0, "learning_rate": 0.1}
        )
    assert "loss/total 2.000 loss/phrase 1.000 filter/keep_rate 1.000" in capsys.readouterr().err
    names = [TOTAL_LOSS, *map(loss_column, (*LossWeightsConfig.model_fields, "phrase"))]
    table = pd.DataFrame({"step": [0.0, 1.0]} | {name: [2.0, 1.0] for name in names})
    svg = str(
        draw_curves("Losses", "run", table["step"].to_numpy(), {n: table[n].to_numpy() for n in names}, caption="").svg
    )
    assert all(name in svg for name in names)


def test_columns_of_release_0_1_have_today_s_names() -> None:
    old = (Path(__file__).parent / "fixtures/v0_1/ended/pretrain/curves.csv").read_text().partition("\n")[0].split(",")
    columns = [current_column(name) for name in old]
    assert loss_columns(columns) == [TOTAL_LOSS, *map(loss_column, ("instance", "token", "task", "masked_views"))]
    assert columns[len(loss_columns(columns)) + 1 :] == [
        *("filter/keep_rate", "similarity/mean", "similarity/std", "filter/threshold"),
        *("temperature", "learning_rate", "pairs_per_second", "utilisation", "data_wait"),
    ]
