"""The recipes of CONTRIBUTING.md, applied to a copy of the repository to the letter, do what they promise."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf8")
RECIPES = dict(re.findall(r"^### (.+?): .*?\n(.*?)(?=^### |\Z)", TEXT, flags=re.DOTALL | re.MULTILINE))
BLOCK = re.compile(r"```(diff|python|yaml)\n(.*?)```", flags=re.DOTALL)
COPIED = ("cots", "tools", "presets", "pipelines", "docs", "tests", "dvc.yaml", "pyproject.toml", "withdrawn.csv")

METRIC = """
import numpy as np
import pandas as pd
from cots.cli.tables import retrieval_table
from cots.evaluation.comparison import compare_query_tables
from cots.evaluation.embedding import EmbeddedSplit
from cots.evaluation.retrieval import evaluate_retrieval, query_rows
units = np.eye(12, dtype=np.float32)
names = tuple(map(str, range(12)))
split = EmbeddedSplit(ids=names[:6], captions=names, text_to_item=np.repeat(np.arange(6), 2), items=units[:6],
                      texts=units, item_seconds=1.0, text_seconds=1.0)
result = evaluate_retrieval(split, media="image", folds=1, resamples=20, seed=0)
metrics, name = result.metrics, "nDCG@10"
assert 0 < metrics["i2t"][name] < 100
discounts = 1 / np.log2(np.arange(2, 12))
assert abs(metrics["chance"]["i2t"][name] - 100 * 2 / 12 * discounts.sum() / discounts[:2].sum()) < 1e-4
assert metrics["interval"]["i2t"][name]["low"] <= metrics["i2t"][name] <= metrics["interval"]["i2t"][name]["high"]
assert name in retrieval_table({"model": metrics}).splitlines()[0]
queries = pd.DataFrame(query_rows(split, result))
assert compare_query_tables([queries], [queries], resamples=5, seed=0)["i2t"][name]["difference"] == 0
"""
OPTION = """
from pathlib import Path
from cots.config.params import Params
from cots.config.renamed import dump_for_fingerprint
from cots.config.render import render
from tools.params_reference import reference
assert Params.load(Path("tests/fixtures/v0_1/params.yaml")).pretrain.adam_beta2 == 0.999
assert "adam_beta2: 0.999" in render(Params(), "")
assert "| `adam_beta2` | number" in reference() and "Second beta of AdamW." in reference()
assert "adam_beta2" not in dump_for_fingerprint(Params().pretrain, "pretrain")
"""
BACKBONE_AND_LOSS = """
import torch
from pathlib import Path
from cots.config.model import ModelConfig
from cots.config.objective import CotsObjectiveConfig
from cots.data.wordpiece import train_tokenizer
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.models.dual_encoder import DualEncoder
from cots.objectives.protocol import ALL_ROWS
from tests.objectives.test_cots import batch
train_tokenizer(map(chr, range(97, 123)), vocab_size=60).save_pretrained("tokenizer")
image = {"size": 16, "patch": 8, "options": {"embed_dim": 16, "depth": 1, "num_heads": 2}}
text = {"kind": "bag", "options": {"width": 16}}
model = build_model(ModelConfig.model_validate({"dim": 8, "image": image, "text": text}), Path("tokenizer"))
assert type(model.text.backbone).__name__ == "BagOfTokens"
model.save(Path("model"))
assert type(DualEncoder.load(Path("model")).text.backbone).__name__ == "BagOfTokens"

weights = {"instance": 0.0, "token": 0.0, "task": 0.0, "distance": 2.0}
objective = build_objective(model, CotsObjectiveConfig.model_validate({"loss_weights": weights}), num_codes=16)
pairs = batch(6)._replace(frames=torch.randn(6, 1, 3, 16, 16))
losses = objective(pairs, objective.compute_keys(pairs, [ALL_ROWS]))
distance = (model.image(pairs.frames) - model.text(pairs.input_ids, pairs.attention_mask)).square().sum(dim=1).mean()
torch.testing.assert_close(losses.losses["distance"], distance)
torch.testing.assert_close(losses.loss, 2 * distance)
"""


def blocks(recipe: str) -> list[tuple[str, str, str]]:
    """The file that each code block of a recipe is for, its kind and its text; a file is named before its blocks."""
    result, file = [], ""
    end = 0
    for block in BLOCK.finditer(RECIPES[recipe]):
        file = next(reversed(re.findall(r"`([\w/]+\.(?:py|yaml))`:\n\n", RECIPES[recipe][end : block.start()])), file)
        result.append((file, block[1], block[2]))
        end = block.end()
    return result


def apply(recipe: str, root: Path) -> None:
    for name, kind, text in blocks(recipe):
        file = root / name
        if kind != "diff":
            assert not file.exists(), f"{recipe}: {name} exists already"
            file.write_text(text, encoding="utf8")
            continue
        lines = [(line[:1], line[1:]) for line in text.splitlines()]
        old = "".join(f"{line}\n" for mark, line in lines if mark != "+")
        new = "".join(f"{line}\n" for mark, line in lines if mark != "-")
        content = file.read_text(encoding="utf8")
        assert content.count(old) == 1, f"{recipe}: {name} does not hold exactly once:\n{old}"
        file.write_text(content.replace(old, new), encoding="utf8")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with all recipes applied."""
    root = tmp_path_factory.mktemp("project")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, root / name)
    for recipe in RECIPES:
        apply(recipe, root)
    return root


def run(project: Path, *arguments: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(project), "PYTHONDONTWRITEBYTECODE": "1"}
    ended = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_each_recipe_touches_as_many_files_as_it_promises() -> None:
    files = {recipe: len({file for file, *_ in blocks(recipe)}) for recipe in RECIPES}
    assert files == {
        "A metric": 1,
        "A training option": 2,
        "A data source": 3,  # reader and preset, and the list that gives the source its name
        "A backbone": 2,
        "A loss level": 3,
        "A stage": 3,
    }


@pytest.mark.slow
def test_the_metric_is_scored_has_its_chance_and_interval_and_a_column(project: Path) -> None:
    run(project, "-c", METRIC)


@pytest.mark.slow
def test_the_training_option_is_written_documented_and_optional(project: Path) -> None:
    run(project, "-c", OPTION)


@pytest.mark.slow
def test_the_data_source_is_prepared_and_the_stage_reads_what_it_left(project: Path) -> None:
    folder = project / "sidecar"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        Image.fromarray(noise.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"noise number {number}\nthe same once more\n", encoding="utf8")
    preset = (project / "presets/sidecar.yaml").read_text(encoding="utf8")
    (project / "params.yaml").write_text(preset.replace("path/to/folder", "sidecar"), encoding="utf8")
    written = "data/shards", "data/manifest.parquet", "data/rejected.parquet"
    run(project, "-m", "cots.stages.prepare", "withdrawn.csv", *written)
    manifest = pd.read_parquet(project / "data/manifest.parquet")
    assert sorted(manifest["id"]) == sorted(f"{number}.png" for number in range(12))
    run(project, "-m", "cots.stages.census", "data/manifest.parquet", "census.json")
    assert json.loads((project / "census.json").read_text()) == dict(manifest["split"].value_counts())


@pytest.mark.slow
def test_the_code_of_the_stage_is_listed_by_the_tool(project: Path) -> None:
    run(project, "-m", "tools.stage_deps")
    entry = (project / "dvc.yaml").read_text(encoding="utf8").partition("  census:\n")[2].partition("params:")[0]
    assert {"- cots/stages/census.py", "- cots/config/stages/census.py", "- cots/data/manifest.py"} <= {
        line.strip() for line in entry.splitlines()
    }


@pytest.mark.slow
def test_the_backbone_is_built_and_loaded_and_the_loss_level_is_part_of_the_loss(project: Path) -> None:
    run(project, "-c", BACKBONE_AND_LOSS)
