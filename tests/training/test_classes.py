"""Training by class: from the manifest's column to a model whose head knows the classes."""

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cots.config.params import Params
from cots.curves import loss_column
from cots.data.classes import read_classes
from cots.data.manifest import read_manifest
from cots.errors import BadInput
from cots.factory.model import build_model
from cots.factory.train_loader import build_train_loader
from cots.models.dual_encoder import DualEncoder
from cots.training import checkpoint
from cots.training.fit import Inputs, fit
from tests.training.conftest import tiny_params

BOTH = ("image", "video")
WEIGHTS = {"instance": 1.0, "token": 0.0, "task": 0.0, "class_contrast": 0.5, "classification": 1.0}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def params_of(**weights: float) -> Params:
    return tiny_params(pretrain={"captions_per_sample": 2, "steps": 4}, objective={"loss_weights": WEIGHTS | weights})


def run(data: Path, tokenized: Path, out: Path, params: Params, start: DualEncoder | None = None) -> DualEncoder:
    torch.manual_seed(0)
    model = start or build_model(params.model, tokenized / "tokenizer")
    inputs = Inputs(data / "shards", data / "manifest.parquet", tokenized / "tokens")
    fit(model, inputs, out / "report", name="pretrain", training=params.pretrain, num_codes=16, media=BOTH)
    checkpoint.path_of("pretrain").unlink()
    model.save(out / "model")
    return model


@pytest.mark.slow
def test_a_run_by_class_leaves_a_head_that_a_next_run_trains_further_or_leaves_out(
    annotated_data: Path, tokenized: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = run(annotated_data, tokenized, tmp_path / "whole", params_of())
    weights = load_file(tmp_path / "whole/model/model.safetensors")
    assert {key for key in weights if key.startswith("class_head.")} == {
        "class_head.image.weight",
        "class_head.text.weight",
        "class_head.bias",
    }
    curves = pd.read_csv(tmp_path / "whole/report/curves.csv")
    assert (curves[[loss_column("class_contrast"), loss_column("classification")]] > 0).all(axis=None)
    loaded = DualEncoder.load(tmp_path / "whole/model")
    assert (loaded.digest, loaded.classes) == (whole.digest, ("cold", "warm"))
    assert loaded.class_head
    slowly = params_of()
    slowly = slowly.model_copy(update={"pretrain": slowly.pretrain.model_copy(update={"learning_rate": 1e-9})})
    further = run(annotated_data, tokenized, tmp_path / "further", slowly, start=loaded)
    assert further.class_head
    torch.testing.assert_close(further.class_head.image.weight, weights["class_head.image.weight"])
    without = run(annotated_data, tokenized, tmp_path / "without", params_of(classification=0.0), start=further)
    assert (without.class_head, without.classes) == (None, ())
    assert "the classification head of its start is left out" in caplog.text


def test_batches_have_the_classes_of_the_column_if_they_are_asked_for(annotated_data: Path, tokenized: Path) -> None:
    params = params_of()
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (annotated_data / "manifest.parquet", annotated_data / "shards", tokenized / "tokens")
    loader = build_train_loader(*paths, model=model, training=params.pretrain, media=BOTH)
    rows = read_manifest(annotated_data / "manifest.parquet")
    names = [json.loads(text)["class"] if isinstance(text, str) else None for text in rows["metadata"]]
    for batch, plain in zip(islice(loader.iter_from(0), 5), replace(loader, classes=None).iter_from(0), strict=False):
        assert batch.class_index is not None
        assert plain.class_index is None
        expected = [-1 if (name := names[row]) is None else ("cold", "warm").index(name) for row in batch.image_index]
        assert batch.class_index.tolist() == expected
        for name in plain._fields:
            if name != "class_index" and getattr(plain, name) is not None:
                np.testing.assert_array_equal(getattr(batch, name), getattr(plain, name))
    off = params_of(class_contrast=0.0, classification=0.0).pretrain
    assert build_train_loader(*paths, model=model, training=off, media=BOTH).classes is None


def test_classes_are_those_of_the_training_samples_of_the_media(annotated_data: Path, tmp_path: Path) -> None:
    rows = read_manifest(annotated_data / "manifest.parquet")
    rows.loc[rows["split"] == "test", "metadata"] = json.dumps({"class": "unseen"})
    rows.loc[rows["media"] == "video", "metadata"] = json.dumps({"class": 7})
    rows.to_parquet(tmp_path / "manifest.parquet")
    classes = read_classes(tmp_path / "manifest.parquet", "class", ("image",))
    assert classes.names == ("cold", "warm")
    trained = (rows["split"] == "train") & (rows["media"] == "image")
    assert set(classes.numbers[~trained]) == {-1}
    assert sorted(set(classes.numbers[trained])) == [-1, 0, 1]
    assert read_classes(tmp_path / "manifest.parquet", "class", BOTH).names == ("7", "cold", "warm")


def test_white_space_around_a_class_is_not_part_of_it_and_a_blank_one_is_none(
    annotated_data: Path, tmp_path: Path
) -> None:
    rows = read_manifest(annotated_data / "manifest.parquet")
    names = ["warm", " warm", "cold\t", "cold", " "]
    train = rows[rows["split"] == "train"].index[: len(names)]
    rows["metadata"] = None
    rows.loc[train, "metadata"] = [json.dumps({"class": name}) for name in names]
    rows.to_parquet(tmp_path / "manifest.parquet")
    classes = read_classes(tmp_path / "manifest.parquet", "class", BOTH)
    assert classes.names == ("cold", "warm")
    assert classes.numbers[train].tolist() == [1, 1, 0, 0, -1]


@pytest.mark.parametrize(("column", "found"), [("kind", "none"), ("class", "7")])
def test_fewer_than_two_classes_are_refused_in_one_line(
    annotated_data: Path, tmp_path: Path, column: str, found: str
) -> None:
    rows: Any = read_manifest(annotated_data / "manifest.parquet")
    rows["metadata"] = json.dumps({"class": 7})
    rows.to_parquet(tmp_path / "manifest.parquet")
    with pytest.raises(BadInput, match=rf"class_column '{column}': .* fewer than two classes \({found}\): name a col"):
        read_classes(tmp_path / "manifest.parquet", column, BOTH)
