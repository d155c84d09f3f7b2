"""The benchmark of re-ranking from a project's files to its table."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from benchmarks import reranking
from benchmarks._single_stream.cross_encoder import CrossEncoder
from cots.factory.model import build_model
from tests.training.conftest import tiny_params


@pytest.fixture
def project(tiny_data: Path, tokenized: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    params = tiny_params()
    values = params.model_dump(mode="json", by_alias=True)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "data").mkdir()
    for name in ("shards", "manifest.parquet"):
        (tmp_path / "data" / name).symlink_to(tiny_data / name)
    (tmp_path / "data/tokens").symlink_to(tokenized / "tokens")
    torch.manual_seed(0)
    build_model(params.model, tokenized / "tokenizer").save(tmp_path / "models/finetuned/image-text")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def table(printed: str) -> list[list[str]]:
    """The rows without their times."""
    return [re.split(r" {2,}", line)[:-1] for line in printed.splitlines() if "i2t" in line or "t2i" in line]


@pytest.mark.slow
def test_a_cross_encoder_is_trained_saved_and_used_in_both_directions_and_a_second_run_repeats_the_first(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reranking.main(3)
    first = capsys.readouterr().out
    assert [row[0] for row in table(first)] == ["two streams"] * 2 + ["6 nearest re-ranked"] * 2
    weights = (project / "runs/cross-encoder/cross_encoder.safetensors").read_bytes()
    CrossEncoder.load(project / "runs/cross-encoder")
    reranking.main(3)
    assert table(capsys.readouterr().out) == table(first)
    assert (project / "runs/cross-encoder/cross_encoder.safetensors").read_bytes() == weights


def test_without_fine_tuned_encoders_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    reranking.main()
    assert "dvc repro finetune@image-text" in capsys.readouterr().out
