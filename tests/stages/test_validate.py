import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from cots.config.params import Params
from cots.data.manifest import REJECTED_SCHEMA, SCHEMA, schema_with, write_table
from cots.data.samples import RejectReason
from cots.data.verdicts import pair_key, set_verdict
from cots.errors import BadInput, RunFailed
from cots.stages import prepare, validate

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
Encoded = Callable[..., bytes]
Rows = list[dict[str, Any]]


def params(**limits: float) -> Params:
    content = yaml.safe_load((ROOT / "params.yaml").read_text())
    content["source"] = {"kind": "folder", "path": "source", "seed": 0, "holdout": {"val": 0, "test": 0}}
    content["prepare"] |= {"size": 32, "min_side": 16, "samples_per_shard": 4}
    content["validate"] |= {
        "max_duplicates": 0.1,
        "max_leakage": 0.1,
        "sampled_shards": 10,
        "max_caption_words": 5,
    } | limits
    content["evaluate"]["split"] = "test"
    return Params.model_validate(content)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, make_image: Encoded) -> Path:
    """Output of `prepare` for twenty images, ten of them for training; not to be written to."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("sound")
    splits = ["train"] * 10 + ["val"] * 5 + ["test"] * 5
    rows = [f"{i}.jpg,caption {i},{split}" for i, split in enumerate(splits)]
    (source / "captions.csv").write_text("\n".join(["image,caption,split", *rows]))
    for i in range(20):
        (source / f"{i}.jpg").write_bytes(make_image(seed=i))
    prepare.stage(
        source,
        ROOT / "withdrawn.csv",
        out / "shards",
        out / "manifest.parquet",
        out / "rejected.parquet",
        params=params(),
    )
    return out


@pytest.fixture
def data(tmp_path: Path, sound: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(sound, tmp_path / "data"))


def run_validation(data: Path, **limits: float) -> dict[str, Any]:
    """The summary of a run that passes."""
    out = data / "validation"
    listed = data / "suspects.csv"
    if not listed.exists():
        shutil.copy(ROOT / "suspects.csv", listed)
    tables = (data / "manifest.parquet", data / "rejected.parquet", listed)
    validate.stage(data / "shards", *tables, out, data / "verdicts.csv", params=params(**limits))
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


def validation_error(data: Path) -> str:
    """The error of a failing run; its summary must name the same expectations."""
    with pytest.raises(RunFailed) as raised:
        run_validation(data)
    message = str(raised.value)
    summary = json.loads((data / "validation/summary.json").read_text())
    assert not summary["success"]
    failing = [check["expectation"] for check in summary["checks"] if not check["success"]]
    assert all(name in message for name in failing)
    assert message.startswith(f"{len(failing)} of {len(summary['checks'])} expectations are not met")
    assert "\n" not in message
    return message


def edit(data: Path, change: Callable[[Rows], object]) -> None:
    rows = pq.read_table(data / "manifest.parquet").to_pylist()
    change(rows)
    write_table(data / "manifest.parquet", rows, SCHEMA)


def test_sound_data_passes_and_every_figure_of_the_summary_is_right(data: Path) -> None:
    summary = run_validation(data)
    assert summary["success"]
    assert all(check["success"] for check in summary["checks"])
    assert len(summary["checks"]) >= 20
    assert summary["overview"]["samples"] == {"train image": 10, "val image": 5, "test image": 5}
    assert summary["overview"]["captions"] == summary["overview"]["samples opened in shards"] == 20
    assert (data / "validation/docs/index.html").is_file()


def test_captions_that_a_filter_distrusts_are_held_against_their_limit(data: Path) -> None:
    rows = ["id,caption,text,score,seen,dropped", "3.jpg,0,caption 3,-0.1,4,4"]
    (data / "suspects.csv").write_text("\n".join(rows))
    assert run_validation(data)["success"]
    (data / "suspects.csv").write_text("\n".join([*rows, "4.jpg,0,caption 4,-0.2,4,4"]))
    assert "distrusted by a trained filter (at most 5.00%): 2 of 20" in validation_error(data)


def test_captions_that_people_judged_count_no_more(data: Path) -> None:
    rows = [f"{number}.jpg,0,caption {number},-0.1,4,4" for number in (3, 4)]
    (data / "suspects.csv").write_text("\n".join(["id,caption,text,score,seen,dropped", *rows]))
    set_verdict(data / "verdicts.csv", pair_key("3.jpg", "caption 4"), "accepted")  # another pair
    assert "2 of 20" in validation_error(data)
    set_verdict(data / "verdicts.csv", pair_key("4.jpg", "caption 4"), "accepted")
    assert run_validation(data)["success"]


def test_the_summary_is_the_same_for_the_same_data(data: Path) -> None:
    texts = []
    for _ in range(2):
        run_validation(data)
        texts.append((data / "validation/summary.json").read_bytes())
    assert texts[0] == texts[1]


def test_every_kind_of_wrong_row_is_named_in_words(data: Path) -> None:
    faults: list[tuple[str, object, str]] = [
        ("key", "1", "keys have nine digits or more (all): 1 of 20 fail, such as 1;"),
        ("key", "000000009", "keys are unique"),
        ("id", "9.jpg", "ids are unique"),
        ("split", "dev", "splits are known (train, val, test, gallery): 1 of 20 fail, such as dev;"),
        ("media", "sound", "media are known"),
        (
            "captions",
            ["1 2 3 4 5 6"],
            "captions are short (at most 5 words, but for 2.00% of the samples): 1 of 20 fail, such as 6;",
        ),
        ("captions", ["  "], "no caption is blank"),
        ("captions", ["a", "b"], "every caption is flagged as right or wrong"),
        ("captions", [], "every sample of a split has a caption (all): 1 of 20 fail"),
        ("width", 15, "images are wide enough (at least 16 pixels): 1 of 20 fail, such as 15;"),
        ("height", 15, "images are high enough"),
        ("width", 10_000_000, "images are not too large"),
        ("frames", 0, "samples have frames"),
        ("bytes", 0, "no sample is empty"),
        ("wrong", [True], "val and test have no wrong captions (none): 1 of 20 fail"),
    ]
    edit(data, lambda rows: [rows[i].update({name: value}) for i, (name, value, _) in enumerate(faults)])
    message = validation_error(data)
    assert [words for _, _, words in faults if words not in message] == []


def test_a_wrong_caption_is_borne_in_train(data: Path) -> None:
    edit(data, lambda rows: rows[0].update(wrong=[True]))
    assert run_validation(data)["overview"]["wrong captions"] == 1


def test_a_part_that_is_needed_and_empty_fails(data: Path) -> None:
    edit(data, lambda rows: [row.update(split="val") for row in rows if row["split"] == "test"])
    assert "(test image, train image): missing or unknown: ['test image']" in validation_error(data)


def test_videos_alone_do_not_serve_a_target_that_needs_images(data: Path) -> None:
    edit(data, lambda rows: [row.update(media="video") for row in rows])
    message = validation_error(data)
    assert "no part that index.target needs is empty (test image, train image): missing or unknown" in message


def outcome_of(data: Path, expectation: str, **limits: float) -> tuple[bool, str]:
    """Result and observation of one expectation."""
    with suppress(RunFailed):
        run_validation(data, **limits)
    summary = json.loads((data / "validation/summary.json").read_text())
    (check,) = [check for check in summary["checks"] if check["expectation"] == expectation]
    return check["success"], check["observed"]


def test_long_captions_are_borne_up_to_their_limit(data: Path) -> None:
    edit(data, lambda rows: rows[0].update(captions=["1 2 3 4 5 6"]))
    assert outcome_of(data, "captions are short", max_long_captions=0.05)[0]
    assert not outcome_of(data, "captions are short", max_long_captions=0.04)[0]


@pytest.mark.parametrize(
    ("first", "last", "expectation", "of"),
    [(0, 9, "images do not repeat within a split", 20), (10, 0, "val and test images do not occur in train", 10)],
)
def test_shares_are_borne_up_to_their_limit_and_fail_above_it(
    data: Path, first: int, last: int, expectation: str, of: int
) -> None:
    most = of // 10

    def spread(rows: Rows, number: int) -> None:
        for row in rows[first : first + number]:
            row["pixel_hash"] = rows[last]["pixel_hash"]

    edit(data, lambda rows: spread(rows, most))
    assert outcome_of(data, expectation) == (True, f"{most} of {of} fail")
    edit(data, lambda rows: spread(rows, most + 1))
    assert outcome_of(data, expectation) == (False, f"{most + 1} of {of} fail")


def test_an_image_that_only_looks_like_one_in_train_is_counted_and_fails_nothing(data: Path) -> None:
    edit(data, lambda rows: rows[15].update(dhash=rows[0]["dhash"]))
    assert run_validation(data)["overview"]["val and test pictures that look like one in train (2 of 64 bits)"] == 1


def test_a_shard_that_is_not_what_the_manifest_says_fails_with_what_differs(data: Path) -> None:
    (data / "shards/train/image-00001.tar").unlink()
    message = validation_error(data)
    assert "shards hold what the manifest names (all that were opened): 4 of 20 fail" in message
    assert "no shard" in message
    assert "image-00001.tar" in message


def test_a_reject_of_an_unknown_reason_fails(data: Path) -> None:
    reject: dict[str, object] = {
        "id": "x",
        "split": "train",
        "origin": "here",
        "reason": "bad weather",
        "detail": "rain",
    }
    write_table(data / "rejected.parquet", [reject, reject | {"reason": "too small"}], REJECTED_SCHEMA)
    number = len(get_args(RejectReason))
    assert f"known reason ({number} reasons): 1 of 2 fail, such as bad weather" in validation_error(data)


def test_a_manifest_of_other_columns_or_none_is_reported(data: Path) -> None:
    table = pq.read_table(data / "manifest.parquet")
    pq.write_table(table.append_column("extra", pa.array(np.arange(20))), data / "manifest.parquet")
    with pytest.raises(BadInput, match="other columns"):
        run_validation(data)
    (data / "manifest.parquet").unlink()
    with pytest.raises(BadInput, match="no manifest"):
        run_validation(data)


def test_a_manifest_with_the_languages_of_its_captions_is_validated(data: Path) -> None:
    table = pq.read_table(data / "manifest.parquet")
    languages = [["en"] * len(captions) for captions in table["captions"].to_pylist()]
    pq.write_table(
        table.append_column(schema_with({"languages"}).field("languages"), [languages]), data / "manifest.parquet"
    )
    assert pq.read_schema(data / "manifest.parquet").equals(schema_with({"languages"}))
    run_validation(data)


def test_a_missing_table_of_rejects_is_reported(data: Path) -> None:
    (data / "rejected.parquet").unlink()
    with pytest.raises(BadInput, match="no table of rejected samples"):
        run_validation(data)
