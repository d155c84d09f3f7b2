"""Losses of any name reach progress and report without a list of them."""

import pandas as pd
import pytest

from cots.config.objective import LossWeightsConfig
from cots.curves import loss_columns
from cots.progress import Progress
from cots.report.plots import curves
from tests.objectives.test_cots import batch, objective


@pytest.mark.parametrize("negatives", ["none", "online"])
def test_what_an_objective_tells_beside_its_losses_is_taken_for_no_loss(negatives: str) -> None:
    model, some = objective(queue=3, negatives=negatives), batch(4)  # type: ignore[arg-type]
    keys = model.compute_keys(some, [slice(None)])
    row = {"step": 0, "total": 0.0} | model(some, keys).losses | model.metrics(keys)
    assert set(loss_columns(row)) == {"total", *LossWeightsConfig.model_fields}


def test_a_loss_of_a_new_name_is_shown_while_training_and_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("pretrain", total=1, unit="steps") as told:
        told.began = told.told = told.began - 60  # a minute ago: the next line is due
        told.log_step({"step": 0, "total": 2.0, "phrase": 1.0, "kept": 1.0, "learning_rate": 0.1})
    assert "total 2.000 phrase 1.000 kept 1.000" in capsys.readouterr().err
    names = ["total", "instance", "token", "task", "masked_views", "phrase"]
    table = pd.DataFrame({"step": [0.0, 1.0]} | {name: [2.0, 1.0] for name in names})
    svg = str(
        curves("Losses", "run", table["step"].to_numpy(), {n: table[n].to_numpy() for n in names}, caption="").svg
    )
    assert all(name in svg for name in names)
