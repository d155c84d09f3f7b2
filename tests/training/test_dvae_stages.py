"""The stages of the dVAE: trained or imported, their outputs have the same form."""

import json
from pathlib import Path

import dall_e
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from PIL import Image

from cots.config.dvae import OpenAiDvaeConfig
from cots.config.params import Params
from cots.data.crop_views import CropViews
from cots.errors import BadInput, RunFailed
from cots.models.dvae import openai as openai_dvae
from cots.models.dvae.io import load_dvae
from cots.models.dvae.openai_weights import weights_digest
from cots.models.dvae.vae import Dvae
from cots.report import sections
from cots.stages import tokenize, train_dvae
from cots.training import checkpoint
from cots.training.require_finite import require_finite
from tests.training.conftest import tiny_params


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def importing(tmp_path: Path) -> Params:
    """Parameters that import a small published pair."""
    torch.manual_seed(0)
    folder = tmp_path / "openai"
    folder.mkdir()
    torch.save(dall_e.Encoder(n_hid=8, vocab_size=32), folder / "encoder.pkl")
    torch.save(dall_e.Decoder(n_hid=8, vocab_size=32), folder / "decoder.pkl")
    digest = weights_digest(folder)
    section = OpenAiDvaeConfig(batch_size=4, codebook_size=32, path=folder, sha256=digest)
    return tiny_params().model_copy(update={"dvae": section})


def run(data: Path, out: Path, params: Params) -> None:
    train_dvae.stage(data / "shards", data / "manifest.parquet", out / "dvae", out / "report", params=params)


def test_an_import_leaves_what_training_leaves(tiny_data: Path, tmp_path: Path, importing: Params) -> None:
    for name, params, kind in (("own", tiny_params(), Dvae), ("openai", importing, openai_dvae.OpenAiDvae)):
        run(tiny_data, tmp_path / name, params)
        report = tmp_path / name / "report"
        usage = json.loads((report / "usage.json").read_text())
        assert isinstance(load_dvae(tmp_path / name / "dvae"), kind)
        assert usage["codes"] == params.dvae.codebook_size
        assert 1 <= usage["perplexity"] <= usage["used"] <= usage["codes"]
        assert {"step", "reconstruction", "perplexity"} <= set(pd.read_csv(report / "curves.csv").columns)
        with Image.open(report / "reconstructions.png") as image:
            assert image.size == (4 * 32, 2 * 32)
        assert len(sections.summarize_dvae(report).charts) == 2


def test_an_imported_dvae_gives_every_view_the_codes_of_the_published_encoder(
    tiny_data: Path, tmp_path: Path, importing: Params
) -> None:
    run(tiny_data, tmp_path, importing)
    shards = tiny_data / "shards"
    paths = (shards, tiny_data / "manifest.parquet", tmp_path / "dvae", tmp_path / "tokens", tmp_path / "tokenizer")
    tokenize.stage(*paths, params=importing)
    tokens = CropViews.load(tmp_path / "tokens/train/image-00000.safetensors").tokens
    encoder = torch.load(tmp_path / "openai/encoder.pkl", weights_only=False)
    for row, colour in enumerate(("red", "green")):  # plain images: every crop is the same
        plain = torch.from_numpy(np.asarray(Image.new("RGB", (32, 32), colour)) / np.float32(255)).movedim(-1, 0)[None]
        codes = encoder(dall_e.map_pixels(plain)).argmax(dim=1).flatten()
        assert float((torch.from_numpy(tokens[row].astype(int)) == codes).float().mean()) > 0.9


def test_a_codebook_of_another_size_than_the_parameters_say_is_refused(
    tiny_data: Path, tmp_path: Path, importing: Params
) -> None:
    section = importing.dvae.model_copy(update={"codebook_size": 8192})
    with pytest.raises(BadInput, match=r"dvae\.codebook_size is 8192"):
        run(tiny_data, tmp_path, importing.model_copy(update={"dvae": section}))


def test_a_loss_that_is_no_number_ends_the_stage_without_a_dvae(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="lower the learning rate"):
        run(tiny_data, tmp_path, tiny_params(dvae={"learning_rate": 1e19, "steps": 30}))
    assert not (tmp_path / "dvae").exists()


def test_a_gradient_that_is_no_number_ends_a_run_even_at_its_last_step() -> None:
    with pytest.raises(RunFailed, match="the gradient is nan at step 9: lower the learning rate"):
        require_finite(9, loss=1.0, gradient=float("nan"))


def test_a_damaged_checkpoint_is_named_with_the_way_out(tiny_data: Path, tmp_path: Path) -> None:
    file = checkpoint.path_of("train_dvae")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"PK half a checkpoint")
    with pytest.raises(BadInput, match="train_dvae.pt is damaged: delete it to train from the beginning"):
        run(tiny_data, tmp_path, tiny_params())


def test_a_later_batch_that_the_samples_do_not_fill_is_told_before_the_dvae_is_trained(
    tiny_data: Path, tmp_path: Path
) -> None:
    values = tiny_params(pretrain={"batch_size": 19}).model_dump(mode="json", by_alias=True)
    values["finetune"]["video-text"]["batch_size"] = 4
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    manifest = tiny_data / "manifest.parquet"
    with pytest.raises(BadInput) as refused:
        train_dvae.main(tiny_data / "shards", manifest, tmp_path / "dvae", tmp_path / "report")
    assert str(refused.value) == (
        f"too few training samples in {manifest}: pretrain.batch_size is 19, there are 9; "
        "finetune.image-text.batch_size is 19, there are 6 images; "
        "finetune.video-text.batch_size is 4, there are 3 videos: lower it, or add samples"
    )


def test_no_tokenizer_is_trained_beside_a_text_encoder_that_brings_its_own(
    tiny_data: Path, tokenized: Path, tmp_path: Path
) -> None:
    params = tiny_params()
    text = params.model.text.model_copy(update={"name": "not-looked-up", "pretrained": True})
    params = params.model_copy(update={"model": params.model.model_copy(update={"text": text})})
    inputs = (tiny_data / "shards", tiny_data / "manifest.parquet", tokenized / "dvae")
    tokenize.stage(*inputs, tmp_path / "tokens", tmp_path / "tokenizer", params=params)
    assert not any((tmp_path / "tokenizer").iterdir())
    names = [path.name for path in (tokenized / "tokens").rglob("*.safetensors")]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "tokens").rglob("*.safetensors"))
