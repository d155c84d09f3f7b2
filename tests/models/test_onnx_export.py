"""ONNX files of both encoders give their vectors, for any number of rows and tokens."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import cots
from cots.data.resizing import resize_squash
from cots.data.tokenizer import pad_token_ids, token_ids
from cots.models.dual_encoder import DualEncoder
from cots.models.loading import load_model
from cots.models.onnx_export import IMAGE_ONNX, TEXT_ONNX
from cots.models.pixels import normalize_pixels
from tests.conftest import Cots
from tests.two_towers import save_transformers_clip

NEEDED = ("onnx", "onnxscript", "onnxruntime")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]
needs_onnx = pytest.mark.skipif(bool(MISSING), reason=f"the extra `onnx` is not installed: no {', '.join(MISSING)}")
TEXTS = ["a red square", "a", "a blue square and a red square and a green square", "", "red blue"]


def session(file: Path) -> Any:
    import onnxruntime

    return onnxruntime.InferenceSession(str(file))


def image_vectors(folder: Path, model: DualEncoder, images: list[Image.Image]) -> np.ndarray:
    """What somebody does who has the files alone."""
    settings = model.config["image"]
    pixels = np.stack([resize_squash(image, settings["size"]) for image in images])
    normalized = normalize_pixels(pixels, mean=settings["mean"], std=settings["std"], device=torch.device("cpu"))
    [vectors] = session(folder / IMAGE_ONNX).run(["image_embeds"], {"pixel_values": normalized.numpy()})
    return np.asarray(vectors)


def text_vectors(folder: Path, model: DualEncoder, texts: list[str]) -> np.ndarray:
    ids = token_ids(model.tokenizer, texts, max_tokens=model.config["text"]["max_tokens"])
    input_ids, mask = pad_token_ids(ids, pad_token=model.tokenizer.pad_token_id, length=model.text_length)
    inputs = {"input_ids": input_ids, "attention_mask": mask.astype(np.int64)}
    [vectors] = session(folder / TEXT_ONNX).run(["text_embeds"], inputs)
    return np.asarray(vectors)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vit and bert", "CLIP"])
def test_onnxruntime_gives_our_vectors(kind: str, tiny_model: Path, tmp_path: Path, cots: Cots) -> None:
    start = save_transformers_clip(tmp_path / "theirs").path if kind == "CLIP" else tiny_model
    code, out, err = cots("export", "onnx", tmp_path / "onnx", "--model", start)
    assert (code, err) == (0, "")
    assert "image.onnx and text.onnx" in out
    assert {path.name for path in (tmp_path / "onnx").iterdir()} == {
        "image.onnx",
        "text.onnx",
        "model.json",
        "tokenizer",
    }
    model = load_model(str(start))
    images = [Image.effect_noise((30 + side, 40), 50.0).convert("RGB") for side in range(7)]
    for count in (1, 3, 7):
        ours = model.encode_images(images[:count], batch_size=8)
        assert (ours * image_vectors(tmp_path / "onnx", model, images[:count])).sum(axis=1).min() > 0.9999
    for texts in ([TEXTS[0]], [TEXTS[3]], TEXTS, TEXTS[1:3]):
        ours = model.encode_texts(texts, batch_size=8)
        assert (ours * text_vectors(tmp_path / "onnx", model, texts)).sum(axis=1).min() > 0.9999


@pytest.mark.skipif(not MISSING, reason="the extra `onnx` is installed")
def test_without_the_extra_one_line_says_what_to_install(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(cots.BadInput, match=r"ONNX needs onnx and onnxscript: `pip install cots\[onnx\]`"):
        cots.load(tiny_model).export_onnx(tmp_path / "onnx")
