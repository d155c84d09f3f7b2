"""The deployed model: built from other people's folders, saved, loaded, taken to another resolution."""

import json
import shutil
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from cots.data.resizing import resize_squash
from cots.data.token_batch import tokenize
from cots.data.tokenizer import describe_unknown, load_tokenizer, pad_token_ids, token_ids
from cots.devices import autocast, compute_dtype
from cots.errors import BadInput
from cots.models.dual_encoder import IMAGE_BACKBONES, DualEncoder
from cots.models.pixels import normalize_pixels
from cots.models.text_model import load_text_model
from cots.models.vit import VitBackbone
from tests.backbones import encoder, vit
from tests.foreign import MULTILINGUAL, SENTENCES, save_text, save_vit

TEXTS = ["a red ring on the left", "a blue square", "green", "一只狗"]
IMAGES = [Image.new("RGB", (50, 40), colour) for colour in ("red", "navy", "white")]


def pair(folder: Path, kind: str, **image: Any) -> dict[str, Any]:
    """Settings of a model from a vision and a text encoder in folders made here."""
    save_vit(folder / "vit")
    save_text(kind, folder / kind)
    return {
        "dim": 16,
        "image": {
            "name": f"local-dir:{folder / 'vit'}",
            "pretrained": True,
            "size": 32,
            "patch": 8,
            "stem": "linear",
            "pool": "class",
            "options": {},
            "mean": [0.4, 0.5, 0.6],
            "std": [0.2, 0.3, 0.4],
        }
        | image,
        "text": {"name": str(folder / kind), "pretrained": True, "pool": "class", "max_tokens": 12, "options": {}},
    }


def vectors(model: DualEncoder) -> np.ndarray[Any, Any]:
    return np.concatenate([model.encode_images(IMAGES, batch_size=2), model.encode_texts(TEXTS, batch_size=2)])


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta", *MULTILINGUAL])
def test_a_pretrained_pair_keeps_its_vectors_when_saved_and_the_originals_are_gone(kind: str, tmp_path: Path) -> None:
    settings = pair(tmp_path / "theirs", kind)
    encoder = save_text(kind, tmp_path / "theirs" / kind)
    tokenizer = load_tokenizer(tmp_path / "theirs" / kind)
    built = DualEncoder.build(settings, tokenizer)
    ids = tokenizer(TEXTS, padding=True, return_tensors="pt", return_token_type_ids=False)
    with torch.no_grad():
        theirs = encoder(**ids).last_hidden_state
        mine = built.text.eval().backbone(ids["input_ids"], ids["attention_mask"].bool())
    torch.testing.assert_close(mine[ids["attention_mask"].bool()], theirs[ids["attention_mask"].bool()])
    built.save(tmp_path / "model")
    shutil.rmtree(tmp_path / "theirs")
    loaded = DualEncoder.load(tmp_path / "model")
    assert np.array_equal(vectors(loaded), vectors(built))
    assert loaded.digest == built.digest
    assert str(tmp_path / "theirs") not in (tmp_path / "model/model.json").read_text()


@pytest.mark.parametrize("kind", MULTILINGUAL)
def test_a_multilingual_tokenizer_has_no_unknown_tokens_for_what_it_knows_and_a_mask(kind: str, tmp_path: Path) -> None:
    save_text(kind, tmp_path / kind)
    tokenizer = load_tokenizer(tmp_path / kind)
    assert tokenizer.mask_token_id is not None
    assert describe_unknown(tokenizer, [list(SENTENCES.values())], pretrained=True) is None
    batch = tokenize(tokenizer, list(SENTENCES.values()), max_tokens=20)
    assert (batch.input_ids[:, 0] == tokenizer.cls_token_id).all()
    assert not batch.maskable[:, 0].any()


def test_a_saved_model_is_saved_again_without_a_change(tmp_path: Path) -> None:
    settings = pair(tmp_path, "roberta")
    DualEncoder.build(settings, load_tokenizer(tmp_path / "roberta")).save(tmp_path / "a")
    DualEncoder.load(tmp_path / "a").save(tmp_path / "b")
    for name in ("model.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_text_model_with_more_tokens_than_its_tokenizer_survives_saving(tmp_path: Path) -> None:
    settings = pair(tmp_path, "bert")
    encoder = save_text("bert", tmp_path / "bert")
    encoder.resize_token_embeddings(len(load_tokenizer(tmp_path / "bert")) + 8)
    encoder.save_pretrained(tmp_path / "bert")
    built = DualEncoder.build(settings, load_tokenizer(tmp_path / "bert"))
    built.save(tmp_path / "model")
    assert np.array_equal(vectors(DualEncoder.load(tmp_path / "model")), vectors(built))


def test_mean_and_deviation_are_those_of_the_parameters_not_of_the_pretrained_model(tmp_path: Path) -> None:
    settings = pair(tmp_path, "bert")
    theirs = json.loads((tmp_path / "vit/config.json").read_text())["pretrained_cfg"]
    assert theirs["mean"] != settings["image"]["mean"]
    built = DualEncoder.build(settings, load_tokenizer(tmp_path / "bert"))
    pixels = np.stack([resize_squash(image, 32) for image in IMAGES])[:, None]
    frames = normalize_pixels(pixels, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.4], device=torch.device("cpu"))
    with torch.no_grad(), autocast(torch.device("cpu")):
        expected = built.image.eval()(frames)
    np.testing.assert_allclose(built.encode_images(IMAGES, batch_size=3), expected.numpy(), atol=1e-6)


def test_more_tokens_than_the_text_model_has_positions_for_are_refused_with_both_numbers(tmp_path: Path) -> None:
    settings = pair(tmp_path, "roberta")
    settings["text"]["max_tokens"] = 39
    with pytest.raises(BadInput, match=r"max_tokens is 39, .* positions for 38"):
        DualEncoder.build(settings, load_tokenizer(tmp_path / "roberta"))


def test_a_model_folder_with_the_config_of_another_kind_is_reported_as_damaged(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    settings = json.loads((tmp_path / "model/model.json").read_text())
    settings["text"]["name"] = "gpt2"
    (tmp_path / "model/model.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match=r"model is a damaged COTS model: .*gpt2") as error:
        DualEncoder.load(tmp_path / "model")
    assert "\n" not in str(error.value)


# --- encoding


def test_texts_of_like_length_are_encoded_together_and_each_of_them_once(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    rng = np.random.default_rng(0)
    texts = ["red " * count for count in rng.integers(0, 9, 250)]  # more than are put in order together
    batches = list(model.length_sorted_batches(texts, batch_size=2))
    assert sorted(row for batch in batches for row in batch.rows) == list(range(250))
    assert {len(batch.rows) for batch in batches} == {2}
    for batch in batches:
        assert batch.token_ids == token_ids(model.tokenizer, [texts[row] for row in batch.rows], max_tokens=32)
    padding = sum(abs(len(first) - len(second)) for first, second in (batch.token_ids for batch in batches))
    assert padding <= 2 * 9  # a step of one token for each length that occurs, in each of two windows
    vectors = model.encode_texts(texts, batch_size=2)
    alone = np.concatenate([model.encode_texts([text], batch_size=2) for text in texts[:20]])
    np.testing.assert_allclose(vectors[:20], alone, atol=0.02)  # bfloat16
    assert model.encode_texts([], batch_size=2).shape == (0, model.dim)


def test_token_ids_are_padded_as_the_tokenizer_pads_them(tiny_model: Path) -> None:
    tokenizer = DualEncoder.load(tiny_model).tokenizer
    theirs = tokenize(tokenizer, TEXTS, max_tokens=6)
    ids, mask = pad_token_ids(token_ids(tokenizer, TEXTS, max_tokens=6), pad_token=tokenizer.pad_token_id)
    np.testing.assert_array_equal(ids, theirs.input_ids)
    np.testing.assert_array_equal(mask, theirs.attention_mask)


def test_a_model_in_training_encodes_without_dropout(tmp_path: Path) -> None:
    settings = pair(tmp_path, "bert")
    model = DualEncoder.build(settings, load_tokenizer(tmp_path / "bert"))
    before = vectors(model)
    assert encoder(model.text).config.hidden_dropout_prob > 0
    model.image.train()
    model.text.train()
    np.testing.assert_array_equal(vectors(model), before)


# --- resolution


@pytest.mark.parametrize("lengths", [[3, 1, 2, 1, 3], [1], [2, 2], []])
def test_one_pass_encodes_the_videos_and_each_of_their_frames(tiny_model: Path, lengths: list[int]) -> None:
    model = DualEncoder.load(tiny_model)
    noise = np.random.default_rng(0).integers(0, 256, (sum(lengths), 20, 30, 3), dtype=np.uint8)
    frames = iter([Image.fromarray(pixels) for pixels in noise])
    videos = [[next(frames) for _ in range(length)] for length in lengths]
    by_video, by_frame = model.encode_videos_and_frames(videos, batch_size=2)
    assert by_video.shape == (len(lengths), model.dim)
    assert by_frame.shape == (sum(lengths), model.dim)
    np.testing.assert_allclose(by_video, model.encode_videos(videos, batch_size=2), atol=0.01)  # bfloat16
    np.testing.assert_allclose(
        by_frame, model.encode_images([f for video in videos for f in video], batch_size=2), atol=0.02
    )


def test_a_model_for_inference_gives_the_same_embeddings(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    videos = [IMAGES, IMAGES[:1]]
    before, digest = (vectors(model), model.encode_videos(videos, batch_size=2)), model.digest
    ready = model.for_inference()
    assert ready.digest == digest
    assert ready.image.projection.weight.dtype == compute_dtype(torch.device("cpu"))
    np.testing.assert_array_equal(vectors(ready), before[0])
    np.testing.assert_array_equal(ready.encode_videos(videos, batch_size=2), before[1])


def test_the_text_half_of_a_model_folder_gives_the_same_vectors_and_digest(tiny_model: Path) -> None:
    model, half = DualEncoder.load(tiny_model), load_text_model(tiny_model)
    assert half
    assert not hasattr(half, "image")
    assert half.digest == model.digest
    np.testing.assert_array_equal(half.encode_texts(TEXTS, batch_size=2), model.encode_texts(TEXTS, batch_size=2))
    ready = half.for_inference()
    assert ready.digest == model.digest
    np.testing.assert_array_equal(ready.encode_texts(TEXTS, batch_size=2), model.encode_texts(TEXTS, batch_size=2))


def test_weights_that_do_not_hold_the_digest_have_no_text_half_to_load(tiny_model: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    save_file(load_file(weights), weights)
    assert load_text_model(tmp_path / "model") is None
    assert DualEncoder.load(tmp_path / "model").digest == DualEncoder.load(tiny_model).digest


@pytest.mark.parametrize("load", [DualEncoder.load, load_text_model])
def test_weights_that_end_early_are_reported_in_one_line(
    load: Callable[[Path], object], tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    weights = tmp_path / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(BadInput, match="is a damaged COTS model") as error:
        load(tmp_path / "model")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [DualEncoder.load, load_text_model])
@pytest.mark.parametrize("change", [None, {"dim": "x"}, {"image": 3}, {"text": []}, {"text": {"kind": [], "name": 1}}])
def test_a_configuration_of_other_types_is_reported_in_one_line(
    load: Callable[[Path], object], change: dict[str, object] | None, tiny_model: Path, tmp_path: Path
) -> None:
    """A hub's folder may hold any JSON under the name."""
    shutil.copytree(tiny_model, tmp_path / "model")
    config = tmp_path / "model/model.json"
    config.write_text(json.dumps(change if change is None else json.loads(config.read_text()) | change))
    with pytest.raises(BadInput, match="is a damaged COTS model: [^\n]+$"):
        load(tmp_path / "model")


@pytest.mark.parametrize("load", [DualEncoder.load, load_text_model])
@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("image", {"name": "hf-hub:somebody/else"}),
        ("image", {"name": "local-dir:/tmp"}),
        ("image", {"name": "vit_tiny_patch16_224.augreg_in21k", "pretrained": True}),
        ("image", {"options": {"checkpoint_path": "weights.pth"}}),
        ("text", {"name": "somebody/else", "pretrained": True}),
    ],
)
def test_a_model_folder_that_refers_to_weights_elsewhere_is_refused_and_nobody_is_asked_for_them(
    load: Callable[[Path], object],
    section: str,
    change: dict[str, Any],
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts: list[object] = []

    def look_up(host: object, *_: object, **__: object) -> None:
        hosts.append(host)
        raise OSError("no network")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    shutil.copytree(tiny_model, tmp_path / "model")
    settings = json.loads((tmp_path / "model/model.json").read_text())
    settings[section] |= change
    (tmp_path / "model/model.json").write_text(json.dumps(settings))
    with pytest.raises(BadInput, match=f"{section} in model.json refers to weights outside of the folder"):
        load(tmp_path / "model")
    assert hosts == []


def test_resizing_to_the_same_size_gives_an_equal_model_of_its_own(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    same = model.with_image_size(32)
    assert same.digest == model.digest
    with torch.no_grad():
        same.image.projection.weight.zero_()
        same.text.projection.weight.zero_()
    assert DualEncoder.load(tiny_model).digest == model.digest


def test_a_model_at_384_pixels_comes_from_one_at_224_and_survives_saving(tmp_path: Path) -> None:
    settings = pair(tmp_path, "bert", size=224, patch=16, pretrained=False)
    small = DualEncoder.build(settings, load_tokenizer(tmp_path / "bert"))
    large = small.with_image_size(384)
    assert (small.config["image"]["size"], large.config["image"]["size"]) == (224, 384)
    assert vit(large.image).pos_embed.shape == (1, 1 + 24 * 24, 32)
    assert np.array_equal(large.encode_texts(TEXTS, batch_size=3), small.encode_texts(TEXTS, batch_size=3))
    large.save(tmp_path / "large")
    loaded = DualEncoder.load(tmp_path / "large")
    images = [Image.effect_noise((400, 390), 60).convert("RGB")]
    assert np.array_equal(loaded.encode_images(images, batch_size=1), large.encode_images(images, batch_size=1))
    assert loaded.digest == large.digest != small.digest


def test_weights_at_another_resolution_do_not_fit_settings_that_were_edited_by_hand(
    tiny_model: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_model, tmp_path / "model")
    text = (tmp_path / "model/model.json").read_text()
    (tmp_path / "model/model.json").write_text(text.replace('"size": 32', '"size": 48'))
    with pytest.raises(BadInput, match="damaged"):
        DualEncoder.load(tmp_path / "model")


def test_a_size_between_two_grids_is_refused(tiny_model: Path) -> None:
    with pytest.raises(BadInput, match="patches of 8 pixels"):
        DualEncoder.load(tiny_model).with_image_size(50)


def test_a_kind_of_backbone_is_one_class_and_a_line_in_a_table(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Path
) -> None:
    class Doubled(VitBackbone):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(images)

    monkeypatch.setitem(IMAGE_BACKBONES, "doubled", Doubled)
    model = DualEncoder.load(tiny_model)
    image = model.config["image"]
    assert "kind" not in image  # as in the folders of before
    other = DualEncoder.build(model.config | {"image": image | {"kind": "doubled"}}, model.tokenizer)
    other.image.load_state_dict(model.image.state_dict())
    assert other.config["image"]["kind"] == "doubled"
    frames = torch.randn(1, 1, 3, image["size"], image["size"], device=model.image.projection.weight.device)
    twice = other.to(frames.device).image.eval().pool_frames(frames)
    torch.testing.assert_close(twice, 2 * model.image.eval().pool_frames(frames))


def test_an_unknown_kind_of_backbone_is_reported_with_the_known_kinds(tiny_model: Path) -> None:
    model = DualEncoder.load(tiny_model)
    with pytest.raises(BadInput, match=r"model\.text\.kind is rnn: give transformers"):
        DualEncoder.build(model.config | {"text": model.config["text"] | {"kind": "rnn"}}, model.tokenizer)
