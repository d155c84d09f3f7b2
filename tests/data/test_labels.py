"""Labels as captions, and captions made from them: in training alone, marked, from a source to evaluation."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from cots.config.params import Params
from cots.data.changes import Change, with_changes
from cots.data.descriptions import Answer, captions_by_label, format_answer, read_answers
from cots.data.manifest import SCHEMA, schema_with, write_table
from cots.data.pairs import PAIR_COLUMNS, drop_rates
from cots.data.quality.suspects import find_suspects
from cots.data.samples import Sample
from cots.data.sources.folder import FolderSourceConfig
from cots.data.verdicts import set_verdict
from cots.errors import BadInput, RunFailed
from cots.stages import evaluate, prepare, validate
from tests.conftest import Encoded

ROOT = Path(__file__).parents[2]
SPLITS = ("train", "train", "val", "val", "test")
LABELS = ("dog", "cat", "dog", "cat", "dog")
MADE = {"dog": ["a photo of a dog.", "It barks."], "cat": ["a photo of a cat."], "fox": ["a photo of a fox."]}


def write_made(folder: Path, made: Mapping[str, Sequence[str]] = MADE, name: str = "made.jsonl") -> None:
    answers = [
        Answer(label=label, prompt="{label}", captions=tuple(texts), when="now") for label, texts in made.items()
    ]
    (folder / name).write_text("".join(map(format_answer, answers)), encoding="utf8")


def read(path: Path, **keys: object) -> dict[str, Sample]:
    values = {"path": path, "caption_column": None, "label_column": "label", **keys}
    return {sample.id: sample for sample in FolderSourceConfig.model_validate(values).read()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, make_image: Encoded) -> Path:
    """Five images with labels alone, of all splits, and captions that were made from labels."""
    folder = tmp_path_factory.mktemp("labels")
    for number in range(5):
        (folder / f"{number}.jpg").write_bytes(make_image(seed=number))
    rows = zip((f"{number}.jpg" for number in range(5)), LABELS, SPLITS, strict=True)
    pd.DataFrame(rows, columns=["image", "label", "split"]).to_csv(folder / "table.csv", index=False)
    (folder / "descriptions").mkdir()
    write_made(folder / "descriptions")
    return folder


@pytest.fixture(scope="module")
def described(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[bool, Path]:
    """The prepared folder: with the captions that were made, and without."""
    out = tmp_path_factory.mktemp("prepared")
    for with_made in (True, False):
        run_prepare(out / str(with_made), params(folder, descriptions="descriptions/made.jsonl" if with_made else None))
    return {with_made: out / str(with_made) for with_made in (True, False)}


def params(folder: Path, **keys: object) -> Params:
    content = Params.load(ROOT / "params.yaml").dump_all()
    source = {"kind": "folder", "path": str(folder), "caption_column": None, "label_column": "label", **keys}
    small = {"evaluate": content["evaluate"] | {"split": "val", "bootstrap_resamples": 20, "num_examples": 2}}
    small["evaluate"] |= {"classification": {"column": "label", "templates": ["{}"]}}
    finetune = {"image-text": content["finetune"]["image-text"]}
    return Params.model_validate(content | small | {"source": source, "finetune": finetune})


def run_prepare(out: Path, chosen: Params, verdicts: Path = ROOT / "verdicts.csv") -> pd.DataFrame:
    outputs = (out / "shards", out / "manifest.parquet", out / "rejected.parquet")
    prepare.stage(chosen.source.path, ROOT / "withdrawn.csv", *outputs, verdicts, params=chosen)
    return pd.read_parquet(outputs[1])


def run_validate(data: Path, chosen: Params, out: Path) -> None:
    tables = (data / "manifest.parquet", data / "rejected.parquet", ROOT / "suspects.csv")
    validate.stage(data / "shards", *tables, out, params=chosen)


def test_a_label_is_a_caption_everywhere_and_what_is_made_of_it_in_training_alone(folder: Path) -> None:
    alone, with_made = read(folder), read(folder, descriptions="descriptions/made.jsonl")
    assert [sample.captions for sample in alone.values()] == [(label,) for label in LABELS]
    assert all(sample.is_made == () for sample in alone.values())
    for sample, label, split in zip(with_made.values(), LABELS, SPLITS, strict=True):
        assert sample.metadata == {"label": label}
        if split == "train":
            assert sample.captions == (label, *MADE[label])
            assert sample.is_made == (False, *(True for _ in MADE[label]))
            assert len(sample.is_mismatched) == len(sample.captions)
        else:
            assert sample == alone[sample.id]


def test_given_captions_replace_the_label_and_keep_their_languages(tmp_path: Path) -> None:
    rows = ["a.jpg,It barks. ,dog,train,en", "b.jpg, ,dog,train,en", "c.jpg,?,,train,", "d.jpg,ein Hund,dog,test,de"]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,label,split,language", *rows]))
    write_made(tmp_path, {"dog": ["It barks.", "a dog"]})
    first, second, third, fourth = read(tmp_path, caption_column="caption", descriptions="made.jsonl").values()
    assert (first.captions, first.is_made, first.languages) == (("It barks. ", "a dog"), (False, True), ("en", ""))
    assert (second.captions, second.is_made, second.languages) == (
        ("dog", "It barks.", "a dog"),
        (False, True, True),
        (),
    )
    assert (third.captions, third.is_made) == (("?",), ())
    assert (fourth.captions, fourth.is_made, fourth.languages) == (("ein Hund",), (), ("de",))


def test_a_row_with_another_label_than_an_earlier_one_of_its_image_is_rejected(tmp_path: Path) -> None:
    rows = ["a.jpg,one,", "a.jpg,two, dog", "b.jpg,three,cat", "a.jpg,four,dog", "a.jpg,five,cat"]
    (tmp_path / "t.csv").write_text("\n".join(["image,caption,label", *rows]))
    *used, rejected = FolderSourceConfig(path=tmp_path, label_column="label").read()
    assert {sample.id: sample.captions for sample in used} == {"a.jpg": ("one", "two", "four"), "b.jpg": ("three",)}
    assert [sample.metadata["label"].strip() for sample in used] == ["dog", "cat"]
    assert (rejected.id, rejected.origin, rejected.captions) == ("a.jpg", "t.csv, line 6", ("five",))
    assert rejected.fault == ("not in the layout", "its label is cat, but an earlier row has dog")
    [plain, _] = FolderSourceConfig(path=tmp_path).read()
    assert plain.captions == ("one", "two", "four", "five")


def test_folders_are_labels_and_above_them_splits(tmp_path: Path) -> None:
    names = {
        "train/dog/a.jpg": "dog",
        "train/dog/deep/b.jpg": "dog",
        "validation/cat/c.jpg": "cat",
        "test/d.jpg": "test",
    }
    for name in [*names, "e.jpg"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    write_made(tmp_path)
    samples = read(tmp_path, descriptions="made.jsonl", holdout={"val": 0, "test": 0})
    assert {name: sample.metadata.get("label") for name, sample in samples.items()} == names | {"e.jpg": None}
    splits = {name: sample.split for name, sample in samples.items()}
    assert splits == dict(zip([*names, "e.jpg"], ["train", "train", "val", "train", "train"], strict=True))
    assert samples["train/dog/a.jpg"].captions == ("dog", *MADE["dog"])
    assert samples["validation/cat/c.jpg"].captions == ("cat",)
    assert samples["e.jpg"].captions == ()


def test_wrong_names_and_files_are_told_in_one_line(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no sample has a label in column klass; its columns are label"):
        read(folder, label_column="klass")
    with pytest.raises(BadInput, match="is not a list of descriptions .*No such file.*cots data describe"):
        read(folder, descriptions="none.jsonl")
    (folder / "descriptions/others.jsonl").write_text(
        '{"label": "yak", "prompt": "", "captions": ["a yak"], "when": ""}'
    )
    with pytest.raises(BadInput, match="describes no label of a training sample, but yak: write it with"):
        read(folder, descriptions="descriptions/others.jsonl")
    for keys, problem in (
        ({"label_column": None}, "name the column with these in label_column"),
        ({"descriptions": "../made.jsonl"}, "name a file below the folder"),
        ({"descriptions": "/made.jsonl"}, "relative to the folder"),
        ({"label_column": "image"}, "'image' is another column already"),
    ):
        with pytest.raises(ValidationError, match=problem):
            read(folder, **{"descriptions": "descriptions/made.jsonl", **keys})
    good = format_answer(Answer(label="a", prompt="{label}", captions=("b",), when="now"))
    for line, problem in (
        (good[:-9], "line 2: .*Invalid JSON"),
        (json.dumps({"label": "a"}), "line 2: prompt Field required"),
        (good.replace('"b"', '"\\ud800"'), "line 2"),
    ):
        (tmp_path / "made.jsonl").write_text(good + line)
        with pytest.raises(BadInput, match=problem):
            read_answers(tmp_path / "made.jsonl")


def test_different_captions_of_a_label_stay_in_their_order() -> None:
    texts = {"p": ("b", "a"), "q": ("a", "c"), "r": ()}
    answers = [Answer(label="x", prompt=prompt, captions=made, when="now") for prompt, made in texts.items()]
    assert captions_by_label(answers) == {"x": ("b", "a", "c")}
    assert len({answer.question for answer in answers}) == 3


def test_the_manifest_marks_them_and_val_and_test_are_the_same_to_the_byte(described: Mapping[bool, Path]) -> None:
    with_made, without = (pd.read_parquet(described[key] / "manifest.parquet") for key in (True, False))
    assert pq.read_schema(described[True] / "manifest.parquet") == schema_with({"made"})
    assert pq.read_schema(described[False] / "manifest.parquet") == SCHEMA
    train = with_made[with_made["split"] == "train"]
    assert [list(made) for made in train["made"]] == [[False, True, True], [False, True]]
    held_out = with_made["split"] != "train"
    assert with_made.loc[held_out, "made"].isna().all()
    pd.testing.assert_frame_equal(with_made[held_out].drop(columns="made"), without[held_out])
    for split in ("val", "test"):
        shards = [sorted((described[key] / "shards" / split).iterdir()) for key in (True, False)]
        assert [file.read_bytes() for file in shards[0]] == [file.read_bytes() for file in shards[1]]


def test_a_rejected_caption_leaves_its_mark_with_it_and_changes_keep_the_others(folder: Path, tmp_path: Path) -> None:
    from cots.data.verdicts import pair_key

    shutil.copy(ROOT / "verdicts.csv", verdicts := tmp_path / "verdicts.csv")
    set_verdict(verdicts, pair_key("0.jpg", "a photo of a dog."), "rejected")
    chosen = params(folder, descriptions="descriptions/made.jsonl")
    manifest = run_prepare(tmp_path / "data", chosen, verdicts).set_index("id")
    assert list(manifest["captions"]["0.jpg"]) == ["dog", "It barks."]
    assert list(manifest["made"]["0.jpg"]) == [False, True]

    samples = read(folder, descriptions="descriptions/made.jsonl").values()
    change = Change(id="0.jpg", captions=("It barks.", "a new one"), number=1)
    changed, _ = next(with_changes(samples, {"0.jpg": change}, tmp_path))
    assert (changed.captions, changed.is_made) == (("It barks.", "a new one"), (True, False))


@pytest.mark.slow
def test_validation_refuses_them_in_val_and_has_no_further_check_without_them(
    described: Mapping[bool, Path], folder: Path, tmp_path: Path
) -> None:
    checks = {}
    for with_made, data in described.items():
        run_validate(data, params(folder), tmp_path / str(with_made))
        summary = json.loads((tmp_path / str(with_made) / "summary.json").read_text())
        checks[with_made] = {check["expectation"] for check in summary["checks"]}
    assert checks[True] - checks[False] == {"val and test have no made captions"}
    data = Path(shutil.copytree(described[True], tmp_path / "data"))
    manifest = pq.read_table(data / "manifest.parquet").to_pylist()
    for row in manifest:
        row["made"] = [True] if row["split"] == "val" else row["made"]
    write_table(data / "manifest.parquet", manifest, schema_with({"made"}))
    with pytest.raises(RunFailed, match=r"val and test have no made captions \(none\): 2 of 5 fail"):
        run_validate(data, params(folder), tmp_path / "refused")


@pytest.mark.slow
def test_nothing_that_evaluate_measures_knows_of_them(
    described: Mapping[bool, Path], folder: Path, tiny_model: Path, store: str, tmp_path: Path
) -> None:
    results = {
        key: run_evaluate(data, tiny_model, params(folder), tmp_path / str(key)) for key, data in described.items()
    }
    metrics, queries = results[True]
    assert metrics["image-text"]["queries"] == {"items": 2, "texts": 2}
    assert "classification" in metrics["image-text"]
    assert metrics == results[False][0]
    pd.testing.assert_frame_equal(queries, results[False][1])


def run_evaluate(data: Path, model: Path, chosen: Params, project: Path) -> tuple[dict[str, Any], pd.DataFrame]:
    """The metrics without times, and the table of queries."""
    for name in ("pretrained", "finetuned/image-text"):
        shutil.copytree(model, project / "models" / name)
    reports, models = project / "reports", project / "models"
    reports.mkdir()
    files = ("headline.json", "metrics.json", "evaluation", "index.html")
    tables = (data / "shards", data / "manifest.parquet", data / "rejected.parquet")
    outputs = (*(reports / file for file in files), project / "runs" / "evaluate.json")
    evaluate.stage(*tables, models / "pretrained", models / "finetuned", reports, *outputs, params=chosen)
    metrics = json.loads((reports / "metrics.json").read_text())
    for of_model in metrics.values():
        of_model.pop("speed", None)
    return metrics, pd.read_parquet(next((reports / "evaluation").rglob("image-text.parquet")))


def test_the_filter_tells_them_from_given_captions() -> None:
    manifest = pd.DataFrame(
        {"id": ["a", "b"], "captions": [["dog", "It barks."], ["cat"]], "made": [[False, True], None]}
    )
    rows = [("a", 0, 0.8, 4, 0), ("a", 1, 0.2, 6, 3), ("b", 0, 0.4, 4, 1)]
    pairs = pd.DataFrame(rows, columns=PAIR_COLUMNS)
    rates = drop_rates(pairs, manifest)
    assert list(rates) == ["given", "made"]
    assert rates["given"] == pytest.approx((2, 0.125, 0.6))
    assert rates["made"] == pytest.approx((1, 0.5, 0.2))
    [suspect] = find_suspects(pairs, manifest).to_dict("records")
    assert (suspect["text"], suspect["made"]) == ("It barks.", True)
    plain = manifest.drop(columns="made")
    assert drop_rates(pairs, plain) == {}
    assert "made" not in find_suspects(pairs, plain)
