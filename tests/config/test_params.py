"""`params.yaml`: defaults, files of release 0.1, and messages that name every mistake with its path."""

import logging
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cots.config.params import Params
from cots.config.renamed import RENAMED, dump_for_fingerprint, find_old_names
from cots.config.sections import Sections, section_names
from cots.config.stages.evaluate import EvaluateParams
from cots.config.stages.finetune import FinetuneParams
from cots.config.stages.index import IndexParams
from cots.config.stages.package import PackageParams
from cots.config.stages.prepare import PrepareParams
from cots.config.stages.pretrain import PretrainParams
from cots.config.stages.tokenize import TokenizeParams
from cots.config.stages.train_dvae import TrainDvaeParams
from cots.config.stages.validate import ValidateParams
from cots.config.training import TrainConfig
from cots.config_base import Config
from cots.errors import BadInput
from cots.models.dual_encoder import UNTRAINED

ROOT = Path(__file__).parents[2]
OTHER_LEVELS = {"instance": 0, "task": 0, "masked_views": 0}
RELEASE_0_1 = ROOT / "tests/fixtures/v0_1/params.yaml"
STAGE_PARAMS: dict[str, type[Sections]] = {
    "prepare": PrepareParams,
    "validate": ValidateParams,
    "train_dvae": TrainDvaeParams,
    "tokenize": TokenizeParams,
    "pretrain": PretrainParams,
    "finetune": FinetuneParams,
    "evaluate": EvaluateParams,
    "index": IndexParams,
    "package": PackageParams,
}


def error_message(tmp_path: Path, values: object, sections: type[Sections] = Params) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BadInput) as raised:
        sections.load(path)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def old_values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(RELEASE_0_1.read_text())
    return loaded


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return loaded


# --- defaults


def configs(kind: type[Config] = Config) -> Iterator[type[Config]]:
    for subclass in kind.__subclasses__():
        yield subclass
        yield from configs(subclass)


def test_every_key_has_a_description_and_all_but_two_have_a_default() -> None:
    keys = [(kind, name, field) for kind in configs() for name, field in kind.model_fields.items()]
    assert len(keys) > 130
    assert [f"{kind.__name__}.{name}" for kind, name, field in keys if not field.description] == []
    required = {name for _, name, field in keys if field.is_required()}
    assert required == {"path", "sha256"}


def test_an_empty_file_has_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}")
    assert Params.load(tmp_path / "params.yaml") == Params()


def test_a_missing_key_has_the_default_of_the_field_that_holds_it() -> None:
    params = Params.model_validate(
        {
            "source": {"videos": {"train": 7}},
            "finetune": {"image-text": {"objective": {"momentum": 0.5, "filter": {"momentum": 0.6}}}},
        }
    )
    default = Params()
    assert params.source.model_dump() == default.source.model_dump() | {
        "videos": {"train": 7, "val": 50, "test": 100},
    }
    before, after = default.finetune["image-text"].objective, params.finetune["image-text"].objective
    assert after.model_dump() == before.model_dump() | {
        "momentum": 0.5,
        "filter": {"warmup_steps": 20, "num_std": 2.0, "momentum": 0.6},
    }


def test_another_kind_has_its_own_defaults() -> None:
    params = Params.model_validate({"pretrain": {"objective": {"kind": "siglip"}}})
    objective = params.pretrain.objective
    assert objective.kind == "siglip"
    assert (objective.temperature.init, objective.temperature.learnable, objective.bias) == (0.1, True, -10.0)


# --- files of release 0.1


def test_a_file_of_0_1_0_has_the_values_of_the_current_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        stored = Params.load(RELEASE_0_1)
    committed = Params.load(ROOT / "params.yaml")
    pixels = {name: UNTRAINED[name] for name in ("mean", "std")}  # null since 0.3.0, which stands for these
    image = committed.model.image.model_copy(update=pixels)
    assert stored == committed.model_copy(update={"model": committed.model.model_copy(update={"image": image})})
    renamed = dict(find_old_names(old_values()))
    assert len(renamed) > 60
    assert len(caplog.messages) == len(renamed)
    for old, current in renamed.items():
        assert f"{RELEASE_0_1}: {old} is now called {current} (cots init --upgrade)" in caplog.messages


def test_a_file_with_current_names_is_read_without_warnings(caplog: pytest.LogCaptureFixture) -> None:
    Params.load(ROOT / "params.yaml")
    assert caplog.messages == []


def test_a_stage_is_warned_only_about_its_own_sections(caplog: pytest.LogCaptureFixture) -> None:
    TokenizeParams.load(RELEASE_0_1)
    assert sorted(message.split()[1] for message in caplog.messages) == ["tokenize.batch", "tokenize.views"]


def test_an_empty_name_is_no_class_column() -> None:
    with pytest.raises(ValidationError, match="class_column"):
        Params.model_validate({"pretrain": {"objective": {"class_column": ""}}})


def test_old_values_are_accepted_only_under_old_names() -> None:
    objective = {"batch_negatives": "queries", "keep": "momentum"}
    parsed = Params.model_validate({"pretrain": {"objective": objective}}).pretrain.objective.model_dump()
    assert (parsed["in_batch_negatives"], parsed["save"]) == ("online", "ema")
    with pytest.raises(ValidationError, match="in_batch_negatives"):
        Params.model_validate({"pretrain": {"objective": {"in_batch_negatives": "queries"}}})


def test_a_key_under_both_names_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["batch"] = 3
    assert "pretrain.batch: Extra inputs are not permitted" in error_message(tmp_path, values)


def test_no_old_name_is_the_current_name_of_a_neighbouring_key() -> None:
    for path, keys in RENAMED.items():
        assert not keys.keys() & set(keys.values()), path
        assert len(set(keys.values())) == len(keys), path


# --- fingerprints


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ("pretrain", lambda params: params.pretrain),
        ("finetune.*", lambda params: params.finetune["image-text"]),
        ("finetune.*", lambda params: params.finetune["video-text"]),
        ("dvae", lambda params: params.dvae),
        ("tokenize", lambda params: params.tokenize),
        ("model", lambda params: params.model),
    ],
)
def test_fingerprints_use_the_keys_and_values_of_0_1_0(path: str, section: Any) -> None:
    params = Params.load(RELEASE_0_1)
    dumped = dump_for_fingerprint(section(params), path)
    targets = params.finetune if path == "finetune.*" else {path: None}
    expected = [old_values()["finetune"][name] if path == "finetune.*" else old_values()[path] for name in targets]
    assert dumped in expected


def test_a_later_key_changes_a_fingerprint_only_if_it_differs_from_its_default() -> None:
    from pydantic import Field

    class Later(TrainConfig):
        nesterov: bool = Field(default=False, description="Nesterov momentum.", json_schema_extra={"since": "0.2.0"})

    before = dump_for_fingerprint(TrainConfig(), "pretrain")
    assert dump_for_fingerprint(Later(), "pretrain") == before
    assert dump_for_fingerprint(Later(nesterov=True), "pretrain") == before | {"nesterov": True}


def test_every_key_that_0_1_0_lacks_has_a_since() -> None:
    """Otherwise an upgrade would invalidate the checkpoints of all unfinished runs."""
    missing = []
    for path, section in (("pretrain", Params().pretrain), ("dvae", Params().dvae), ("tokenize", Params().tokenize)):
        missing += [f"{path}.{key}" for key in dump_for_fingerprint(section, path) if key not in old_values()[path]]
    assert missing == []


# --- sections of a stage


@pytest.mark.parametrize("stage", sorted(STAGE_PARAMS))
def test_a_stage_refuses_unknown_keys_in_its_sections_and_ignores_others(
    tmp_path: Path, values: dict[str, Any], stage: str
) -> None:
    own = section_names(STAGE_PARAMS[stage])
    if stage != "prepare":
        own = [name for name in own if name != "source"]  # others show it as the file says it
    for name, section in values.items():
        mapping = section["image-text"] if name == "finetune" else section
        mapping["unknown"] = 1
    message = error_message(tmp_path, values, STAGE_PARAMS[stage])
    assert f"{len(own)} mistake(s)" in message
    for name in own:
        assert f"{name}." in message
    assert STAGE_PARAMS[stage].model_validate({name: {} for name in own if name != "finetune"} | {"unknown": 1})


def test_a_stage_reads_the_sections_that_dvc_yaml_lists() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert pipeline.keys() == STAGE_PARAMS.keys()
    for name, stage in pipeline.items():
        listed = {key.partition(".")[0] for key in stage.get("do", stage)["params"]}
        assert listed == set(section_names(STAGE_PARAMS[name])), name


@pytest.mark.parametrize("stage", sorted(STAGE_PARAMS))
def test_the_whole_file_is_usable_as_the_parameters_of_a_stage(stage: str) -> None:
    assert issubclass(Params, STAGE_PARAMS[stage])


def test_kinds_of_a_section_are_distinguished_by_one_key() -> None:
    for name in ("source", "dvae"):
        kinds = typing.get_args(Params.model_fields[name].annotation)
        defaults = [kind.model_fields["kind"].default for kind in kinds]
        assert len(set(defaults)) == len(kinds)


# --- mistakes


def test_all_unknown_and_wrong_keys_are_named_in_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["stpes"] = 3
    values["indx"] = {}
    values["prepare"]["max_rejected"] = 1.5
    values["source"] = {"kind": "folder"}
    message = error_message(tmp_path, values)
    for path in ("pretrain.stpes", "indx", "prepare.max_rejected", "source.folder.path"):
        assert path in message
    assert "4 mistake(s)" in message


def test_rules_across_fields_name_both_values(tmp_path: Path, values: dict[str, Any]) -> None:
    values["model"]["image"] |= {"size": 60, "patch": 8}
    assert "60 is not a multiple of patch 8" in error_message(tmp_path, values)


def test_a_deployed_target_must_be_trained(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["finetune"]["image-text"]
    assert "'image-text' is not a key of finetune" in error_message(tmp_path, values)


def test_the_gate_accepts_only_directions_of_the_deployed_target(tmp_path: Path, values: dict[str, Any]) -> None:
    values["gate"]["must_improve"] = "v2t"
    assert "gate.must_improve v2t is not a direction of index.target image-text" in error_message(tmp_path, values)


@pytest.mark.parametrize("factory", ["nonsense", "", "PQ100", "HNSW32,PQ16", "flat"])
def test_an_index_that_faiss_cannot_build_is_refused_before_anything_is_trained(
    tmp_path: Path, values: dict[str, Any], factory: str
) -> None:
    values["index"]["factory"] = factory
    assert f"index.factory: FAISS cannot create {factory!r}" in error_message(tmp_path, values).replace(
        "supports", "cannot create"
    )


@pytest.mark.parametrize("factory", ["auto", "Flat", "IVF256,Flat", "HNSW32", "OPQ4,IVF4,PQ4x4,RFlat"])
def test_an_index_that_faiss_can_build_is_accepted(values: dict[str, Any], factory: str) -> None:
    values["index"]["factory"] = factory
    assert Params.model_validate(values).index.factory == factory


def test_a_dvae_whose_batches_have_a_single_token_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["model"]["image"] |= {"size": 8, "patch": 8}
    values["finetune"]["image-text"]["size"] = values["finetune"]["video-text"]["size"] = 8
    assert Params.model_validate(values).model.image.grid == 1
    values["dvae"]["batch_size"] = 1
    assert "dvae.batch_size 1 with a single patch" in error_message(tmp_path, values)


def test_a_run_that_would_learn_nothing_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["loss_weights"] = {"instance": 0, "token": 0, "task": 0, "masked_views": 0}
    assert "nothing would be learnt" in error_message(tmp_path, values)


def test_gradients_are_not_accumulated_if_negatives_have_a_gradient(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"] |= {"grad_accum_steps": 4}
    values["pretrain"]["objective"] |= {"in_batch_negatives": "online"}
    assert "needs the whole batch" in error_message(tmp_path, values)


def test_the_token_level_is_refused_at_another_image_size(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["image-text"]
    run |= {
        "size": 96,
        "objective": run["objective"] | {"loss_weights": {"instance": 1, "token": 1, "task": 0, "masked_views": 0}},
    }
    assert "tokens are of images of 64 pixels, size is 96" in error_message(tmp_path, values)
    values["finetune"]["image-text"] |= {"size": 100}
    assert "100 is not a multiple" in error_message(tmp_path, values)


def test_the_token_level_needs_one_frame_and_masked_views_do_not(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["video-text"]
    assert run["frames"] > 1
    run["objective"]["loss_weights"] = {"instance": 1, "token": 0, "task": 0, "masked_views": 1}
    assert Params.model_validate(values).finetune["video-text"].objective.masked
    run["objective"]["loss_weights"]["token"] = 1
    assert f"loss_weights.token is not 0 with {run['frames']} frames" in error_message(tmp_path, values)


def test_a_baseline_refuses_parameters_of_other_objectives(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"] |= {"kind": "clip"}
    assert "pretrain.objective.clip.queue_size" in error_message(tmp_path, values)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("source.seed", -1, "greater than or equal to 0"),
        ("pretrain.seed", 2**70, "less than 4294967296"),
        ("pretrain.learning_rate", float("inf"), "finite number"),
        ("gate.non_inferiority_margin", float("nan"), "finite number"),
        ("model.image.std", [0.0, 0.2, 0.2], "greater than 0"),
        ("model.image.mean", [float("inf"), 0.2, 0.2], "finite number"),
        ("pretrain.objective.filter.momentum", 1.0, "less than 1"),
    ],
)
def test_a_value_that_cannot_be_right_is_refused(
    tmp_path: Path, values: dict[str, Any], path: str, value: object, said: str
) -> None:
    *sections, key = path.split(".")
    section = values
    for name in sections:
        section = section[name]
    section[key] = value
    message = error_message(tmp_path, values)
    assert "1 mistake(s)" in message
    assert path.rpartition(".")[2] in message
    assert said in message


def test_a_run_whose_pairs_never_meet_a_negative_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["pretrain"]
    run["objective"] |= {"in_batch_negatives": "none", "queue_size": 0}
    assert "in_batch_negatives none with queue_size 0: without negatives" in error_message(tmp_path, values)
    run["objective"] |= {"queue_size": 8, "queue_warmup_steps": run["steps"]}
    assert f"queue_warmup_steps {run['steps']} of {run['steps']} steps" in error_message(tmp_path, values)
    run["objective"] |= {"queue_size": 0, "queue_warmup_steps": 0, "loss_weights": {"token": 1} | OTHER_LEVELS}
    assert Params.model_validate(values).pretrain.objective.masked


def test_a_temperature_below_its_minimum_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["temperature"] = {"init": 0.005, "learnable": True, "min": 0.01}
    assert "init 0.005 is below min 0.01" in error_message(tmp_path, values)


def test_the_message_about_an_unknown_source_names_those_that_exist(tmp_path: Path, values: dict[str, Any]) -> None:
    values["source"] = {"kind": "ftp", "path": "x"}
    message = error_message(tmp_path, values)
    assert "karpathy" in message
    assert "folder" in message


def test_keys_of_trained_and_imported_dvaes_do_not_mix(tmp_path: Path, values: dict[str, Any]) -> None:
    imported = {"kind": "openai", "path": "weights", "sha256": "0" * 64}
    assert Params.model_validate(values | {"dvae": imported}).dvae.codebook_size == 8192
    assert "dvae.openai.steps" in error_message(tmp_path, values | {"dvae": imported | {"steps": 5}})
    assert "dvae.openai.sha256" in error_message(tmp_path, values | {"dvae": imported | {"sha256": "12"}})
    assert "dvae.train.path" in error_message(tmp_path, values | {"dvae": values["dvae"] | {"path": "weights"}})


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "", "\x00"])
def test_a_file_that_is_not_a_parameter_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"params\.yaml"):
        Params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("index: {}\nprepare: {}\nindex: {}\n", "params.yaml, line 3: index is there a second time, first in line 1"),
        ("gate:\n  seed: 1\n  min_recall: 0\n  seed: 2\n", "line 4: seed is there a second time, first in line 2"),
        ("gate: {seed: 1, seed: 2}", "line 1: seed is there a second time, first in line 1"),
        ("model: {image: {options: &a {depth: *a}}}", "params.yaml, line 1: found unconstructable recursive node"),
        ("index: " + "[" * 3000, "not YAML: more than 100 levels"),
        ("index: " + "[" * 100_000 + "]" * 100_000, "not YAML: more than 100 levels"),
        ("gate: {seed: 2024-13-45}", "not YAML: month must be in 1..12"),
        ("gate: {seed: !!int a}", "not YAML: invalid literal"),
        ("gate:\n  seed: [1\n", "params.yaml, line 3: did not find expected ',' or ']'"),
    ],
)
def test_what_yaml_allows_but_no_parameter_file_means_is_refused_with_its_line(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput) as raised:
        Params.load(tmp_path / "params.yaml")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_mappings_may_share_keys(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("gate: &seeded {seed: 3}\ndrift: {<<: *seeded, max_rows: 7}\n")
    params = Params.load(tmp_path / "params.yaml")
    assert (params.gate.seed, params.drift.seed, params.drift.max_rows) == (3, 3, 7)


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cots init"):
        Params.load(tmp_path / "params.yaml")
