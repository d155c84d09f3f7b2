"""The scores of a classification head against torchmetrics, and what it is given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_f1_score

from cots.evaluation.class_head import class_scores, evaluate_class_head, mean_texts, predict_classes
from cots.evaluation.embedding import EmbeddedSplit
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder

NAMES = ("form", "letter", "memo")


@pytest.mark.parametrize("classes", [2, 5, 9])
def test_accuracy_and_macro_f1_are_those_of_torchmetrics_also_if_items_are_drawn_more_than_once(classes: int) -> None:
    random = np.random.default_rng(classes)
    for _ in range(5):
        right = random.integers(classes, size=13)
        predicted = np.where(random.random(13) < 0.6, right, random.integers(classes, size=13))
        counts = random.multinomial(13, np.full(13, 1 / 13))
        preds, target = (torch.from_numpy(np.repeat(numbers, counts)) for numbers in (predicted, right))
        expected = {
            "accuracy": 100 * float(multiclass_accuracy(preds, target, classes, average="micro")),
            "macro_f1": 100 * float(multiclass_f1_score(preds, target, classes, average="macro")),
        }
        assert class_scores(right, predicted, counts.astype(float)) == pytest.approx(expected, abs=1e-4)


@pytest.fixture
def model(tiny_model: Path) -> DualEncoder:
    torch.manual_seed(0)
    loaded = DualEncoder.load(tiny_model)
    loaded.set_class_head(ClassHead(dim=loaded.dim, num_classes=3), classes=NAMES, column="kind")
    return loaded


def split(dim: int) -> EmbeddedSplit:
    """Five items with one to three captions each."""
    owners = np.array([0, 0, 1, 2, 2, 2, 3, 4])
    random = np.random.default_rng(0)
    items, texts = (random.normal(size=(count, dim)).astype(np.float32) for count in (5, len(owners)))
    items, texts = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (items, texts))
    return EmbeddedSplit(
        ids=tuple("abcde"),
        captions=("",) * len(owners),
        text_to_item=owners,
        items=items,
        texts=texts,
        item_seconds=0,
        text_seconds=0,
    )


def test_each_caption_of_an_item_counts_alike_and_both_is_the_sum_of_image_and_text(model: DualEncoder) -> None:
    some, head = split(model.dim), model.class_head
    assert head
    predicted = predict_classes(model, some.items, mean_texts(some))
    image, text, bias = (parameter.detach().numpy() for parameter in (head.image.weight, head.text.weight, head.bias))
    root = model.dim**0.5
    for row in range(5):
        of_text = np.mean(
            [text @ some.texts[caption] * root for caption in np.flatnonzero(some.text_to_item == row)], 0
        )
        of_image = image @ some.items[row] * root
        logits = (of_image + bias, of_text + bias, of_image + of_text + bias)
        assert [int(predicted[given][row]) for given in ("image", "text", "both")] == [
            int(row_logits.argmax()) for row_logits in logits
        ]
    both = model.class_probabilities(some.items, mean_texts(some))
    np.testing.assert_allclose(both.sum(axis=1), 1, rtol=1e-5)


def test_items_without_a_known_class_are_left_out_and_the_most_frequent_class_stands_beside(model: DualEncoder) -> None:
    some = split(model.dim)
    scores = evaluate_class_head(model, some, ["memo", None, "memo", "receipt", "form"], resamples=30, seed=0)
    assert scores
    assert scores["queries"] == {"items": 3, "classes": 3}
    assert scores["most_frequent"] == pytest.approx({"accuracy": 200 / 3, "macro_f1": 100 * 0.8 / 2}, abs=1e-4)
    rows = [0, 2, 4]
    for given, numbers in predict_classes(model, some.items, mean_texts(some)).items():
        hits = [NAMES[numbers[row]] == label for row, label in zip(rows, ("memo", "memo", "form"), strict=True)]
        assert scores[given]["accuracy"] == pytest.approx(100 * np.mean(hits), abs=1e-4)
        for name, interval in scores[given]["interval"].items():
            assert 0 <= interval["low"] <= scores[given][name] <= interval["high"] <= 100
    assert evaluate_class_head(model, some, [None] * 5, resamples=30, seed=0) is None


def test_a_head_is_saved_with_its_classes_and_is_part_of_the_digest(model: DualEncoder, tmp_path: Path) -> None:
    model.save(tmp_path / "model")
    loaded, some = DualEncoder.load(tmp_path / "model"), split(model.dim)
    assert loaded.digest == model.digest == loaded.with_image_size(32).digest
    assert loaded.classes == NAMES
    assert loaded.config["classifier"]["column"] == "kind"
    expected = model.class_probabilities(some.items, None)
    np.testing.assert_array_equal(loaded.for_inference().class_probabilities(some.items, None), expected)
    before = model.digest
    model.set_class_head(ClassHead(dim=model.dim, num_classes=3), classes=NAMES, column="kind")
    assert model.digest != before


def test_a_model_without_a_head_has_the_digest_and_the_files_that_it_had(tiny_model: Path, tmp_path: Path) -> None:
    plain = DualEncoder.load(tiny_model)
    before = plain.digest
    plain.set_class_head(ClassHead(dim=plain.dim, num_classes=3), classes=NAMES, column="kind")
    plain.set_class_head(None)
    assert plain.digest == before
    plain.save(tmp_path / "model")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / "model" / name).read_bytes() == (tiny_model / name).read_bytes()
