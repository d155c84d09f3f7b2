"""Stage `evaluate` on tiny real shards with models of random weights; its page in a real browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from cots.config.evaluate import EvaluateConfig
from cots.config.params import Params
from cots.data.manifest import read_manifest
from cots.errors import BadInput
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder
from cots.stages.evaluate import stage
from tests.launched import launched

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
TARGETS = ("image-text", "video-text")
COLOURS = {"classification": {"column": "colour", "templates": ["a {} square", "one {} & more"]}} | {
    "slices": {"columns": ["colour"], "max_values": 2}
}


class Page(HTMLParser):
    """The tags of a page with their attributes, its ids and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def of(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def params(**evaluate: object) -> Params:
    chosen = Params.load(Path(__file__).parents[2] / "params.yaml")
    small = {"batch_size": 4, "bootstrap_resamples": 20, "num_examples": 4} | evaluate
    return chosen.model_copy(update={"evaluate": EvaluateConfig.model_validate(chosen.evaluate.model_dump() | small)})


def write_curves(folder: Path, steps: int) -> None:
    folder.mkdir(parents=True)
    falling = np.linspace(3, 1, steps)
    names = (
        "loss/total",
        "loss/instance",
        "loss/task",
        "similarity/mean",
        "similarity/std",
        "learning_rate",
        "pairs_per_second",
        "utilisation",
        "data_wait",
    )
    table = pd.DataFrame({"step": np.arange(steps), **dict.fromkeys(names, falling)})
    threshold = np.where(np.arange(steps) < steps // 2, -1.0, 0.3)
    table["loss/token"], table["filter/keep_rate"], table["filter/threshold"] = 0.0, 1.0, threshold
    table.to_csv(folder / "curves.csv", index=False)


def write_reports(reports: Path, manifest: pd.DataFrame) -> None:
    """Write minimal outputs of the training stages."""
    for folder in ("pretrain", *(f"finetune/{target}" for target in TARGETS)):
        write_curves(reports / folder, steps=8)
    train = manifest[manifest["split"] == "train"]
    score = np.where(train["id"].str.endswith("red"), 0.1, 0.7)
    pairs = pd.DataFrame({"id": train["id"], "caption": 1, "score": score, "seen": 4, "dropped": (score < 0.5) * 2})
    pairs.to_parquet(reports / "pretrain" / "pairs.parquet", index=False)
    (reports / "dvae").mkdir()
    Image.effect_noise((96, 64), 60).convert("RGB").save(reports / "dvae" / "reconstructions.png")
    curves = pd.DataFrame({"step": range(8), "reconstruction": 1.0, "perplexity": np.linspace(2, 9, 8)})
    curves.to_csv(reports / "dvae" / "curves.csv", index=False)
    usage = {"perplexity": 40.5, "codes": 64, "used": 50, "l1": 0.05}
    (reports / "dvae" / "usage.json").write_text(json.dumps(usage))
    (reports / "validation").mkdir()
    check = {"expectation": "ids are unique", "limit": "all", "observed": {"values": 27, "against": 0}, "success": True}
    summary = {"success": True, "overview": {"captions": 54, "rejected": {"cut short": 1}}, "checks": [check]}
    (reports / "validation" / "summary.json").write_text(json.dumps(summary))


def files(project: Path, data: Path) -> tuple[Path, ...]:
    """The stage's arguments."""
    reports, models = project / "reports", project / "models"
    return (
        data / "shards",
        data / "manifest.parquet",
        data / "rejected.parquet",
        models / "pretrained",
        models / "finetuned",
        reports,
        reports / "headline.json",
        reports / "metrics.json",
        reports / "evaluation",
        reports / "index.html",
        project / "runs" / "evaluate.json",
    )


def run(project: Path, data: Path, chosen: Params) -> None:
    stage(*files(project, data), params=chosen)


def set_up(project: Path, tiny_model: Path, other_model: Path) -> None:
    for name, model in (("pretrained", tiny_model), *((f"finetuned/{target}", other_model) for target in TARGETS)):
        shutil.copytree(model, project / "models" / name)


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory, tiny_data: Path) -> Path:
    """`tiny_data` with a column that says the colour of each image and video, but of one image."""
    folder = shutil.copytree(tiny_data, tmp_path_factory.mktemp("coloured") / "data")
    manifest = read_manifest(tiny_data / "manifest.parquet")
    colours = manifest["id"].str.rsplit("-", n=1).str[-1]
    manifest["metadata"] = [json.dumps({"colour": colour}) for colour in colours]
    manifest.loc[manifest["id"] == "test-image-blue", "metadata"] = None
    manifest.to_parquet(folder / "manifest.parquet")
    return folder


def add_class_head(folder: Path) -> None:
    """Give a model a head that calls everything red."""
    model = DualEncoder.load(folder)
    head = ClassHead(dim=model.dim, num_classes=3)
    with torch.no_grad():
        head.bias[2] = 100.0
    model.set_class_head(head, classes=("blue", "green", "red"), column="colour")
    model.save(folder)


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, other_model: Path, coloured: Path, empty_store: Path
) -> Path:
    """A project in which the stage has run."""
    folder = tmp_path_factory.mktemp("project")
    set_up(folder, tiny_model, other_model)
    add_class_head(folder / "models/finetuned/image-text")
    write_reports(folder / "reports", read_manifest(coloured / "manifest.parquet"))
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        run(folder, coloured, params(folds=3, **COLOURS))
    return folder


@pytest.fixture(scope="module")
def page(project: Path) -> Page:
    return Page((project / "reports" / "index.html").read_text(encoding="utf8"))


@pytest.fixture(scope="module")
def metrics(project: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((project / "reports" / "metrics.json").read_text())
    return values


@pytest.mark.slow
def test_every_model_is_measured_on_every_target(metrics: dict[str, Any]) -> None:
    assert set(metrics) == {*TARGETS, *(f"pretrained/{target}" for target in TARGETS), "filter", "dvae"}
    assert metrics["image-text"]["queries"] == {"items": 6, "texts": 12}
    assert metrics["video-text"]["queries"] == {"items": 3, "texts": 6}
    assert metrics["video-text"]["chance"]["t2v"] == {
        "R@1": 33.333333,
        "R@5": 100,
        "R@10": 100,
        "mAP@R": 33.333333,
        "MdR": 2,
        "mean_rank": 2,
    }


def test_the_headline_says_in_ten_numbers_what_the_fine_tuned_models_can_do(
    project: Path, metrics: dict[str, Any]
) -> None:
    headline = json.loads((project / "reports" / "headline.json").read_text())
    assert headline == {
        target: {
            "RSUM": metrics[target]["rsum"],
            **{f"{name} R@{k}": metrics[target][name][f"R@{k}"] for name in names for k in (1, 10)},
        }
        for target, names in {"image-text": ("t2i", "i2t"), "video-text": ("t2v", "v2t")}.items()
    }
    assert sum(map(len, headline.values())) <= 10


def test_folds_are_measured_and_shown_beside_the_whole(metrics: dict[str, Any], page: Page) -> None:
    folds = metrics["image-text"]["folds"]
    assert folds["number"] == 3
    assert folds["queries"] == {"items": 2, "texts": 4}
    assert folds["chance"]["t2i"]["R@1"] == 50
    for words in ("Image-text retrieval, mean of 3 folds", "2 items, 4 texts", "mAP@R"):
        assert words in page.text, words


def test_ranks_of_every_query_reproduce_the_metrics(project: Path, metrics: dict[str, Any]) -> None:
    for target in TARGETS:
        rows = pd.read_parquet(project / "reports" / "evaluation" / f"{target}.parquet")
        for direction, group in rows.groupby("direction"):
            assert group["query"].is_unique
            expected = metrics[target][str(direction)]["R@5"]
            assert 100 * (group["rank"] <= 5).mean() == pytest.approx(expected, abs=1e-5)


def test_recalls_for_plots_stand_beside_chance(project: Path) -> None:
    table = pd.read_csv(project / "reports" / "evaluation" / "recalls.csv")
    assert list(table) == ["model", "direction", "k", "recall", "chance"]
    assert len(table) == 4 * 2 * 3


def test_classification_is_measured_and_shown_beside_retrieval(metrics: dict[str, Any], page: Page) -> None:
    for key, of_model in ((key, of_model) for key, of_model in metrics.items() if "text" in key):
        scores = of_model["classification"]
        items, classes = {"image-text": (5, 6), "video-text": (3, 3)}[key.removeprefix("pretrained/")]
        assert scores["queries"] == {"items": items, "classes": classes}
        assert scores["chance"] == pytest.approx(
            {
                "acc1": 100 / classes,
                "acc5": min(500 / classes, 100),
                "mean_per_class_recall": 100 / classes,
            },
            abs=1e-5,
        )
        assert scores["acc1"] == scores["mean_per_class_recall"] <= scores["acc5"]  # one item of each class
    assert "Image-text: zero-shot classification by prompts, 5 items, 6 classes" in page.text


def test_the_head_of_a_model_is_measured_by_image_text_and_both(metrics: dict[str, Any], page: Page) -> None:
    assert {key for key, of_model in metrics.items() if "class_head" in of_model} == {"image-text"}
    scores = metrics["image-text"]["class_head"]
    assert scores["queries"] == {"items": 2, "classes": 3}  # green and red: the blue one has no class
    for given in ("image", "text", "both"):
        assert scores[given]["accuracy"] == 50
        assert scores[given]["macro_f1"] == pytest.approx(100 * (2 / 3) / 2, abs=1e-4)
    assert "Image-text: the classification head by image, by text and by both, 2 items, 3 classes" in page.text
    assert scores["most_frequent"]["accuracy"] == 50


def test_recall_by_slices_stands_in_a_file_and_in_the_report(project: Path, page: Page) -> None:
    table = pd.read_csv(project / "reports" / "evaluation" / "slices.csv")
    assert set(table["model"]) == {*TARGETS, *(f"pretrained/{target}" for target in TARGETS)}
    images = table[table["model"] == "image-text"]
    assert set(images["by"]) == {"colour"}  # all captions are of five words
    colours = images.drop_duplicates(["direction", "value"])
    assert colours["direction"].tolist() == ["i2t"] * 2 + ["t2i"] * 2
    assert colours["queries"].tolist() == [1, 1, 2, 2]
    assert "Image-text: recall by slices of the queries" in page.text
    assert f"colour: {colours['value'].iloc[0]}" in page.text


def test_the_filters_hits_are_held_against_the_known_wrong_captions(metrics: dict[str, Any], page: Page) -> None:
    figures = metrics["filter"]
    assert figures["wrong_share"] == figures["recall"] == figures["separation"] == 1
    assert figures["chance"] == pytest.approx(2 / 9, abs=1e-5)
    assert figures["lift"] == pytest.approx(4.5, abs=1e-5)
    assert "4.5 times chance" in page.text
    assert page.text.count("known wrong") == 2


def test_the_run_is_logged_with_its_figures(project: Path) -> None:
    import mlflow

    run_file = json.loads((project / "runs" / "evaluate.json").read_text())
    logged = mlflow.MlflowClient(f"sqlite:///{project / 'mlflow.db'}").get_run(run_file["run_id"]).data.metrics
    assert logged["filter.lift"] == pytest.approx(4.5, abs=1e-5)
    assert "image-text.t2i.R10" in logged


def test_the_page_needs_nothing_but_itself(page: Page) -> None:
    html = page.tags
    links = [value for _, attributes in html for name in ("src", "href") if (value := attributes.get(name))]
    assert links
    assert all(link.startswith(("#", "data:image/")) for link in links)
    assert not page.of("script")
    assert not page.of("link")


def test_the_page_reaches_for_no_outside_host(project: Path) -> None:
    html = (project / "reports" / "index.html").read_text(encoding="utf8")
    assert set(re.findall(r"https?://[^\s\"'<>)]+", html)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert not re.search(r"@import|url\((?!#)", html)


def test_every_image_can_be_decoded_and_has_an_alt_text(page: Page) -> None:
    images = page.of("img")
    assert len(images) > 20
    for image in images:
        assert image["alt"]
        data = base64.b64decode(str(image["src"]).partition(",")[2], validate=True)
        assert str(Image.open(io.BytesIO(data)).width) == image["width"]


def test_ids_are_unique_and_links_within_the_page_arrive(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {str(link["href"])[1:] for link in page.of("a")} <= set(map(str, ids))


def test_texts_of_the_data_are_shown_as_texts(page: Page, project: Path) -> None:
    html = (project / "reports" / "index.html").read_text(encoding="utf8")
    assert "& <plain> image" in page.text
    assert "<plain>" not in html
    assert "12 of 90 bytes <&>" in page.text


def test_the_page_tells_all_that_was_promised(page: Page) -> None:
    for words in (
        "Image-text retrieval",
        "Text to video",
        "Chance",
        "Fine-tuned",
        "Missed: right one at rank",
        "Fine-tuning, video-text",
        "Originals above, reconstructions",
        "Perplexity of the codes",
        "ids are unique",
        "cut short",
        "All parameters",
        "vit_tiny_patch16_224",
        "manifest",
    ):
        assert words in page.text, words


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine: apt-get install chromium")
class TestInABrowser:
    """The page in Chromium."""

    @pytest.mark.parametrize("width", [500, 1200])
    def test_every_image_is_drawn_and_nothing_is_wider_than_the_window(
        self, width: int, project: Path, tmp_path: Path
    ) -> None:
        html = (project / "reports" / "index.html").read_text(encoding="utf8")
        probe = """<script>addEventListener("load", () => {
            const height = document.documentElement.scrollHeight;
            document.querySelectorAll("details").forEach(folded => { folded.open = true; });
            const broken = [...document.images].filter(image => !image.naturalWidth).length;
            const charts = [...document.querySelectorAll("svg")].filter(svg => svg.getBoundingClientRect().height > 99);
            document.body.dataset.seen = JSON.stringify({broken, images: document.images.length, charts: charts.length,
                height, wide: document.documentElement.scrollWidth, window: innerWidth});
        })</script>"""
        (tmp_path / "page.html").write_text(html.replace("</body>", probe + "</body>"), encoding="utf8")
        dom = browse(tmp_path, "--dump-dom", f"--window-size={width},900")
        seen = json.loads(str(Page(dom).of("body")[0]["data-seen"]))
        assert seen["broken"] == 0
        assert seen["images"] > 20
        assert seen["charts"] == 3 * 4 + 2
        assert seen["wide"] <= seen["window"] == width
        assert seen["height"] < 7000  # until someone opens a section; galleries depend on which queries fail

    def test_it_is_light_by_day_and_dark_by_night(self, project: Path, tmp_path: Path) -> None:
        shutil.copy(project / "reports" / "index.html", tmp_path / "page.html")
        ground = {}
        for scheme, number in (("dark", 0), ("light", 1)):
            setting = f"--blink-settings=preferredColorScheme={number}"
            browse(tmp_path, f"--screenshot={tmp_path / scheme}.png", "--window-size=600,800", setting)
            with Image.open(tmp_path / f"{scheme}.png") as shot:
                assert shot.size == (600, 800)
                ground[scheme] = np.asarray(shot.convert("L")).mean()
        assert ground["dark"] < 80
        assert ground["light"] > 200


def browse(folder: Path, *options: str) -> str:
    """Open `page.html` of the folder without a network; returns what the browser prints."""
    quiet = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
        " --disable-component-update --disable-sync --hide-scrollbars --virtual-time-budget=5000"
    )
    command = [
        str(CHROMIUM),
        *quiet.split(),
        f"--user-data-dir={folder / 'browser'}",
        *options,
        f"{folder / 'page.html'}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


@pytest.mark.slow
def test_data_without_known_wrong_captions_has_suspects_and_no_figure(
    tmp_path: Path, tiny_model: Path, other_model: Path, tiny_data: Path, store: str
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    manifest = read_manifest(tiny_data / "manifest.parquet")
    manifest["wrong"] = manifest["wrong"].map(lambda flags: [False] * len(flags))
    manifest.to_parquet(tmp_path / "data" / "manifest.parquet")
    set_up(tmp_path, tiny_model, other_model)
    write_reports(tmp_path / "reports", manifest)
    run(tmp_path, tmp_path / "data", params())
    assert "filter" not in json.loads((tmp_path / "reports" / "metrics.json").read_text())
    assert "No caption of this data is known to be wrong" in (tmp_path / "reports" / "index.html").read_text()


def test_a_split_without_videos_is_noted_and_images_are_measured(
    tmp_path: Path, tiny_model: Path, other_model: Path, tiny_data: Path, store: str
) -> None:
    shutil.copytree(tiny_data, tmp_path / "data")
    manifest = read_manifest(tiny_data / "manifest.parquet")
    manifest[manifest["media"] == "image"].to_parquet(tmp_path / "data" / "manifest.parquet")
    set_up(tmp_path, tiny_model, other_model)
    run(tmp_path, tmp_path / "data", params(split="val"))
    assert set(json.loads((tmp_path / "reports" / "metrics.json").read_text())) == {
        "image-text",
        "pretrained/image-text",
    }
    assert "video-text: split val has no video" in (tmp_path / "reports" / "index.html").read_text()


def test_a_column_that_no_sample_has_is_named(
    tmp_path: Path, tiny_model: Path, other_model: Path, coloured: Path, store: str
) -> None:
    set_up(tmp_path, tiny_model, other_model)
    with pytest.raises(BadInput, match="the samples have no column 'shape': they have colour"):
        run(tmp_path, coloured, params(classification={"column": "shape"}))


def test_an_absent_model_is_named_and_nothing_is_written(
    tmp_path: Path, tiny_model: Path, tiny_data: Path, store: str
) -> None:
    shutil.copytree(tiny_model, tmp_path / "models" / "pretrained")
    with pytest.raises(BadInput, match="finetuned/image-text is not a COTS model"):
        run(tmp_path, tiny_data, params())
    assert not (tmp_path / "reports").exists()
    assert not (tmp_path / "runs" / "evaluate.json").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_several_processes_measure_what_one_measures(
    tmp_path: Path, tiny_model: Path, other_model: Path, coloured: Path, empty_store: Path, fork_python: str
) -> None:
    for name, count in (("one", 1), ("many", 3)):  # two batches of images, one of videos
        project = tmp_path / name
        set_up(project, tiny_model, other_model)
        write_reports(project / "reports", read_manifest(coloured / "manifest.parquet"))
        shutil.copy(empty_store, project / "mlflow.db")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{project / 'mlflow.db'}")
            inputs = files(project, coloured)
            launched(project, count, "evaluate", *inputs, params=params(folds=3, **COLOURS), python=fork_python)
    single, many = (tmp_path / name / "reports" for name in ("one", "many"))
    for target in TARGETS:
        name = f"evaluation/{target}.parquet"
        assert (many / name).read_bytes() == (single / name).read_bytes()
    assert (many / "evaluation/slices.csv").read_bytes() == (single / "evaluation/slices.csv").read_bytes()
    assert _but_speed(many / "metrics.json") == _but_speed(single / "metrics.json")


def _but_speed(metrics: Path) -> dict[str, Any]:
    """Metrics without timings."""

    def without(value: Any) -> Any:
        return {key: without(of) for key, of in value.items() if key != "speed"} if isinstance(value, dict) else value

    measured: dict[str, Any] = without(json.loads(metrics.read_text()))
    return measured
