"""Files of release 0.1 can still be read; `fixtures/v0_1/make.py` made them.

`batches` holds what the training runs took, recorded from the last loader with their order of samples: since 0.3.0 the
order is another one, and what objectives and optimizer make of the same batches must be the same.
"""

import json
import shutil
import sqlite3
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import load_file

from cots.config.dvae import TrainedDvaeConfig
from cots.config.objective import CotsObjectiveConfig
from cots.config.params import Params
from cots.curves import GRAD_NORM, loss_column
from cots.data.loader import NumpyBatch, TrainLoader
from cots.devices import compute_dtype, default_device
from cots.models.dual_encoder import DualEncoder
from cots.registry.registry import Registry
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import RESULT_MEDIA, Query
from cots.stages import finetune, pretrain
from cots.tracking.loading import load_encoders
from tests.conftest import Cots

OLD = Path(__file__).parent / "fixtures/v0_1"
PROJECT = OLD / "project"
ENCODERS = PROJECT / "models/finetuned/image-text"
ROUNDED = compute_dtype(default_device()) is not torch.float32  # bfloat16, or a GPU's own arithmetic
INTEL = Path("/proc/cpuinfo").is_file() and "GenuineIntel" in Path("/proc/cpuinfo").read_text(encoding="utf8")
OTHER_START = "random weights of one seed are other ones on this processor: no run begins as the old one did"
like_start = pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"), reason=OTHER_START)
same_start = pytest.mark.skipif(not INTEL, reason=OTHER_START)  # to the last bit: trunc_normal_ takes erfinv from MKL
TOKEN_LEVEL = ("bool_masked_pos", "visual_tokens", "mlm_input_ids", "mlm_mask")  # without columns if nothing is masked
RENAMED_WORDS = {"trained", "keys", "queries"}  # values of the old file that have other names now


def expected(name: str) -> Any:
    return json.loads((OLD / "expected" / f"{name}.json").read_text())


def near(actual: object, expected_values: object) -> bool:
    return np.allclose(np.asarray(actual), np.asarray(expected_values), rtol=0, atol=0.03 if ROUNDED else 1e-4)


# Model folder and index


def test_an_old_model_folder_gives_the_vectors_that_it_gave() -> None:
    model, right = DualEncoder.load(ENCODERS), expected("vectors")
    images = [Image.open(PROJECT / "pictures" / f"{number}.jpg").convert("RGB") for number in range(2)]
    texts = list(expected("results")["1"]["any"])
    assert near(model.encode_texts(texts, batch_size=8), right["texts"])
    assert near(model.encode_images(images, batch_size=8), right["pictures"])
    assert near(model.encode_videos([images], batch_size=8), right["clip"])


def test_the_digest_of_an_old_model_folder_is_the_one_that_its_index_names() -> None:
    digest = DualEncoder.load(ENCODERS).digest
    assert digest == expected("vectors")["digest"]
    assert digest == json.loads((PROJECT / "index/index.json").read_text())["encoder"]


def same_results(actual: list[dict[str, Any]], expected_hits: list[dict[str, Any]]) -> None:
    assert near([hit["score"] for hit in actual], [hit["score"] for hit in expected_hits])
    fields = ("rank", "id", "captions", "media", "split", "row")
    if not ROUNDED:
        assert [[hit[name] for name in fields] for hit in actual] == [
            [hit[name] for name in fields] for hit in expected_hits
        ]


@pytest.mark.parametrize("media", RESULT_MEDIA)
def test_an_old_index_gives_the_results_that_it_gave(media: Any) -> None:
    search, right = SearchEngine.load(ENCODERS, PROJECT / "index"), expected("results")["1"][media]
    actual = search([Query(text, 5, media) for text in right], batch_size=8)
    for mine, theirs in zip(actual, right.values(), strict=True):
        same_results(mine, theirs)


# Registry


@pytest.fixture
def old_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A copy of the old store, with paths as if the old release had been used here."""
    with tarfile.open(OLD / "registry.tar.xz") as archive:
        archive.extraction_filter = getattr(tarfile, "data_filter", None)  # since Python 3.11.4
        archive.extractall(tmp_path)
    with sqlite3.connect(tmp_path / "mlflow.db") as store:
        for table, column in (
            ("experiments", "artifact_location"),
            ("runs", "artifact_uri"),
            ("model_versions", "source"),
            ("model_versions", "storage_location"),
        ):
            moved = f"UPDATE {table} SET {column} = replace({column}, 'file:///cots/', ?)"
            store.execute(moved, (f"{tmp_path.as_uri()}/",))
    store.close()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'mlflow.db'}")
    yield Registry()
    mlflow.set_tracking_uri("")


def test_an_old_registry_lists_its_versions_with_aliases_and_tags(old_registry: Registry) -> None:
    versions: list[dict[str, Any]] = [
        {
            "version": version.version,
            "encoders": version.encoders,
            "aliases": sorted(version.aliases),
            "tags": dict(version.tags),
        }
        for version in old_registry.list_versions()
    ]
    assert versions == expected("registry")["versions"]
    assert {alias for version in versions for alias in version["aliases"]} >= {"champion", "previous"}


def test_an_old_registry_lists_every_promotion(old_registry: Registry) -> None:
    names = ("number", "what", "before", "after", "who", "why")
    right = expected("registry")["moves"]
    moves = old_registry.list_promotions()
    assert [(m.number, m.what, m.before, m.after, m.who, m.why) for m in moves] == [
        tuple(move[name] for name in names) for move in right
    ]
    assert [move.when.isoformat() for move in moves] == [move["when"] for move in right]
    assert {move.what for move in moves} == {"promote", "rollback"}


def test_the_champion_of_an_old_registry_moves_on(old_registry: Registry) -> None:
    before = old_registry.list_promotions()
    assert old_registry.get_champion().version == 2
    assert old_registry.rollback(why="the release after") == 1
    assert old_registry.list_promotions()[:-1] == before
    assert old_registry.list_promotions()[-1].before == 2
    assert old_registry.promote(2, why="and back")
    assert old_registry.get_champion().version == 2


def test_two_versions_of_an_old_registry_differ_in_what_was_changed(old_registry: Registry) -> None:
    differences = json.loads(json.dumps(old_registry.diff_versions(1, 2)))
    right = expected("registry")["difference"]
    assert differences["parameters"] == right["parameters"] == {"finetune.image-text.seed": ["0", "1"]}
    assert differences["data"] == right["data"]


def test_encoders_of_an_old_registry_are_loaded(old_registry: Registry) -> None:
    assert load_encoders("models:/cots-encoders/1").digest == expected("vectors")["digest"]


@pytest.mark.parametrize("model", ["models:/cots-index/1", "models:/cots-index@champion"])
def test_a_version_of_an_old_registry_answers_cots_search_as_it_did(
    old_registry: Registry, cots: Cots, model: str
) -> None:
    version = "1" if model.endswith("/1") else str(old_registry.get_champion().version)
    text, right = next(iter(expected("results")[version]["any"].items()))
    code, out, err = cots("search", text, "--model", model, "--k", 5, "--json")
    assert code == 0, err
    same_results(json.loads(out), right)


# Runs that were killed half way


@pytest.fixture
def project(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old project as the working folder."""
    shutil.copytree(PROJECT, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@contextmanager
def old_batches(run: str) -> Iterator[None]:
    """Within this context a training run takes the batches that the order of before version 0.3.0 gave it."""
    with np.load(OLD / "batches" / f"{run}.npz", allow_pickle=False) as stored:
        arrays = {tuple(name.split("/")): stored[name] for name in stored.files}

    def iter_from(loader: TrainLoader, step: int) -> Iterator[NumpyBatch]:
        last = max(int(number) for number, _ in arrays)
        for number in range(step, last + 1):
            batch = {field: array for (of, field), array in arrays.items() if of == str(number)}
            if loader.masking is None:
                batch |= {field: batch[field][:, :0] for field in TOKEN_LEVEL}
            yield NumpyBatch(**batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainLoader, "iter_from", iter_from)
        yield


def run_pretrain(project: Path, out: Path, params: Params) -> None:
    data, report = project / "data", project / "reports/pretrain"
    inputs = (data / "shards", data / "manifest.parquet", data / "tokens", project / "models/tokenizer")
    pretrain.stage(*inputs, out, report, project / "runs/pretrain.json", params=params)


def run_finetune(project: Path, out: Path, params: Params) -> None:
    data, report = project / "data", project / "reports/finetune"
    inputs = (data / "shards", data / "manifest.parquet", data / "tokens", project / "models/pretrained")
    finetune.stage("image-text", *inputs, out, report, project / "runs/finetune.json", params=params)


def flat(weights: dict[str, NDArray[np.float32]], names: list[str]) -> NDArray[np.float32]:
    return np.concatenate([np.asarray(weights[name], np.float32).ravel() for name in names])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "checkpoint", "run", "ended"),
    [
        pytest.param("pretrain", "pretrain.pt", run_pretrain, "models/pretrained", marks=same_start),
        ("finetune", "finetune-image-text.pt", run_finetune, "models/finetuned/image-text"),
    ],
)
def test_a_run_that_was_killed_under_the_old_release_goes_on_to_the_same_end(
    name: str, checkpoint: str, run: Callable[[Path, Path, Params], None], ended: str, project: Path
) -> None:
    (project / "runs/checkpoints").mkdir(parents=True)
    shutil.copy(OLD / "checkpoints" / checkpoint, project / "runs/checkpoints" / checkpoint)
    state = torch.load(OLD / "checkpoints" / checkpoint, map_location="cpu", weights_only=True)["state"]

    with old_batches(name):
        run(project, project / "out", Params.load(project / "params.yaml"))

    curves = pd.read_csv(project / "reports" / name / "curves.csv")
    assert curves["step"].tolist() == list(range(8))
    # How fast the steps before the kill were is known to the checkpoint alone: no step was made anew.
    old_speeds = [row["pairs_per_second"] for row in state["curves"]]
    assert len(old_speeds) == state["step"] == 4
    np.testing.assert_allclose(curves["pairs_per_second"][:4], old_speeds, rtol=1e-5)
    assert curves.drop(columns=GRAD_NORM).notna().all(axis=None)
    assert curves.loc[curves[GRAD_NORM].notna(), "step"].tolist() == [4, 5, 6, 7]  # measured since 0.3.0

    right, actual = (load_file(folder / "model.safetensors") for folder in (PROJECT / ended, project / "out"))
    assert actual.keys() == right.keys()
    names = sorted(right)
    then = {key: value.numpy() for key, value in state["objective"].items() if key in right}
    way = np.linalg.norm(flat(right, names) - flat(then, names))
    assert (
        np.linalg.norm(flat(actual, names) - flat(right, names)) < (0.1 if ROUNDED else 0.005) * way
    )  # measured: 0.03 in bfloat16, else 0
    mine, theirs = (
        pd.read_parquet(folder / "pairs.parquet") for folder in (project / "reports" / name, OLD / "ended" / name)
    )
    pd.testing.assert_frame_equal(mine, theirs, rtol=0.05, atol=0.05)


@pytest.mark.slow
@like_start
@pytest.mark.parametrize("objective", ["cots", "clip", "siglip"])
def test_twenty_steps_of_each_objective_lose_what_they_lost(objective: str, project: Path) -> None:
    with old_batches("pretrain"):
        run_pretrain(project, project / "out", Params.load(OLD / "steps" / f"{objective}.yaml"))
    curves, right = pd.read_csv(project / "reports/pretrain/curves.csv"), expected("losses")[objective]["metrics"]
    losses = {"total", "instance", "token", "task", "masked_views", "contrastive", "sigmoid"} & right.keys()
    assert len(losses) == {"cots": 5, "clip": 2, "siglip": 2}[objective]
    for name in losses:
        actual = curves[loss_column(name)]
        np.testing.assert_allclose(actual, right[name], rtol=0.1 if ROUNDED else 0.01, atol=1e-3, err_msg=name)


# Parameters


def leaves(value: object) -> Iterator[object]:
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from leaves(inner)
    else:
        yield value


@pytest.mark.parametrize("file", sorted(path.relative_to(OLD).as_posix() for path in OLD.rglob("*.yaml")))
def test_every_value_of_an_old_parameter_file_is_kept(file: str) -> None:
    loaded = Params.load(OLD / file).model_dump(mode="json", by_alias=True)
    lost = Counter(leaves(yaml.safe_load((OLD / file).read_text()))) - Counter(leaves(loaded))
    assert set(lost) <= RENAMED_WORDS


def test_an_old_parameter_file_says_what_it_said() -> None:
    params = Params.load(OLD / "params.yaml")
    run, tuned = params.pretrain, params.finetune["video-text"]
    assert (run.batch_size, run.grad_accum_steps, run.warmup_steps) == (128, 1, 50)
    assert (run.gradient_checkpointing, run.fsdp, run.torch_compile) == (False, False, False)
    assert (tuned.batch_size, tuned.steps, tuned.frames, tuned.learning_rate) == (32, 60, 4, 0.0002)
    first, later = run.objective, tuned.objective
    assert isinstance(first, CotsObjectiveConfig)
    assert isinstance(later, CotsObjectiveConfig)
    assert (first.loss_weights.instance, first.loss_weights.token, first.loss_weights.task) == (1.0, 0.5, 0.1)
    assert (first.temperature.init, first.temperature.learnable, first.temperature.min) == (0.07, False, 0.01)
    assert (first.filter.warmup_steps, first.filter.num_std) == (100, 2.0)
    assert (first.mask.patch_ratio, first.mask.min_block, first.mask.mlm_probability) == (0.4, 4, 0.15)
    assert (first.queue_size, first.queue_warmup_steps) == (0, 0)
    assert (later.queue_size, later.queue_warmup_steps) == (512, 100)
    assert (first.in_batch_negatives, later.in_batch_negatives, first.save) == ("online", "momentum", "online")
    assert isinstance(params.dvae, TrainedDvaeConfig)
    assert (params.dvae.codebook_size, params.dvae.width, params.dvae.batch_size) == (256, 32, 64)
    assert (params.tokenize.crops_per_image, params.prepare.max_frames) == (8, 6)
    assert (params.evaluate.num_examples, params.evaluate.bootstrap_resamples) == (8, 1000)
    index, gate, drift = params.index, params.gate, params.drift
    assert (index.factory, index.target_recall, index.max_memory_gb, index.thumbnail_size) == ("auto", 0.95, None, 128)
    assert (gate.must_improve, gate.non_inferiority_margin, gate.max_champion_drop) == ("both", 5.0, 10.0)
    assert (gate.max_latency_ms, gate.bootstrap_resamples) == (50.0, 1000)
    assert (drift.max_queries, drift.min_rows, drift.max_rows) == (10000, 100, 500)
    assert (drift.alpha, drift.min_mmd2, drift.max_oov) == (0.01, 0.02, 0.1)
