"""Training from Python is the pipeline's own: the notebooks, cell by cell."""

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

import cots
from tests.conftest import COLOURS, tracked_in
from tests.two_towers import save_transformers_clip

NOTEBOOKS = Path(__file__).parents[2] / "docs" / "notebooks"
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


def code_of(notebook: str) -> list[str]:
    """The code cells of a notebook."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def run_notebook(notebook: str) -> dict[str, Any]:
    """Run the cells one after another; the names that they leave."""
    names: dict[str, Any] = {}
    for cell in code_of(notebook):
        exec(cell, names)
    return names


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("store_here")
def test_the_notebooks_search_a_folder_then_train_on_it_and_the_gate_decides(
    tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    monkeypatch.chdir(tmp_path)
    images, project, clip = write_pairs(tmp_path / "images"), tmp_path / "project", tmp_path / "clip"
    save_transformers_clip(clip)
    for name, value in {
        "FOLDER": images,
        "PROJECT": project,
        "MODEL": clip,
        "PARAMS": json.dumps(STEPS | LIGHT),
    }.items():
        monkeypatch.setenv(f"COTS_{name}", str(value))

    searched = run_notebook("search-your-photographs")
    output = capfd.readouterr().out
    assert "cots-index version 1 registered; it is the champion (it is the first version)" in output
    assert "to search it: `cots serve`" in output
    assert searched["images"].shape[0] == 12
    assert searched["grid"].size == (1000, 200)
    assert {*yaml.safe_load((project / "dvc.lock").read_text())["stages"]} == {"version", "prepare", "validate"}

    with pytest.raises(cots.BadInput, match="has no section nothing for finetune.nothing.steps"):
        cots.finetune(images, project, params={"finetune.nothing.steps": 1})
    with pytest.raises(cots.BadInput, match="params.yaml says what training starts from: leave encoders out"):
        cots.finetune(images, project, encoders=str(clip))

    trained, start = run_notebook("fine-tune-and-see-the-gate-decide"), cots.load(clip)
    text = "a red thing"
    assert not np.array_equal(trained["model"].encode_texts(text), start.encode_texts(text))
    assert (project / "reports" / "index.html").is_file()
    params = yaml.safe_load((project / "params.yaml").read_text())
    assert (params["finetune"]["image-text"]["steps"], params["model"]["init_from"]) == (1, str(clip))
    output = capfd.readouterr().out
    assert "cots-index version 2 registered; it is not the champion" in output
    assert "because: the test split has 4 of the 30 items" in output


def test_the_notebook_on_losses_learns_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_transformers_clip(tmp_path / "clip")
    monkeypatch.setenv("COTS_MODEL", str(tmp_path / "clip"))
    accuracy = run_notebook("a-loss-of-your-own")["accuracy"]
    assert set(accuracy) == {"in_batch_info_nce", "hardest_negative"}
    assert min(accuracy.values()) > 0.9


@pytest.mark.parametrize("file", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda file: file.stem)
def test_a_notebook_is_stored_without_results(file: Path) -> None:
    cells = json.loads(file.read_text(encoding="utf8"))["cells"]
    assert all(
        cell["outputs"] == [] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code"
    )


def test_what_cannot_be_trained_on_is_told(tmp_path: Path, fork_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    with pytest.raises(cots.BadInput, match="cannot use it: see above"):
        cots.finetune(tmp_path / "nothing", tmp_path / "project")


def test_a_project_trains_on_no_other_folder_than_it_is_given(tmp_path: Path) -> None:
    source = {"kind": "folder", "path": "../mine"}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump({"source": source}))
    with pytest.raises(cots.BadInput, match=f"params.yaml trains on {tmp_path.parent / 'mine'}: give that folder"):
        cots.finetune(tmp_path / "other", tmp_path)
