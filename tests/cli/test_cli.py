import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import chdir
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from cots.cli.doctor import CHECKS, BrokenError
from cots.cli.tables import table
from cots.config.model import ModelConfig
from cots.config.objective import LossWeightsConfig, TemperatureConfig
from cots.config.params import Params
from cots.config.training import FinetuneConfig, TrainConfig
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder
from tests.conftest import Cots
from tests.deployed import reindexed
from tests.two_towers import KINDS

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "docs/images"  # stands for a data set
COLOURS = ["red", "green", "blue", "yellow", "white", "black"]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed project with params.yaml and the presets."""
    folder = tmp_path / "project"
    shutil.copytree(ROOT / "presets", folder / "presets")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, folder)
    monkeypatch.chdir(folder)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*identity, "commit", "-q", "-m", "x"]):
        subprocess.run(["git", *command], check=True)
    return folder


@pytest.fixture
def registered(store: str, store_of_one_version: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registry whose champion is the tiny package, and its project around."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(store_of_one_version, store.removeprefix("sqlite:///"))


def publish(cots: Cots, package: Path) -> tuple[int, str, str]:
    """Publish a copy of the package from the project's folder."""
    shutil.copytree(package, "package", dirs_exist_ok=True)
    return cots("registry", "publish")


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A folder of six images in the layout `folder`, and three more that cannot be used."""
    folder = tmp_path / "squares"
    folder.mkdir()
    rows = ["image,caption"]
    for colour in COLOURS:
        Image.new("RGB", (40, 32), colour).save(folder / f"{colour}.png")
        rows += [f"{colour}.png,a {colour} square", f"{colour}.png,a square"]
    content = (folder / "red.png").read_bytes()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    (folder / "text.jpg").write_text("this is no image")
    rows += ["cut.jpg,a cut square", "text.jpg,a text", "absent.jpg,not there"]
    (folder / "captions.csv").write_text("\n".join(rows) + "\n")
    return folder


def one_line(text: str) -> str:
    assert text.startswith("error: "), text
    assert len(text.splitlines()) == 1, text
    return text


# --- the command line as such


def test_help_is_there_within_a_second() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cots", "--help"], capture_output=True, text=True, check=True
    )
    assert "registry" in done.stdout
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    heavy = {"torch", "mlflow", "pandas", "numpy", "transformers", "timm", "faiss", "pydantic", "prefect", "dvc"}
    assert not imported & (heavy - {"pydantic"})


def test_the_version_is_the_package_s(cots: Cots) -> None:
    assert cots("--version") == (0, f"cots {version('cots')}\n", "")


def test_the_shell_completes_a_verb() -> None:
    completion = {"_COTS_COMPLETE": "complete_bash", "COMP_WORDS": "cots reg", "COMP_CWORD": "1"}
    command = [sys.executable, "-m", "cots"]
    done = subprocess.run(command, env=dict(os.environ) | completion, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["registry"]


def test_a_terminal_gets_long_cells_wrapped_and_a_pipe_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [["1", "much worse than the one before " * 9 + "[end]"]]
    assert len(table(["version", "gate"], rows).splitlines()) == 2
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    head, *lines = table(["version", "gate"], rows).splitlines()
    assert head == "version  gate"
    assert max(map(len, lines)) <= 60
    assert " ".join(" ".join(lines).split()) == "1 " + rows[0][1]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch"], "No such command 'serch'"),
        (["search"], "give either a text or --image FILE"),
        (["search", "a", "--image", "b.jpg"], "give either a text or --image FILE"),
        (["search", "--image", "/nowhere/b.jpg"], "cannot read the image /nowhere/b.jpg"),
        (["search", "a", "--k", "0"], "Invalid value for '--k'"),
        (["search", "a", "--model", "/nowhere"], "no model /nowhere"),
        (["search", "a", "--where", "split"], "--where 'split' is not COLUMN=VALUE, such as split=test"),
        (["search", "a", "--min-score", "2"], "Invalid value for '--min-score'"),
        (["search", "a", "--save-grid", "a.gif"], "the file name must end in .png, .jpg, .jpeg, .webp"),
        (["search", "a", "--save-grid", "/nowhere/a.png"], "there is no folder /nowhere"),
        (["evaluate"], "Missing option '--model'"),
        (["registry", "promote", "--reason", "x"], "Missing option '--version'"),
        (["registry", "promote", "--version", "best", "--reason", "x"], "Invalid value for '--version'"),
        (
            ["summary", "--metrics", "/nowhere"],
            "no metrics in /nowhere (No such file or directory): run `dvc repro` first",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(cots: Cots, arguments: list[str], said: str) -> None:
    code, out, err = cots(*arguments)
    assert code == 2
    assert out == ""
    assert said in one_line(err)


def test_a_missing_option_points_to_the_help_of_its_own_command(cots: Cots) -> None:
    assert "(see `cots registry promote --help`)" in cots("registry", "promote", "--reason", "x")[2]
    assert "(see `cots --help`)" in cots("serch")[2]


def test_without_a_verb_the_help_is_shown(cots: Cots) -> None:
    code, _, err = cots()
    assert code == 2
    assert "Usage: cots" in err


def test_numbers_stand_right_and_words_left() -> None:
    assert table(["name", "n"], [["a", 1], ["bcdefg", 100]]) == "name      n\na         1\nbcdefg  100"


# --- init


@pytest.mark.parametrize(
    "encoders",
    sorted(file.stem for file in (ROOT / "presets/encoders").glob("*.yaml") if "." not in file.stem),
)
def test_encoders_are_a_second_axis_beside_the_preset(encoders: str, cots: Cots, project: Path, squares: Path) -> None:
    chosen = yaml.safe_load((project / f"presets/encoders/{encoders}.yaml").read_text())["model"]
    for preset in ("folder", "clips"):
        code, out, err = cots("init", preset, "--data", squares, "--encoders", encoders)
        assert (code, err) == (0, "")  # also over the file before, which some preset would restore
        assert out == f"params.yaml is preset {preset} with encoders {encoders}; now run: dvc repro\n"
        params = Params.load()
        assert (params.model.init_from, params.model.image.size) == (chosen.get("init_from"), chosen["image"]["size"])
        assert params.model.image.pretrained == chosen["image"].get("pretrained", False)
        assert {run.size for run in params.finetune.values()} == {chosen["image"]["size"]}
        assert params.prepare.size >= chosen["image"]["size"]


def test_a_preset_names_its_encoders_and_from_scratch_it_is_what_it_was(cots: Cots, project: Path) -> None:
    assert cots("init", "flickr8k", "--data", PICTURES)[0] == 0
    params = Params.load()
    assert (params.model.image.pretrained, params.model.image.name) == (True, "vit_small_patch14_dinov2.lvd142m")
    assert (params.pretrain.steps, params.pretrain.head_lr_scale) == (235, 10.0)
    assert cots("init", "flickr8k", "--data", PICTURES, "--encoders", "scratch")[0] == 0
    params = Params.load()
    assert (params.model, params.pretrain.steps, params.pretrain.learning_rate) == (ModelConfig(), 3000, 0.001)
    assert params.finetune["image-text"].steps == 400
    assert "26 to 30 min of pre-training" in Path("params.yaml").read_text()
    assert cots("init", "folder", "--data", PICTURES, "--encoders", "scratch")[0] == 0
    params = Params.load()
    assert (params.pretrain, params.finetune) == (TrainConfig(steps=200), {"image-text": FinetuneConfig()})


@pytest.mark.parametrize(
    ("preset", "from_scratch"),
    [
        ("msrvtt", (1200, 200, 4, 0.0005, "momentum", {"token": 0.0, "task": 0.0, "masked_views": 0.0})),
        ("clips", (3000, 400, 1, 0.0003, "online", {"token": 2.0, "task": 0.1, "masked_views": 1.0})),
        ("webdataset", (400, 400, 1, 0.001, "momentum", {"token": 1.0, "task": 0.1, "masked_views": 0.0})),
    ],
)
def test_videos_and_tars_start_from_pretrained_encoders_and_from_scratch_by_choice(
    preset: str, from_scratch: tuple[object, ...], cots: Cots, project: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / ("0.tar" if preset == "webdataset" else "a.mp4")).touch()
    assert cots("init", preset, "--data", data)[0] == 0
    params = Params.load()
    assert (params.model.image.pretrained, params.pretrain.head_lr_scale) == (True, 10.0)
    values = params.pretrain.objective.model_dump()["loss_weights"]
    assert values == LossWeightsConfig(instance=1, token=0, task=0, masked_views=0).model_dump()
    assert cots("init", preset, "--data", data, "--encoders", "scratch")[0] == 0
    params = Params.load()
    [run] = params.finetune.values()
    values = params.pretrain.objective.model_dump()["loss_weights"]
    weights = {name: values[name] for name in ("token", "task", "masked_views")}
    settings = (run.steps, run.frames, run.learning_rate, run.objective.model_dump()["in_batch_negatives"], weights)
    assert (params.model, params.pretrain.steps, *settings) == (ModelConfig(), *from_scratch)


def test_encoders_at_a_path_bring_the_sizes_that_other_stages_need(
    cots: Cots, project: Path, squares: Path, tmp_path: Path
) -> None:
    start = KINDS["open_clip SigLIP"](tmp_path / "theirs").path
    assert cots("init", "folder", "--data", squares, "--encoders", start)[0] == 0
    params = Params.load()
    assert (params.model.init_from, params.model.image.size, params.model.image.patch) == (str(start), 32, 8)
    assert params.finetune["image-text"].size == 32
    assert (params.pretrain.learning_rate, params.finetune["image-text"].learning_rate) == (1e-5, 1e-5)
    assert params.finetune["image-text"].objective.temperature == TemperatureConfig(
        init=None, learnable=True, min=0.005
    )
    assert cots("init", "folder", "--data", squares, "--encoders", "clip-b32")[0] == 0  # the file was not edited
    code, _, err = cots("init", "folder", "--data", squares, "--encoders", "dinov3", "--force")
    assert code == 2
    assert "no encoders 'dinov3': give a model's folder, file or name, or one of clip-b16, clip-b32" in one_line(err)


def test_the_committed_parameter_file_is_what_the_preset_scenes_becomes(cots: Cots, project: Path) -> None:
    (project / "params.yaml").unlink()
    assert cots("init", "scenes")[0] == 0
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


@pytest.mark.parametrize("preset", sorted(path.stem for path in (ROOT / "presets").glob("*.yaml")))
def test_every_preset_becomes_valid_parameters_with_the_path_given(cots: Cots, project: Path, preset: str) -> None:
    data = project / "pictures: a #1"
    data.mkdir()
    code, out, err = cots("init", preset, "--data", data)
    assert (code, err) == (0, "")
    params = Params.load(project / "params.yaml")
    assert params.source.path == data
    assert params.finetune.keys() >= {params.index.target}
    text = (project / "params.yaml").read_text()
    assert text.startswith("#")
    assert "dvc repro" in out


def test_drawn_documents_need_no_data(cots: Cots, project: Path) -> None:
    assert cots("init", "documents") == (0, "params.yaml is preset documents; now run: dvc repro\n", "")
    params = Params.load(project / "params.yaml")
    assert params.source.kind == "documents"
    assert params.pretrain.objective.needed_class_column == "class"
    [tuned] = params.finetune.values()
    assert tuned.objective.needed_class_column == "class"  # or the head would be left out


def test_a_preset_says_what_it_is_what_it_needs_and_what_to_expect() -> None:
    for path in (ROOT / "presets").glob("*.yaml"):
        if path.stem != "scenes":
            files = [path, *(ROOT / "presets/encoders").glob(f"*.{path.stem}.yaml")]
            header = "".join(file.read_text().partition("source:")[0] for file in files)
            assert "Hardware:" in header, path
            assert "Expected:" in header, path


def test_the_file_says_every_key_once_and_the_preset_nothing_but_its_path_otherwise(cots: Cots, project: Path) -> None:
    assert cots("init", "coco", "--data", PICTURES)[0] == 0
    preset = Params.load(project / "presets" / "coco.yaml").dump_all()
    text = (project / "params.yaml").read_text()
    assert yaml.safe_load(text) == preset | {"source": preset["source"] | {"path": str(PICTURES)}}
    assert "# Any timm vision transformer" in text
    assert max(map(len, text.splitlines())) <= 120


def test_the_name_of_before_does_the_same_and_tells_the_present_one(cots: Cots, project: Path) -> None:
    code, out, err = cots("use", "flickr8k", "--data", PICTURES)
    assert (code, err) == (0, "cots use is now called cots init\n")
    assert "dvc repro" in out
    assert "use " not in cots("--help")[1]


def test_an_upgrade_rewrites_a_file_of_before_with_the_same_values(cots: Cots, project: Path) -> None:
    old = (ROOT / "tests/fixtures/v0_1/params.yaml").read_text().replace("steps: 250", "steps: 251")
    (project / "params.yaml").write_text(old)
    before = Params.load(project / "params.yaml")
    assert cots("init", "--upgrade")[0] == 0
    assert Params.load(project / "params.yaml") == before
    assert before.pretrain.steps == 251
    text = (project / "params.yaml").read_text()
    assert text.startswith("# The demo")
    assert "batch_size: 128" in text
    assert (project / "params.yaml.bak").read_text() == old
    assert "already" in cots("init", "--upgrade")[1]
    assert (project / "params.yaml.bak").read_text() == old  # not the upgraded file


def test_a_file_that_is_no_text_is_replaced_by_force_and_kept(cots: Cots, project: Path) -> None:
    (project / "params.yaml").write_bytes(b"a: \xff")
    assert "--force" in one_line(cots("init", "scenes")[2])
    assert cots("init", "scenes", "--force")[0] == 0
    assert (project / "params.yaml.bak").read_bytes() == b"a: \xff"


def test_a_folder_in_the_place_of_params_yaml_is_told(cots: Cots, project: Path) -> None:
    (project / "params.yaml").unlink()
    (project / "params.yaml").mkdir()
    assert "cannot write params.yaml" in one_line(cots("init", "scenes")[2])


def test_an_upgrade_takes_no_preset_and_no_preset_is_not_a_choice(cots: Cots, project: Path) -> None:
    assert "--upgrade" in one_line(cots("init", "scenes", "--upgrade")[2])
    assert "flickr8k" in one_line(cots("init")[2])


def test_an_unknown_preset_is_told_with_those_that_there_are(cots: Cots, project: Path) -> None:
    code, _, err = cots("init", "flicker", "--data", PICTURES)
    assert code == 2
    assert "flickr8k" in one_line(err)


def test_a_path_that_is_not_there_leaves_the_parameters_alone(cots: Cots, project: Path) -> None:
    code, _, err = cots("init", "flickr8k", "--data", PICTURES / "nowhere")
    assert code == 2
    assert "nowhere" in one_line(err)
    assert (project / "params.yaml").read_text() == (ROOT / "params.yaml").read_text()


def test_a_data_set_must_be_named(cots: Cots, project: Path) -> None:
    code, _, err = cots("init", "folder")
    assert code == 2
    assert "--data" in one_line(err)


def test_edits_by_hand_are_not_lost(cots: Cots, project: Path) -> None:
    edited = (project / "params.yaml").read_text().replace("steps:", "steps:  ")
    (project / "params.yaml").write_text(edited)
    code, _, err = cots("init", "flickr8k", "--data", PICTURES)
    assert code == 2
    assert "--force" in one_line(err)
    assert (project / "params.yaml").read_text() == edited
    assert cots("init", "flickr8k", "--data", PICTURES, "--force")[0] == 0
    assert (project / "params.yaml.bak").read_text() == edited


def test_one_preset_may_follow_another(cots: Cots, project: Path) -> None:
    for preset in ("flickr8k", "folder", "flickr8k"):
        assert cots("init", preset, "--data", PICTURES)[0] == 0
    assert cots("init", "scenes")[0] == 0
    assert Params.load(project / "params.yaml").source.kind == "scenes"
    assert not (project / "params.yaml.bak").exists()


def test_a_preset_with_a_wrong_key_is_refused_and_nothing_written(cots: Cots, project: Path) -> None:
    preset = project / "presets" / "flickr8k.yaml"
    preset.write_text(preset.read_text() + "surprise: 1\n")
    code, _, err = cots("init", "flickr8k", "--data", PICTURES)
    assert code == 2
    assert "surprise" in one_line(err)
    assert not list(project.glob("*.partial"))
    for _ in range(2):  # others are written all the same, also over what they wrote before
        assert cots("init", "msrvtt", "--data", PICTURES)[0] == 0


# --- search and registry


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_text_gets_a_table_of_ranked_results(cots: Cots) -> None:
    code, out, err = cots("search", "a red square", "--k", "3")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["rank", "score", "id", "caption"]
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert all(row.split()[2] in COLOURS for row in rows)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_an_image_finds_itself(cots: Cots, squares: Path) -> None:
    code, out, _ = cots("search", "--image", squares / "blue.png", "--json")
    results = json.loads(out)
    assert code == 0
    assert results[0]["id"] == "blue"
    assert len(results) == len(COLOURS)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("option", ["--save-grid", "--sheet"])
def test_results_are_also_written_as_a_grid_of_images(cots: Cots, squares: Path, tmp_path: Path, option: str) -> None:
    grid = tmp_path / "grid.png"
    code, out, _ = cots("search", "--image", squares / "blue.png", "--k", 1, "--json", option, grid)
    assert (code, json.loads(out)[0]["frame"]) == (0, 0)
    with Image.open(grid) as opened:
        red, green, blue = opened.convert("RGB").resize((1, 1), box=(60, 120, 100, 160)).getpixel((0, 0))  # type: ignore[misc]
    assert (red < 20, green < 20, blue > 235) == (True, True, True)


def test_videos_are_listed_with_their_best_frames(
    cots: Cots, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    from cots.registry.packaging import InferenceConfig, save_index
    from cots.stages.index import stage

    params = Params.load(ROOT / "params.yaml")
    stage(tiny_data / "shards", tiny_data / "manifest.parquet", tiny_model, tmp_path / "index", params=params)
    limits = InferenceConfig(batch_size=8, max_pixels=10_000, min_side=8)
    save_index(tmp_path / "package", tiny_model, tmp_path / "index", config=limits, cards={})
    code, out, _ = cots("search", "a red square", "--model", tmp_path / "package", "--k", 27)
    assert code == 0
    head, *rows = out.splitlines()
    assert head.split() == ["rank", "score", "id", "frame", "caption"]
    named = {row.split()[2]: row.split()[3] for row in rows}
    assert len(named) == 27
    assert all((frame in "012") == ("-video-" in name) for name, frame in named.items())


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["cut.jpg", "text.jpg", "captions.csv"])
def test_a_file_that_is_no_image_is_reported_in_one_line(cots: Cots, squares: Path, name: str) -> None:
    code, _, err = cots("search", "--image", squares / name)
    assert code == 2
    assert "cannot be used" in one_line(err)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_an_empty_query_is_told_in_one_line(cots: Cots) -> None:
    code, _, err = cots("search", " ")
    assert code == 2
    assert "blank" in one_line(err)


@pytest.mark.usefixtures("store")
def test_before_anything_is_published_the_next_step_is_named(cots: Cots) -> None:
    code, _, err = cots("search", "a red square")
    assert code == 2
    for said in (one_line(err), cots("registry", "list")[1]):
        assert "`cots index FOLDER`, or `dvc repro` and `cots registry publish`" in said


def test_a_package_can_be_searched_without_a_registry(cots: Cots, tiny_package: Path) -> None:
    code, out, _ = cots("search", "blue", "--model", tiny_package / "index", "--k", "1")
    assert code == 0
    assert len(out.splitlines()) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_captions_are_found_for_an_image(cots: Cots, tiny_package: Path, squares: Path) -> None:
    model = ("--model", tiny_package / "index")
    code, out, _ = cots("search", "--image", squares / "blue.png", "--media", "text", "--json", *model)
    assert code == 0
    assert {hit["media"] for hit in json.loads(out)} == {"text"}
    assert len(json.loads(out)) == len(COLOURS) + 1


def test_encoders_are_not_searched(cots: Cots, tiny_model: Path) -> None:
    code, _, err = cots("search", "blue", "--model", tiny_model)
    assert code == 2
    assert "packaged index" in one_line(err)


@pytest.mark.slow
@pytest.mark.usefixtures("store")
def test_versions_are_published_listed_promoted_and_taken_back(
    cots: Cots, tiny_package: Path, other_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    assert "version 1 registered; it is the champion" in publish(cots, tiny_package)[1]
    assert "was registered already" in publish(cots, tiny_package)[1]
    assert "version 2 registered; it is the champion" in publish(cots, other_package)[1]
    rows = cots("registry", "list")[1].splitlines()
    assert [row.split()[:3] for row in rows[1:]] == [["2", "2", "champion"], ["1", "1", "previous"]]
    assert "version 1 is the champion" in cots("registry", "rollback", "--reason", "colours look wrong")[1]
    overruled = publish(cots, other_package)[1]
    assert "it is not the champion (rollback to version 1: colours look wrong); to deploy it" in overruled
    assert "version 2 is the champion" in cots("registry", "promote", "--version", "2", "--reason", "they did not")[1]
    assert "encoders.version" in cots("registry", "lineage", "--version", "1")[1]
    assert json.loads(cots("registry", "lineage", "--json")[1])["index"]["version"] == 2
    code, beside, err = cots("registry", "diff", "1", "2")
    assert (code, err) == (0, "")
    assert ["rsum", "240.0", "300.0"] in [line.split() for line in beside.splitlines()]
    assert json.loads(cots("registry", "diff", "1", "2", "--json")[1])["metrics"]["rsum"] == [240.0, 300.0]
    output = cots("registry", "history")[1]
    assert "colours look wrong" in output
    assert "they did not" in output


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_version_that_names_no_commit_is_told(cots: Cots, other_package: Path, tmp_path: Path) -> None:
    note = publish(cots, other_package)[2]
    assert note == "nothing is committed to git, so the version names no commit that it was made from\n"
    assert publish(cots, other_package)[2] == ""  # it was registered already
    git = ("git", "-c", "user.name=a", "-c", "user.email=a@example.org")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "a"], check=True)
    _, out, err = publish(cots, reindexed(other_package, tmp_path / "another"))
    assert ("version 3 registered" in out, err) == (True, "")


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_version_that_is_not_there_is_told_in_one_line(cots: Cots) -> None:
    code, _, err = cots("registry", "promote", "--version", "9", "--reason", "x")
    assert code == 2
    assert "existing versions: 1" in one_line(err)
    code, _, err = cots("registry", "rollback", "--reason", "x")
    assert code == 2
    one_line(err)


def test_a_server_that_is_down_is_told_in_one_line(cots: Cots, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    for arguments in (["registry", "list"], ["search", "a"]):
        code, _, err = cots(*arguments)
        assert code == 1
        assert "no MLflow server" in one_line(err)


# --- evaluate and summary


def evaluated(cots: Cots, model: object, data: Path, folder: Path, *more: object) -> tuple[str, dict[str, Any]]:
    out = folder / "results.json"
    common = ["--model", model, "--data", data, "--json", out]
    code, output, err = cots("evaluate", *common, *(more or ("--format", "folder", "--split", "test")))
    assert (code, err) == (0, "")
    results: dict[str, Any] = json.loads(out.read_text())
    return output, results


def test_images_that_cannot_be_used_are_counted_and_named(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    output, results = evaluated(cots, tiny_model, squares, tmp_path)
    assert results["used"] == 6
    assert {sample["id"]: sample["reason"] for sample in results["rejected"]} == {
        "cut.jpg": "cut short",
        "text.jpg": "not a picture",
        "absent.jpg": "no such file",
    }
    assert "3 of 9 samples could not be used" in output
    assert "absent.jpg" in output


def test_the_table_shows_chance_beside_what_was_measured(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    output, results = evaluated(cots, tiny_model, squares, tmp_path)
    assert "text to image" in output
    assert "image to text" in output
    assert output.count("by chance") == 2
    assert results["metrics"]["image"]["chance"]["t2i"]["R@1"] == pytest.approx(100 / 6, abs=1e-3)
    assert results["metrics"]["image"]["queries"] == {"items": 6, "texts": 12}


def test_folds_stand_in_the_table_and_in_the_file(cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path) -> None:
    common = ("--format", "folder", "--split", "test")
    output, results = evaluated(cots, tiny_model, squares, tmp_path, *common, "--folds", 2)
    assert "image, mean of 2 folds, text to image" in output
    assert "mAP@R" in output
    folds = results["metrics"]["image"]["folds"]
    assert (folds["number"], folds["queries"]) == (2, {"items": 3, "texts": 6})
    assert "folds" not in evaluated(cots, tiny_model, squares, tmp_path, *common)[1]["metrics"]["image"]


def feel_of_squares(squares: Path) -> None:
    """Add a column to the table: each square but the first is warm or cold."""
    table = (squares / "captions.csv").read_text().splitlines()
    warm = {f"{colour}.png": "warm" if colour in ("red", "yellow") else "cold" for colour in COLOURS[1:]}
    rows = [f"{row},{warm.get(row.partition(',')[0], '')}" for row in table[1:]]
    (squares / "captions.csv").write_text("\n".join([f"{table[0]},feel", *rows]) + "\n")


def test_a_column_of_classes_is_measured_by_prompts(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    feel_of_squares(squares)
    common = ("--format", "folder", "--split", "test")
    prompts = ("--class-column", "feel", "--template", "a {} square", "--template", "one {} image")
    output, results = evaluated(cots, tiny_model, squares, tmp_path, *common, *prompts)
    scores = results["metrics"]["image"]["classification"]
    assert scores["queries"] == {"items": 5, "classes": 2}
    assert scores["chance"] == {"acc1": 50, "acc5": 100, "mean_per_class_recall": 50}
    assert "Mean per-class recall" in output
    assert f"{scores['acc1']:.1f}" in next(line for line in output.splitlines() if "image, zero-shot" in line)


def test_the_head_of_a_model_is_measured_where_the_data_have_its_classes(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    model = DualEncoder.load(tiny_model)
    head = ClassHead(dim=model.dim, num_classes=2)
    with torch.no_grad():
        head.bias[1] = 100.0  # everything is warm
    model.set_class_head(head, classes=("cold", "warm"), column="feel")
    model.save(tmp_path / "model")
    assert "class_head" not in evaluated(cots, tmp_path / "model", squares, tmp_path)[1]["metrics"]["image"]
    feel_of_squares(squares)
    output, results = evaluated(cots, tmp_path / "model", squares, tmp_path)
    scores = results["metrics"]["image"]["class_head"]
    assert scores["queries"] == {"items": 5, "classes": 2}
    right = sum(colour in ("red", "yellow") for colour in COLOURS[1:])
    assert scores["both"]["accuracy"] == scores["image"]["accuracy"] == pytest.approx(100 * right / 5)
    f1 = 100 * (2 * right / (5 + right)) / 2  # of cold it is 0
    assert scores["text"]["macro_f1"] == pytest.approx(f1, abs=1e-3)
    lines = {line.split("  ")[0]: line.split()[-2:] for line in output.splitlines()}
    assert lines["image, head by both"] == [f"{100 * right / 5:.1f}", f"{f1:.1f}"]
    assert "most frequent class" in output
    assert "head by" not in evaluated(cots, tiny_model, squares, tmp_path)[0]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--class-column", "feel", "--template", "a {}"], "the samples have no column 'feel': they have none"),
        (["--class-column", "feel"], "--class-column needs a --template"),
        (["--class-column", "feel", "--template", "a square"], "in which {} stands for the class"),
    ],
)
def test_a_classification_that_cannot_be_measured_is_refused_in_one_line(
    options: list[str], said: str, cots: Cots, tiny_model: Path, squares: Path
) -> None:
    common = ["--model", tiny_model, "--data", squares, "--format", "folder", "--split", "test"]
    code, _, err = cots("evaluate", *common, *options)
    assert code == 2
    assert said in one_line(err)


def test_more_folds_than_images_are_reported_in_one_line(cots: Cots, tiny_model: Path, squares: Path) -> None:
    arguments = ["--model", tiny_model, "--data", squares, "--format", "folder", "--split", "test", "--folds", 7]
    code, _, err = cots("evaluate", *arguments)
    assert code == 2
    assert "7 folds of 6 items" in one_line(err)


@pytest.mark.slow
@pytest.mark.usefixtures("registered")
def test_a_registered_version_a_package_and_a_model_folder_measure_the_same(
    cots: Cots, tiny_model: Path, tiny_package: Path, squares: Path, tmp_path: Path
) -> None:
    addresses = [
        tiny_model,
        tiny_package / "index",
        tiny_package / "encoders",
        "models:/cots-index@champion",
        "models:/cots-encoders/1",
    ]
    scores = [evaluated(cots, address, squares, tmp_path)[1]["metrics"]["image"]["t2i"] for address in addresses]
    assert all(each == scores[0] for each in scores)


def test_a_model_taken_from_64_to_96_pixels_is_measured_like_any_other(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    small = DualEncoder.load(tiny_model).with_image_size(64)
    measured = []
    for size in (64, 96):
        small.with_image_size(size).save(tmp_path / f"at-{size}")
        measured.append(evaluated(cots, tmp_path / f"at-{size}", squares, tmp_path)[1])
    assert [results["metrics"]["image"]["queries"] for results in measured] == [{"items": 6, "texts": 12}] * 2
    assert measured[0]["encoder"] == small.digest != measured[1]["encoder"]


def test_drawn_scenes_can_be_measured_from_a_parameter_file(
    cots: Cots, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    params["source"]["images"] = {"train": 20, "val": 1, "test": 8}
    params["source"]["videos"] = {"train": 5, "val": 1, "test": 3}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(params))
    output, results = evaluated(
        cots, tiny_model, tmp_path / "small.yaml", tmp_path, "--format", "scenes", "--split", "test"
    )
    assert results["metrics"]["image"]["queries"]["items"] == 8
    assert results["metrics"]["video"]["queries"]["items"] == 3
    assert "video to text" in output


def test_drawn_documents_can_be_measured_from_a_parameter_file(
    cots: Cots, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    source = {"kind": "documents", "pages": {"train": 20, "val": 1, "test": 6}}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump({"source": source}))
    options = ("--format", "documents", "--split", "test")
    results = evaluated(cots, tiny_model, tmp_path / "small.yaml", tmp_path, *options)[1]
    assert results["metrics"]["image"]["queries"]["items"] == 6
    other = cots("evaluate", "--model", tiny_model, "--data", ROOT / "params.yaml", *options)
    assert "its source is scenes, not documents" in one_line(other[2])


def test_labels_are_captions_of_a_folder_that_has_no_others(cots: Cots, tiny_model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for colour in COLOURS:
        (data / colour).mkdir(parents=True)
        Image.new("RGB", (40, 32), colour).save(data / colour / "1.png")
    options = ("--format", "folder", "--split", "test", "--label-column", "colour", "--bootstrap", 10)
    classify = ("--class-column", "colour", "--template", "a {} square")
    metrics = evaluated(cots, tiny_model, data, tmp_path, *options, *classify)[1]["metrics"]["image"]
    assert metrics["queries"] == {"items": 6, "texts": 6}
    assert metrics["classification"]["queries"] == {"items": 6, "classes": 6}


def test_videos_are_measured_by_the_protocol_that_is_given(
    cots: Cots, tiny_model: Path, tmp_path: Path, make_video: Callable[..., bytes]
) -> None:
    data = tmp_path / "msrvtt"
    data.mkdir()
    videos = [{"video_id": f"video{n}", "split": "test"} for n in range(5)]
    sentences = [
        {"video_id": f"video{n}", "caption": f"{adjective} {n}"} for n in range(5) for adjective in ("grey", "plain")
    ]
    (data / "MSRVTT_data.json").write_text(json.dumps({"videos": videos, "sentences": sentences}))
    (data / "MSRVTT_JSFUSION_test.csv").write_text(
        "key,vid_key,video_id,sentence\nret0,msr1,video1,one\nret1,msr2,video2,two\n"
    )
    for n in range(5):
        (data / f"video{n}.mp4").write_bytes(make_video(2 + n))
    for protocol, queries in (("full", {"items": 5, "texts": 10}), ("1k-A", {"items": 2, "texts": 2})):
        options = ("--format", "msrvtt", "--protocol", protocol, "--split", "test", "--bootstrap", 10)
        output, results = evaluated(cots, tiny_model, data, tmp_path, *options)
        assert "text to video" in output
        assert results["metrics"]["video"]["queries"] == queries
        assert results["protocol"] == protocol


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "folder", "--split", "val"], "no sample of split val"),
        (["--format", "folder", "--split", "validation"], "Invalid value for '--split'"),
        (["--format", "csv", "--split", "test"], "Invalid value for '--format'"),
        (["--format", "karpathy", "--split", "test"], "dataset_*.json"),
        (["--format", "webdataset", "--split", "test"], ".tar"),
        (["--format", "msrvtt", "--split", "test"], "--format msrvtt needs --protocol full or 1k-A"),
        (["--format", "folder", "--split", "test", "--protocol", "full"], "no other format has one"),
        (["--format", "coco", "--split", "test", "--label-column", "a"], "--label-column is for --format folder alone"),
        (["--format", "msrvtt", "--split", "test", "--protocol", "1k-B"], "Invalid value for '--protocol'"),
        (["--format", "folder", "--split", "test", "--json", "/nowhere/x.json"], "cannot write /nowhere/x.json"),
        (["--format", "folder", "--split", "test", "--queries", "/dev/null"], "cannot write /dev/null"),
    ],
)
def test_data_that_does_not_fit_is_told_in_one_line(
    cots: Cots, tiny_model: Path, squares: Path, arguments: list[str], said: str
) -> None:
    code, _, err = cots("evaluate", "--model", tiny_model, "--data", squares, *arguments)
    assert code == 2
    assert said in one_line(err)


def test_a_data_set_without_a_usable_image_is_reported_in_one_line(cots: Cots, tiny_model: Path, squares: Path) -> None:
    (squares / "captions.csv").write_text("image,caption\ncut.jpg,a\ntext.jpg,b\n")
    code, _, err = cots("evaluate", "--model", tiny_model, "--data", squares, "--format", "folder", "--split", "test")
    assert code == 2
    assert "none of 2 samples" in one_line(err)


# --- compare


def query_tables(cots: Cots, model: Path, squares: Path, folder: Path) -> Path:
    """The folder of the tables of the queries of a model."""
    arguments = ["--model", model, "--data", squares, "--format", "folder", "--split", "test"]
    code, _, err = cots("evaluate", *arguments, "--queries", folder)
    assert (code, err) == (0, "")
    return folder


def test_two_models_are_compared_on_the_same_queries(
    cots: Cots, tiny_model: Path, other_model: Path, squares: Path, tmp_path: Path
) -> None:
    a, b = (
        query_tables(cots, tiny_model, squares, tmp_path / "a"),
        query_tables(cots, other_model, squares, tmp_path / "b"),
    )
    code, out, err = cots("compare", a, b, "--resamples", 50, "--json", tmp_path / "comparison.json")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].split() == ["A", "B", "A", "-", "B", "low", "high", "p"]
    assert len(out.splitlines()) == 2 + 2 * 5 + 1
    rsum = json.loads((tmp_path / "comparison.json").read_text())["difference"]["image-text"]["rsum"]
    assert rsum["difference"] == pytest.approx(rsum["challenger"] - rsum["champion"])
    assert rsum["low"] <= rsum["difference"] <= rsum["high"]
    assert f"{rsum['difference']:.2f}" in out.splitlines()[-1]


def test_several_runs_of_each_method_are_pooled(
    cots: Cots, tiny_model: Path, other_model: Path, squares: Path, tmp_path: Path
) -> None:
    for name, model in (("a/seed-0", tiny_model), ("a/seed-1", other_model), ("b/0", other_model), ("b/1", tiny_model)):
        query_tables(cots, model, squares, tmp_path / name)
    code, out, _ = cots("compare", tmp_path / "a", tmp_path / "b", "--resamples", 50)
    assert code == 0
    assert "items and the 2 runs" in out
    a, b, difference = out.splitlines()[-1].split()[1:4]
    assert a == b
    assert float(difference) == 0


def test_what_cannot_be_compared_is_told_in_one_line(
    cots: Cots, tiny_model: Path, squares: Path, tmp_path: Path
) -> None:
    whole = query_tables(cots, tiny_model, squares, tmp_path / "whole")
    (squares / "captions.csv").write_text("image,caption\nred.png,a red square\nblue.png,a blue square\n")
    part = query_tables(cots, tiny_model, squares, tmp_path / "part")
    for first, second, message in (
        (whole, part, "not evaluated on the same data"),
        (whole, tmp_path / "nowhere", "has no image-text.parquet"),
        (whole, squares / "captions.csv", "is not a query table"),
        (whole, tmp_path, "in pairs, not 1 with 2"),
    ):
        code, out, err = cots("compare", first, second)
        assert (code, out) == (2, "")
        assert message in one_line(err)


@pytest.mark.data
def test_real_photographs_in_the_karpathy_layout_are_measured_whole(
    cots: Cots, tiny_model: Path, tmp_path: Path
) -> None:
    data = Path(os.environ.get("COTS_DATA", ROOT.parent / "shared" / "data")) / "flickr8k"
    if not data.is_dir():
        pytest.skip(f"the data set of real images is not at {data}: set COTS_DATA")
    _, results = evaluated(
        cots, tiny_model, data, tmp_path, "--format", "karpathy", "--split", "val", "--bootstrap", "10"
    )
    assert results["used"] == 1000
    assert results["metrics"]["image"]["queries"]["texts"] == 5000


@pytest.mark.usefixtures("registered")
def test_the_summary_shows_results_versions_report_and_what_to_try(cots: Cots, tiny_package: Path) -> None:
    metrics = tiny_package.parent / "reports" / "metrics.json"
    code, out, _ = cots("summary", "--metrics", metrics)
    assert code == 0
    assert "40.0" in out
    assert "by chance" in out
    assert "champion" in out
    assert "reports/index.html" in out
    suggested = [shlex.split(line) for line in out.partition("Try next:")[2].splitlines() if "cots search" in line]
    assert suggested
    for _, *arguments in suggested:
        code, found, _ = cots(*arguments, "--k", "1", "--json")
        assert code == 0
        assert arguments[-1] in json.loads(found)[0]["captions"]


@pytest.mark.slow
def test_the_doctor_finds_this_environment_sound(
    cots: Cots, store: str, fork_python: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run([fork_python, "-m", "dvc", "init", "-q"], check=True)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    code, out, _ = cots("doctor")
    assert code == 0, out
    assert "BROKEN" not in out
    assert "bf16" in out
    assert store in out


@pytest.mark.slow
@pytest.mark.parametrize("place", ["archive", "larger repository"])
def test_the_doctor_says_what_dvc_needs_of_a_folder_without_git_and_nothing_inside_a_larger_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_python: str, place: str
) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    project = tmp_path / "project"
    project.mkdir()
    shutil.copytree(ROOT / ".dvc", project / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    if place == "archive":
        with pytest.raises(BrokenError, match="is not a git repository: run `git init`"), chdir(project):
            CHECKS["dvc"]()
    else:
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        with chdir(project):
            assert CHECKS["dvc"]() == "everything is up to date"


@pytest.mark.slow
def test_a_run_that_uses_the_folder_is_no_fault_for_the_doctor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fork_python: str
) -> None:
    monkeypatch.setattr(sys, "executable", fork_python)
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    shutil.copytree(ROOT / ".dvc", ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    Path("dvc.yaml").write_text("stages: {a: {cmd: touch out, outs: [out]}}\n")
    assert CHECKS["dvc"]() == "out of date: a; run `dvc repro`"
    held = {"read": {}, "write": {str(tmp_path / "out"): {"pid": os.getpid(), "cmd": "dvc repro a"}}}
    Path(".dvc/tmp/rwlock").write_text(json.dumps(held))
    assert CHECKS["dvc"]() == "a run or another command uses this folder: ask again when it has ended"


@pytest.mark.slow
def test_the_doctor_says_what_dvc_needs_where_the_user_has_no_name(tmp_path: Path) -> None:
    """As in a container that runs under any number for a user."""
    stranger = ["unshare", "--user", "--map-user=54321", "--map-group=54321"]
    if shutil.which("unshare") is None or subprocess.run([*stranger, "true"], check=False).returncode:
        pytest.skip("this machine lets nobody be another user: unshare --user")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    shutil.copytree(ROOT / ".dvc", tmp_path / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    check = [sys.executable, "-c", "from cots.cli.doctor import CHECKS; CHECKS['dvc']()"]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent"}
    done = subprocess.run(
        [*stranger, *check], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr.strip().endswith(": set the variable USER to any name")


def test_the_doctor_names_an_engine_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COTS_ENGINE", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert CHECKS["engine"]() == "stages run on this machine"
    monkeypatch.setenv("COTS_ENGINE", "ray")
    with pytest.raises(BrokenError, match=r"^COTS_ENGINE=ray needs ray: run `pip install 'cots\[cluster\]'`$"):
        CHECKS["engine"]()


def test_the_doctor_names_what_is_broken(cots: Cots, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (tmp_path / "params.yaml").write_text("drift: {max_rwos: 3}\n")
    code, out, _ = cots("doctor")
    assert code == 1
    broken = [line.split()[0] for line in out.splitlines() if "BROKEN" in line]
    assert broken == ["params", "mlflow", "dvc"]
    assert "drift.max_rwos: Extra inputs are not permitted" in out
