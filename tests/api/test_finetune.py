"""Training from Python is the pipeline's own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cots
from tests.conftest import COLOURS, tracked_in
from tests.two_towers import save_transformers_clip

STEPS = {"dvae.steps": 1, "pretrain.steps": 0, "finetune.image-text.steps": 1, "finetune.image-text.warmup_steps": 0}
LIGHT = {"dvae.batch_size": 2, "evaluate.bootstrap_resamples": 10, "evaluate.num_examples": 1}


def write_pairs(folder: Path) -> Path:
    """Eight plain images to train on and four to measure on, with a caption each."""
    folder.mkdir()
    rows = ["image,caption,split"]
    for number, colour in enumerate(COLOURS * 2):
        Image.new("RGB", (32 + number, 32), colour).save(folder / f"{number}.png")
        rows.append(f"{number}.png,a {colour} thing of {number},{'train' if number < 8 else 'test'}")
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def store_here(tmp_path: Path, empty_store: Path) -> Iterator[None]:
    with tracked_in(Path(shutil.copy(empty_store, tmp_path))):
        yield


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("store_here")
def test_a_folder_is_searched_before_training_and_then_trained_on_in_the_same_project(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`cots index` in an empty folder, `cots.finetune` from its data, and the gate between the two."""
    monkeypatch.setattr(sys, "executable", fork_python)
    images, project, clip = write_pairs(tmp_path / "images"), tmp_path / "project", tmp_path / "clip"
    save_transformers_clip(clip)
    project.mkdir()

    def run(*arguments: object) -> str:
        command = [fork_python, "-m", "cots", *map(str, arguments)]
        done = subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        return done.stdout

    said = run("index", images, "--encoders", clip)
    assert "cots-index version 1 registered; it is the champion (it is the first version)" in said
    assert "to search it: `cots serve`" in said
    assert {*yaml.safe_load((project / "dvc.lock").read_text())["stages"]} == {"version", "prepare", "validate"}

    with pytest.raises(cots.BadInput, match="has no section nothing for finetune.nothing.steps"):
        cots.finetune(images, project, params={"finetune.nothing.steps": 1})
    with pytest.raises(cots.BadInput, match="params.yaml says what training starts from: leave encoders out"):
        cots.finetune(images, project, encoders=str(clip))
    model, start = cots.finetune(images, project, params=STEPS | LIGHT), cots.load(clip)
    assert not np.array_equal(model.encode_texts("a red thing"), start.encode_texts("a red thing"))
    assert (project / "reports" / "index.html").is_file()
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert (params["finetune"]["image-text"]["steps"], params["model"]["init_from"]) == (1, str(clip))
    published = run("registry", "publish")
    assert "cots-index version 2 registered; it is not the champion" in published
    assert "the test split has 4 of the 30 items" in published


def test_what_cannot_be_trained_on_is_told(tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    with pytest.raises(cots.BadInput, match="cannot use it: see above"):
        cots.finetune(tmp_path / "nothing", tmp_path / "project")
