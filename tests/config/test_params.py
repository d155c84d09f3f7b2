"""`params.yaml`: defaults, files of before, and every mistake told at once, with its path."""

import logging
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from cots.config.params import Params
from cots.config.renamed import RENAMED, dump_for_fingerprint, first_names_used
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

ROOT = Path(__file__).parents[2]
FIRST = ROOT / "tests/fixtures/v0_1/params.yaml"
OF_STAGES: dict[str, type[Sections]] = {
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


def refused(tmp_path: Path, values: object, sections: type[Sections] = Params) -> str:
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(BadInput) as told:
        sections.load(path)
    assert "\n" not in str(told.value)
    return str(told.value)


def first_values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(FIRST.read_text())
    return loaded


@pytest.fixture
def values() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    return loaded


# --- defaults


def configs(kind: type[Config] = Config) -> Iterator[type[Config]]:
    for below in kind.__subclasses__():
        yield below
        yield from configs(below)


def test_every_key_says_what_it_means_and_has_a_default_but_for_what_only_you_know() -> None:
    keys = [(kind, name, field) for kind in configs() for name, field in kind.model_fields.items()]
    assert len(keys) > 130
    assert [f"{kind.__name__}.{name}" for kind, name, field in keys if not field.description] == []
    required = {name for _, name, field in keys if field.is_required()}
    assert required == {"path", "sha256"}


def test_an_empty_file_is_one_of_defaults(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("{}")
    assert Params.load(tmp_path / "params.yaml") == Params()


def test_a_key_that_is_left_out_has_the_default_of_its_place() -> None:
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


def test_another_kind_starts_from_its_own_defaults() -> None:
    params = Params.model_validate({"pretrain": {"objective": {"kind": "siglip"}}})
    objective = params.pretrain.objective
    assert objective.kind == "siglip"
    assert (objective.temperature.init, objective.temperature.learnable, objective.bias) == (0.1, True, -10.0)


# --- files of before


def test_a_file_of_0_1_0_has_the_values_of_the_present_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert Params.load(FIRST) == Params.load(ROOT / "params.yaml")
    used = dict(first_names_used(first_values()))
    assert len(used) > 60
    assert len(caplog.messages) == len(used)
    for first, present in used.items():
        assert f"{FIRST}: {first} is now called {present} (cots init --upgrade)" in caplog.messages


def test_a_file_under_present_names_is_read_without_a_word(caplog: pytest.LogCaptureFixture) -> None:
    Params.load(ROOT / "params.yaml")
    assert caplog.messages == []


def test_a_stage_is_told_of_its_own_sections_alone(caplog: pytest.LogCaptureFixture) -> None:
    TokenizeParams.load(FIRST)
    assert sorted(message.split()[1] for message in caplog.messages) == ["tokenize.batch", "tokenize.views"]


def test_values_of_before_are_read_under_their_first_keys_alone() -> None:
    objective = {"batch_negatives": "queries", "keep": "momentum"}
    read = Params.model_validate({"pretrain": {"objective": objective}}).pretrain.objective.model_dump()
    assert (read["in_batch_negatives"], read["save"]) == ("online", "ema")
    with pytest.raises(ValidationError, match="in_batch_negatives"):
        Params.model_validate({"pretrain": {"objective": {"in_batch_negatives": "queries"}}})


def test_both_names_of_a_key_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["batch"] = 3
    assert "pretrain.batch: Extra inputs are not permitted" in refused(tmp_path, values)


def test_no_first_name_is_the_present_one_of_another_key_beside_it() -> None:
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
def test_a_fingerprint_is_taken_of_the_keys_and_values_of_0_1_0(path: str, section: Any) -> None:
    params = Params.load(FIRST)
    dumped = dump_for_fingerprint(section(params), path)
    targets = params.finetune if path == "finetune.*" else {path: None}
    known = [first_values()["finetune"][name] if path == "finetune.*" else first_values()[path] for name in targets]
    assert dumped in known


def test_a_later_key_is_part_of_a_fingerprint_where_it_has_not_its_default() -> None:
    from pydantic import Field

    class Later(TrainConfig):
        nesterov: bool = Field(default=False, description="Of AdamW.", json_schema_extra={"since": "0.2.0"})

    before = dump_for_fingerprint(TrainConfig(), "pretrain")
    assert dump_for_fingerprint(Later(), "pretrain") == before
    assert dump_for_fingerprint(Later(nesterov=True), "pretrain") == before | {"nesterov": True}


def test_every_key_that_0_1_0_lacks_says_since_when() -> None:
    """Without it, every checkpoint half way through a run would be thrown away by the upgrade."""
    lacking = []
    for path, section in (("pretrain", Params().pretrain), ("dvae", Params().dvae), ("tokenize", Params().tokenize)):
        lacking += [f"{path}.{key}" for key in dump_for_fingerprint(section, path) if key not in first_values()[path]]
    assert lacking == []


# --- sections of a stage


@pytest.mark.parametrize("stage", sorted(OF_STAGES))
def test_a_stage_refuses_unknown_keys_of_its_sections_and_looks_at_no_other(
    tmp_path: Path, values: dict[str, Any], stage: str
) -> None:
    own = section_names(OF_STAGES[stage])
    for name, section in values.items():
        for part in [section["image-text"]] if name == "finetune" else [section]:
            part["surprise"] = 1
    told = refused(tmp_path, values, OF_STAGES[stage])
    assert f"{len(own)} mistake(s)" in told
    for name in own:
        assert f"{name}." in told
    assert OF_STAGES[stage].model_validate({name: {} for name in own if name != "finetune"} | {"surprise": 1})


def test_a_stage_reads_the_sections_that_dvc_holds_it_to() -> None:
    pipeline = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    assert pipeline.keys() == OF_STAGES.keys()
    for name, stage in pipeline.items():
        listed = {key.partition(".")[0] for key in stage.get("do", stage)["params"]}
        assert listed == set(section_names(OF_STAGES[name])), name


@pytest.mark.parametrize("stage", sorted(OF_STAGES))
def test_the_whole_file_can_stand_for_what_a_stage_reads(stage: str) -> None:
    assert issubclass(Params, OF_STAGES[stage])


def test_kinds_of_a_section_are_told_apart_by_one_key() -> None:
    for name in ("source", "dvae"):
        kinds = typing.get_args(Params.model_fields[name].annotation)
        defaults = [kind.model_fields["kind"].default for kind in kinds]
        assert len(set(defaults)) == len(kinds)


# --- mistakes


def test_all_unknown_and_wrong_keys_are_told_in_one_line(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["stpes"] = 3
    values["indx"] = {}
    values["prepare"]["max_rejected"] = 1.5
    values["source"] = {"kind": "folder"}
    told = refused(tmp_path, values)
    for path in ("pretrain.stpes", "indx", "prepare.max_rejected", "source.folder.path"):
        assert path in told
    assert "4 mistake(s)" in told


def test_rules_across_fields_name_both_values(tmp_path: Path, values: dict[str, Any]) -> None:
    values["model"]["image"] |= {"size": 60, "patch": 8}
    assert "60 is not a multiple of patch 8" in refused(tmp_path, values)


def test_a_deployed_target_must_be_trained(tmp_path: Path, values: dict[str, Any]) -> None:
    del values["finetune"]["image-text"]
    assert "'image-text' is not among finetune" in refused(tmp_path, values)


def test_the_gate_may_ask_of_the_deployed_target_alone(tmp_path: Path, values: dict[str, Any]) -> None:
    values["gate"]["must_improve"] = "v2t"
    assert "gate.must_improve v2t is no direction of index.target image-text" in refused(tmp_path, values)


def test_a_run_that_would_learn_nothing_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["loss_weights"] = {"instance": 0, "token": 0, "task": 0, "masked_views": 0}
    assert "nothing would be learnt" in refused(tmp_path, values)


def test_gradients_are_not_accumulated_where_negatives_have_one(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"] |= {"grad_accum_steps": 4}
    values["pretrain"]["objective"] |= {"in_batch_negatives": "online"}
    assert "needs its batch whole" in refused(tmp_path, values)


def test_tokens_are_refused_at_another_size_than_they_were_made_for(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["image-text"]
    run |= {
        "size": 96,
        "objective": run["objective"] | {"loss_weights": {"instance": 1, "token": 1, "task": 0, "masked_views": 0}},
    }
    assert "tokens are those of 64 pixels, size is 96" in refused(tmp_path, values)
    values["finetune"]["image-text"] |= {"size": 100}
    assert "100 is not a multiple" in refused(tmp_path, values)


def test_the_token_level_takes_one_frame_and_masked_views_take_any(tmp_path: Path, values: dict[str, Any]) -> None:
    run = values["finetune"]["video-text"]
    assert run["frames"] > 1
    run["objective"]["loss_weights"] = {"instance": 1, "token": 0, "task": 0, "masked_views": 1}
    assert Params.model_validate(values).finetune["video-text"].objective.masked
    run["objective"]["loss_weights"]["token"] = 1
    assert f"loss_weights.token is not 0 with {run['frames']} frames" in refused(tmp_path, values)


def test_a_baseline_takes_no_parameters_of_the_other_objectives(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"] |= {"kind": "clip"}
    assert "pretrain.objective.clip.queue_size" in refused(tmp_path, values)


def test_a_temperature_below_its_minimum_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    values["pretrain"]["objective"]["temperature"] = {"init": 0.005, "learnable": True, "min": 0.01}
    assert "init 0.005 lies below min 0.01" in refused(tmp_path, values)


def test_an_unknown_source_is_told_with_those_that_exist(tmp_path: Path, values: dict[str, Any]) -> None:
    values["source"] = {"kind": "ftp", "path": "x"}
    told = refused(tmp_path, values)
    assert "karpathy" in told
    assert "folder" in told


def test_a_dvae_is_trained_or_imported_never_a_mixture(tmp_path: Path, values: dict[str, Any]) -> None:
    imported = {"kind": "openai", "path": "weights", "sha256": "0" * 64}
    assert Params.model_validate(values | {"dvae": imported}).dvae.codebook_size == 8192
    assert "dvae.openai.steps" in refused(tmp_path, values | {"dvae": imported | {"steps": 5}})
    assert "dvae.openai.sha256" in refused(tmp_path, values | {"dvae": imported | {"sha256": "12"}})
    assert "dvae.train.path" in refused(tmp_path, values | {"dvae": values["dvae"] | {"path": "weights"}})


@pytest.mark.parametrize("text", ["a: [", "- 1\n- 2\n", "", "\x00"])
def test_what_is_no_parameter_file_is_refused_in_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(BadInput, match=r"params\.yaml"):
        Params.load(tmp_path / "params.yaml")


def test_a_missing_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cots init"):
        Params.load(tmp_path / "params.yaml")
