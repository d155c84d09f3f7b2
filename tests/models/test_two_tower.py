"""CLIP and SigLIP checkpoints of every library: the library's own vectors, and one line for what does not fit."""

import json
import shutil
from collections.abc import Callable
from functools import partial, reduce
from operator import getitem
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPModel

from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.text_model import load_text_model
from cots.models.two_tower.loading import load_two_tower
from tests.foreign import save_text
from tests.two_towers import (
    KINDS,
    LIMIT,
    SIZE,
    TEXTS,
    Reference,
    save_open_clip,
    save_open_clip_siglip,
    save_torchscript,
    save_transformers_clip,
)


@pytest.fixture(params=KINDS)
def reference(request: pytest.FixtureRequest, tmp_path: Path) -> Reference:
    return KINDS[request.param](tmp_path / "theirs")


def token_ids(model: DualEncoder) -> list[list[int]]:
    ids: list[list[int]] = model.tokenizer(TEXTS, truncation=True, max_length=model.config["text"]["max_tokens"])[
        "input_ids"
    ]
    return ids


def vectors(model: DualEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    model.image.eval()
    model.text.eval()
    with torch.no_grad():
        return model.image(images[:, None]), model.embed_token_ids(token_ids(model))


def test_before_training_the_vectors_are_the_librarys(reference: Reference) -> None:
    model, images = load_two_tower(str(reference.path)), torch.randn(3, 3, SIZE, SIZE)
    image, text = vectors(model, images)
    with torch.no_grad():
        their_image, their_text = reference.encode_images(images), reference.encode_texts()
    torch.testing.assert_close(image, F.normalize(their_image, dim=-1), atol=1e-5, rtol=0)
    torch.testing.assert_close(text, F.normalize(their_text, dim=-1), atol=1e-5, rtol=0)
    assert model.config["temperature"] == pytest.approx(reference.temperature)
    assert model.config.get("bias") == pytest.approx(reference.bias)


def test_in_bfloat16_they_point_the_same_way(reference: Reference) -> None:
    model, images = load_two_tower(str(reference.path)), torch.randn(3, 3, SIZE, SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        image, text = vectors(model, images)
    with torch.no_grad():
        assert F.cosine_similarity(image, reference.encode_images(images)).min() > 0.999
        assert F.cosine_similarity(text, reference.encode_texts()).min() > 0.999


def test_it_is_saved_and_loaded_as_any_model_and_the_original_may_go(reference: Reference, tmp_path: Path) -> None:
    model, images = load_two_tower(str(reference.path)), [Image.new("RGB", (50, 40), "red")]
    before = model.encode_images(images, batch_size=1), model.encode_texts(TEXTS, batch_size=2)
    model.save(tmp_path / "ours")
    shutil.rmtree(tmp_path / "theirs")
    loaded = DualEncoder.load(tmp_path / "ours")
    assert loaded.digest == model.digest
    rounding = partial(np.testing.assert_allclose, rtol=0, atol=1e-6)  # of products of differently aligned weights
    rounding(loaded.encode_images(images, batch_size=1), before[0])
    rounding(loaded.encode_texts(TEXTS, batch_size=2), before[1])
    text_model = load_text_model(tmp_path / "ours")
    assert text_model
    rounding(text_model.encode_texts(TEXTS, batch_size=3), before[1])
    assert (loaded.config["image"]["mean"], loaded.config["temperature"]) == (
        list(model.config["image"]["mean"]),
        model.config["temperature"],
    )


def test_open_clips_siglip_reads_texts_without_case_and_punctuation(tmp_path: Path) -> None:
    model = load_two_tower(str(KINDS["open_clip SigLIP"](tmp_path / "theirs").path))
    plain, written = model.encode_texts(["a red star", "A_RED,  star’!"], batch_size=2)
    np.testing.assert_array_equal(plain, written)


def drop_weight(file: Path, name: str) -> None:
    weights = load_file(file)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})


def edit(file: Path, *sections: str, **values: object) -> None:
    content = json.loads(file.read_text())
    reduce(getitem, sections, content).update(values)
    file.write_text(json.dumps(content))


def remove_settings(folder: Path) -> None:
    (folder / "open_clip_config.json").write_text("[]")


def add_weight(file: Path, name: str) -> None:
    save_file(load_file(file) | {name: torch.zeros(2)}, file, metadata={"format": "pt"})


Damage = Callable[[Path], object]
DAMAGES: dict[str, tuple[Callable[[Path], Reference], Damage, str]] = {
    "transformers, a weight is missing": (
        save_transformers_clip,
        lambda folder: drop_weight(folder / "model.safetensors", "visual_projection.weight"),
        "lacks 1 weights, such as visual_projection.weight",
    ),
    "open_clip, a block is missing": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        lambda folder: drop_weight(folder / "open_clip_model.safetensors", "visual.transformer.resblocks.1.ln_1.bias"),
        "lacks 1 weights of the image tower, such as backbone.vit.blocks.1.norm1.bias",
    ),
    "open_clip, more layers than its file says": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        lambda folder: edit(folder / "open_clip_config.json", "model_cfg", "text_cfg", layers=1),
        "has 16 unknown weights in the text tower, such as backbone.encoder.encoder.layers.1",
    ),
    "open_clip, fewer positions than its file says": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        lambda folder: edit(folder / "open_clip_config.json", "model_cfg", "text_cfg", context_length=2 * LIMIT),
        "does not fit its own configuration: RuntimeError",
    ),
    "open_clip, a tokenizer with more tokens": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        lambda folder: edit(folder / "open_clip_config.json", "model_cfg", "text_cfg", vocab_size=20),
        "knows 20 tokens, the tokenizer makes 76",
    ),
    "open_clip, no weights": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        lambda folder: (folder / "open_clip_model.safetensors").unlink(),
        "has open_clip_config.json and no open_clip_model.safetensors",
    ),
    "transformers, more layers than its file says": (
        save_transformers_clip,
        lambda folder: edit(folder / "config.json", "vision_config", num_hidden_layers=1),
        "has 16 unknown weights, such as vision_model.encoder.layers.1.",
    ),
    "transformers, norms with another epsilon": (
        save_transformers_clip,
        lambda folder: edit(folder / "config.json", "vision_config", layer_norm_eps=0.01),
        "has norms with an epsilon of 0.01, not clip's 1e-05",
    ),
    "open_clip, a head after the pool": (
        KINDS["open_clip SigLIP"],
        lambda folder: add_weight(folder / "open_clip_model.safetensors", "visual.head.proj.weight"),
        "projects images after pooling, by a head of its own",
    ),
    "open_clip, no settings": (
        lambda folder: save_open_clip(folder, quick_gelu=False),
        remove_settings,
        "is a damaged checkpoint: AttributeError",
    ),
    "transformers, weights cut short": (
        save_transformers_clip,
        lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:999]),
        "is a damaged checkpoint: SafetensorError",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_does_not_fit_is_refused_in_one_line_that_names_it(damage: str, tmp_path: Path) -> None:
    save, harm, message = DAMAGES[damage]
    save(tmp_path / "theirs")
    harm(tmp_path / "theirs")
    with pytest.raises(BadInput) as refused:
        load_two_tower(str(tmp_path / "theirs"))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_of_weights_without_a_temperature_is_refused_in_one_line(tmp_path: Path) -> None:
    file = KINDS["OpenAI, weights alone"](tmp_path / "theirs").path
    weights = torch.load(file, weights_only=True)
    del weights["logit_scale"]
    torch.save(weights, file)
    with pytest.raises(BadInput, match="is a damaged checkpoint: KeyError: 'logit_scale'"):
        load_two_tower(str(file))


def test_heads_and_activation_are_those_of_timms_tower(tmp_path: Path) -> None:
    reference = save_open_clip_siglip(tmp_path / "theirs", tower="vit_test_siglip_so")
    model, images = load_two_tower(str(reference.path)), torch.randn(3, 3, SIZE, SIZE)
    image, _ = vectors(model, images)
    with torch.no_grad():
        torch.testing.assert_close(image, F.normalize(reference.encode_images(images), dim=-1), atol=1e-5, rtol=0)
    options = model.config["image"]["options"]
    assert (options["num_heads"], options["act_layer"]) == (4, "gelu_tanh")


def test_pixels_are_read_from_either_file_of_transformers(tmp_path: Path) -> None:
    folder = save_transformers_clip(tmp_path / "theirs").path
    pixels = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"image_processor": pixels}))
    assert load_two_tower(str(folder)).config["image"]["mean"] == (0.4, 0.5, 0.6)


def test_the_text_tower_of_clip_is_not_taken_for_a_text_encoder(tmp_path: Path) -> None:
    folder = save_transformers_clip(tmp_path / "theirs").path
    CLIPModel.from_pretrained(folder).text_model.save_pretrained(tmp_path / "text")
    build = partial(HfTextBackbone, vocab_size=10, pad_token=0, fused_attention=False)
    with pytest.raises(BadInput, match="is the text tower of CLIP or SigLIP: give both as model.init_from"):
        build(name=str(tmp_path / "text"), pretrained=True, options={})
    assert build(name="clip_text_model", pretrained=False, options={"hidden_size": 64}).max_tokens == 77


def test_a_text_encoder_alone_is_no_two_tower_checkpoint(tmp_path: Path) -> None:
    save_text("bert", tmp_path / "bert")
    with pytest.raises(BadInput, match="is a model of type bert, neither clip nor siglip"):
        load_two_tower(str(tmp_path / "bert"))


def test_a_folder_of_something_else_and_a_name_that_is_nowhere_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"is no checkpoint of CLIP or SigLIP: it has neither config.json nor"):
        load_two_tower(str(tmp_path))
    with pytest.raises(BadInput, match=r"no checkpoint a b/c: no such folder or file, and no name of the hub"):
        load_two_tower("a b/c")


def test_a_torchscript_file_that_names_other_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    class Evil(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images

    save_torchscript(Evil(), torch.zeros(1), tmp_path / "evil.pt")
    with pytest.raises(BadInput, match="is no CLIP with a vision transformer"):
        load_two_tower(str(tmp_path / "evil.pt"))
