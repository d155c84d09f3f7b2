"""Model and data card: the Hub can read them, and all their numbers were measured."""

import json
from pathlib import Path

import pytest
import yaml
from huggingface_hub import DatasetCard, ModelCard

from cots.registry.cards import DATA_CARD, MODEL_CARD


@pytest.fixture(params=["encoders", "index"])
def packed(request: pytest.FixtureRequest, tiny_package: Path) -> Path:
    return tiny_package / str(request.param)


def test_the_hub_reads_the_model_card_with_every_measured_result(packed: Path, tiny_package: Path) -> None:
    card = ModelCard.load(packed / MODEL_CARD)
    measured = json.loads((tiny_package.parent / "reports/metrics.json").read_text())["image-text"]
    results = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert results == {
        f"{direction} {name}": measured[direction][name]
        for direction in ("i2t", "t2i")
        for name in ("R@1", "R@5", "R@10", "mAP@R", "MdR")
    }
    assert {result.dataset_split for result in card.data.eval_results} == {"test"}
    assert "| text to image | R@5 | 40.0 | 39.0 to 41.0 | 1.0 |" in card.text
    assert json.loads((tiny_package / "lineage.json").read_text())["encoder.digest"] in card.text


def test_the_hub_reads_the_data_card_with_counts_and_rejects(packed: Path) -> None:
    card = DatasetCard.load(packed / DATA_CARD)
    assert card.data.size_categories == ["n<1K"]
    assert "| test | image | 1 | 0 |" in card.text
    assert "| train | image | 2 | 3 |" in card.text
    assert "Rejected before training: 2 damaged, 1 too small." in card.text
    assert "| ids are unique | all | 0 of 3 fail | yes |" in card.text


def test_front_matter_is_plain_yaml_and_nothing_is_left_to_fill_in(packed: Path) -> None:
    for name in (MODEL_CARD, DATA_CARD):
        text = (packed / name).read_text()
        _, front, body = text.split("---\n", 2)
        assert isinstance(yaml.safe_load(front), dict)
        assert "{{" not in body
        assert "\n\n\n\n" not in body
