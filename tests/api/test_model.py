"""The Python interface to encoders: images and texts of any kind, and one line for what is neither."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cots
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder
from cots.registry.client import ENCODERS, INDEX
from tests.conftest import tracked_in
from tests.two_towers import save_transformers_clip


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> cots.Model:
    return cots.load(tiny_model)


@pytest.fixture(scope="module")
def picture() -> Image.Image:
    """Wider than high, and different in each corner and channel."""
    rng = np.random.default_rng(5)
    return Image.fromarray(rng.integers(0, 255, (6, 9, 3), np.uint8)).resize((90, 60), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def same(ours: np.ndarray, theirs: np.ndarray, atol: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


def test_a_path_bytes_an_image_and_an_array_have_the_same_vector(
    model: cots.Model, picture: Image.Image, tmp_path: Path
) -> None:
    file = tmp_path / "picture.png"
    file.write_bytes(encoded(picture))
    pixels = np.asarray(picture)
    forms: list[Any] = [
        file,
        str(file),
        encoded(picture),
        picture,
        Image.open(file),
        pixels,
        pixels / 255,
        pixels.astype("<u2") * 257,
    ]
    vectors = model.encode_images(iter(forms), batch_size=3)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(forms), model.dim)
    same(np.linalg.norm(vectors, axis=1), np.ones(len(forms)))
    for vector in vectors:
        same(vector, vectors[0])


def test_one_image_or_text_has_one_vector_and_a_list_has_rows(model: cots.Model, picture: Image.Image) -> None:
    pixels = np.asarray(picture)
    assert model.encode_images(picture).shape == model.encode_images(pixels).shape == (model.dim,)
    assert model.encode_images(np.stack([pixels, pixels])).shape == (2, model.dim)
    assert model.encode_images([]).shape == model.encode_texts([]).shape == (0, model.dim)
    texts = ["a red square", "", "a blue square " * 20]
    rows = model.encode_texts(texts, batch_size=2)
    assert rows.dtype == np.float32
    assert rows.shape == (3, model.dim)
    same(model.encode_texts(texts[0]), rows[0])
    assert model.encode_texts(texts[0]).shape == (model.dim,)


def grey(picture: Image.Image) -> Image.Image:
    return picture.convert("L").convert("RGB")


def deep(picture: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 257)


def turned(picture: Image.Image) -> bytes:
    """Stored on its side; EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture.transpose(Image.Transpose.ROTATE_90), exif=exif)


def on_white(picture: Image.Image) -> Image.Image:
    white = Image.new("RGB", picture.size, "white")
    white.paste(picture, mask=Image.linear_gradient("L").resize(picture.size))
    return white


def transparent(picture: Image.Image) -> Image.Image:
    layer = picture.convert("RGBA")
    layer.putalpha(Image.linear_gradient("L").resize(picture.size))
    return layer


PAIRS: dict[str, tuple[Callable[[Image.Image], Any], Callable[[Image.Image], Any]]] = {
    "grey": (lambda picture: picture.convert("L"), grey),
    "grey, an array": (lambda picture: np.asarray(picture.convert("L")), grey),
    "grey, an array with an axis of length 1": (lambda picture: np.asarray(picture.convert("L"))[..., None], grey),
    "transparent": (transparent, on_white),
    "transparent, a file": (lambda picture: encoded(transparent(picture)), on_white),
    "transparent, an array": (lambda picture: np.asarray(transparent(picture)), on_white),
    "turned by EXIF": (turned, lambda picture: picture),
    "turned by EXIF, opened by Pillow": (
        lambda picture: Image.open(io.BytesIO(turned(picture))),
        lambda picture: picture,
    ),
    "16 bits": (deep, grey),
    "16 bits, a file": (lambda picture: encoded(deep(picture)), grey),
    "black and white, an array": (
        lambda picture: np.asarray(picture.convert("L")) > 99,
        lambda picture: picture.convert("L").point(lambda level: 255 * (level > 99)).convert("RGB"),
    ),
    "CMYK": (
        lambda picture: encoded(picture.convert("CMYK"), "TIFF"),
        lambda picture: picture.convert("CMYK").convert("RGB"),
    ),
    "a palette": (
        lambda picture: picture.quantize(16),
        lambda picture: picture.quantize(16).convert("RGB"),
    ),
}


@pytest.mark.parametrize("kind", PAIRS)
def test_an_image_of_any_kind_has_the_vector_of_what_it_shows(
    model: cots.Model, picture: Image.Image, kind: str
) -> None:
    given, shown = (make(picture) for make in PAIRS[kind])
    same(model.encode_images(given), model.encode_images(shown), atol=2e-3)


def test_an_image_that_is_encoded_keeps_its_metadata(model: cots.Model, picture: Image.Image) -> None:
    opened = Image.open(io.BytesIO(encoded(picture, "JPEG", dpi=(72, 72))))
    model.encode_images(opened)
    assert opened.info["dpi"] == (72, 72)


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a number": (lambda model: model.encode_images(3), "images must be a path, the bytes of a file, .*, not int"),
    "a dictionary": (lambda model: model.encode_images({"a": 1}), "images must be .*, not dict"),
    "a number in a list": (
        lambda model: model.encode_images([np.zeros((4, 4), "u1"), 3]),
        "image 1 is int: give a path",
    ),
    "no file": (lambda model: model.encode_images("no.png"), r"image 0 \(no.png\) cannot be read: No such file"),
    "a name that no file has": (lambda model: model.encode_images("a\0b"), "image 0 .* cannot be read: embedded null"),
    "a name without a home": (lambda model: model.encode_images("~nobody-here/a"), "cannot be read: .*home directory"),
    "a name that no folder has": (lambda model: model.save_pretrained("a\0b"), "'a.x00b' cannot be a folder: embedded"),
    "a long name": (lambda model: model.export_onnx("a" * 300), "cannot be a folder: .*name too long"),
    "no folder of images": (lambda _: cots.finetune("a\0b", "project"), "cannot be a folder: embedded null"),
    "a name that no model has": (lambda _: cots.load("a\0b"), "'a.x00b' cannot be a folder: embedded"),
    "no index": (lambda _: cots.load_index("a" * 300), "cannot be a folder: .*name too long"),
    "a home that nobody has": (lambda _: cots.load("~nobody-here/a"), "cannot be a folder: .*home directory"),
    "a number for a model": (lambda _: cots.load(3), "the name of a model is int: give a text or a path"),  # type: ignore[arg-type]
    "bytes for a model": (lambda _: cots.load(b"models"), "the name of a model is bytes: give a text or a path"),  # type: ignore[arg-type]
    "no name of an index": (lambda _: cots.load_index(None), "the name of an index is NoneType: give a text"),  # type: ignore[arg-type]
    "no name on the hub": (lambda _: cots.from_pretrained(None), "the name of a model is NoneType: give a text"),  # type: ignore[arg-type]
    "no repository": (lambda model: model.push_to_hub(None), "repo_id is NoneType: give owner/name"),
    "bytes for a folder": (lambda model: model.save_pretrained(b"a"), "a folder is bytes: give a text or a path"),
    "no folder": (lambda _: cots.finetune(None, "project"), "a folder is NoneType: give a text or a path"),  # type: ignore[arg-type]
    "no image": (lambda model: model.encode_images([b"text"]), "image 0 cannot be used: not a picture: 4 bytes"),
    "channels first": (
        lambda model: model.encode_images(np.zeros((3, 8, 8), "u1")),
        r"shape \(3, 8, 8\): give \(H, W\)",
    ),
    "an empty array": (lambda model: model.encode_images(np.zeros((0, 8, 3), "u1")), "too small: 8 x 0"),
    "floats beyond 1": (lambda model: model.encode_images(np.full((4, 4), 2.0)), "floats outside of 0 to 1"),
    "no numbers": (lambda model: model.encode_images(np.full((4, 4), np.nan)), "floats outside of 0 to 1"),
    "64 bits": (lambda model: model.encode_images(np.zeros((4, 4), int)), "an array of int64: give uint8"),
    "bytes for a text": (lambda model: model.encode_texts(b"a dog"), "texts must be a string or .*, not bytes"),
    "no text": (lambda model: model.encode_texts(None), "texts must be a string or .*, not NoneType"),
    "a number for a text": (lambda model: model.encode_texts(["a", 3]), "text 1 is int: give a string"),
    "no UTF-8": (lambda model: model.encode_texts("\ud800"), "text 0 has half of a surrogate pair"),
    "no text at a time": (
        lambda model: model.encode_texts(["a"], batch_size=0),
        "batch_size is 0: give a number from 1",
    ),
    "no image at a time": (lambda model: model.encode_images([], batch_size=-1), "batch_size is -1: give a number"),
    "no model": (lambda _: cots.load("no such/folder/at all"), "no checkpoint no such/folder"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_neither_is_told_in_one_line(model: cots.Model, kind: str) -> None:
    call, message = WRONG[kind]
    with pytest.raises(cots.BadInput, match=message) as refused:
        call(model)
    assert "\n" not in str(refused.value)


def test_registered_versions_packages_and_checkpoints_are_loaded_by_name(
    store_of_one_version: Path, tiny_package: Path, model: cots.Model, tmp_path: Path
) -> None:
    with tracked_in(store_of_one_version):
        champion = cots.load(f"models:/{INDEX}@champion")
        assert champion.name == f"models:/{INDEX}/1"
        assert champion.digest == cots.load(f"models:/{ENCODERS}/1").digest == model.digest
    assert cots.load(tiny_package / "encoders").digest == model.digest
    assert cots.load(save_transformers_clip(tmp_path / "clip").path).encode_texts("a red star").shape == (24,)


def test_a_saved_model_gives_the_same_vectors_and_says_what_it_is(
    model: cots.Model, tiny_package: Path, tmp_path: Path
) -> None:
    model.save_pretrained(tmp_path / "saved")
    saved = cots.load(tmp_path / "saved")
    np.testing.assert_array_equal(saved.encode_texts("a red square"), model.encode_texts("a red square"))
    card = (tmp_path / "saved" / "README.md").read_text()
    assert card.startswith("---\n")
    assert "No measurements are recorded" in card
    cots.load(tiny_package / "index").save_pretrained(tmp_path / "saved")
    assert "RSUM 240.0 of 600" in (tmp_path / "saved" / "README.md").read_text()
    cots.load(tmp_path / "saved").save_pretrained(tmp_path / "again")
    assert "RSUM 240.0 of 600" in (tmp_path / "again" / "README.md").read_text()
    with pytest.raises(cots.BadInput, match="has other files: give a new folder"):
        model.save_pretrained(tmp_path)


def test_a_model_that_was_replaced_is_not_saved(tiny_model: Path, other_model: Path, tmp_path: Path) -> None:
    cots.load(tiny_model).save_pretrained(tmp_path / "model")
    stale = cots.load(tmp_path / "model")
    cots.load(other_model).save_pretrained(tmp_path / "model")
    with pytest.raises(cots.BadInput, match="has changed since it was loaded"):
        stale.save_pretrained(tmp_path / "copy")


def test_the_names_of_the_interface_are_complete() -> None:
    assert sorted(cots.__all__) == sorted(cots.MODULES)
    assert set(cots.__all__) <= set(dir(cots))
    for name in cots.__all__:
        assert getattr(cots, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        cots.nothing  # noqa: B018


def test_a_model_with_a_head_says_how_probable_each_class_is(tiny_model: Path, tmp_path: Path) -> None:
    encoders = DualEncoder.load(tiny_model)
    encoders.set_class_head(
        ClassHead(dim=encoders.dim, num_classes=3), classes=("form", "letter", "memo"), column="class"
    )
    encoders.save(tmp_path / "model")
    model, images, texts = (
        cots.load(tmp_path / "model"),
        [np.zeros((9, 9, 3)), np.ones((9, 9, 3))],
        ["one", "two words"],
    )
    assert model.classes == ("form", "letter", "memo")
    both = model.classify(images, texts)
    assert both.shape == (2, 3)
    same(both.sum(axis=1), np.ones(2))
    items, captions = model.encode_images(images), model.encode_texts(texts)
    same(both, encoders.class_probabilities(items, captions))
    same(model.classify(images[0]), encoders.class_probabilities(items[:1], None))
    same(model.classify(texts="two words"), encoders.class_probabilities(None, captions[1:]))
    model.save_pretrained(tmp_path / "copy")
    same(cots.load(tmp_path / "copy").classify(images, texts), both)


def test_what_cannot_be_classified_is_told_in_one_line(model: cots.Model, tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(cots.BadInput, match=r"has no classification head: train it with loss_weights\.classification"):
        model.classify(texts="a")
    encoders = DualEncoder.load(tiny_model)
    encoders.set_class_head(ClassHead(dim=encoders.dim, num_classes=2), classes=("a", "b"), column="class")
    encoders.save(tmp_path / "model")
    with_head = cots.load(tmp_path / "model")
    with pytest.raises(cots.BadInput, match="nothing to classify: give images, texts, or both"):
        with_head.classify()
    with pytest.raises(cots.BadInput, match="1 images and 2 texts: give a text for each image"):
        with_head.classify(np.zeros((9, 9, 3)), ["a", "b"])
