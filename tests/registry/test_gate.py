import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cots.config.gate import GateConfig
from cots.registry.gate import ITEM_SD, Difference, GateInputs, decide, detectable_gain, required_test_items

RULES = GateConfig(
    non_inferiority_margin=2.0, max_champion_drop=5.0, min_recall=0.9, max_latency_ms=10.0, bootstrap_resamples=10
)
GAINED = {
    "i2t": Difference(41.0, 40.0, -1.9, 3.0),
    "t2i": Difference(42.0, 40.0, 1.0, 3.0),
    "both": Difference(41.5, 40.0, 0.1, 2.5),
}


def inputs(**changed: object) -> GateInputs:
    usual = {"differences": GAINED, "test_items": 30, "champion_drop": 0.0, "recall": 1.0, "milliseconds": 1.0}
    return GateInputs(**(usual | {"validated": True} | changed))  # type: ignore[arg-type]


def test_a_gain_that_loses_nowhere_is_promoted_with_its_figures() -> None:
    decision = decide(inputs(), RULES)
    assert decision.promote
    assert decision.reasons[-1] == "mean recall of both directions 41.5 % vs champion 40.0 (+1.5, 95 % CI +0.1 to +2.5)"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"validated": False}, "data validation failed"),
        ({"recall": 0.899}, "index recall 89.9% of exact search; at least 90.0% required"),
        ({"milliseconds": 10.5}, "index latency 10.50 ms per query; at most 10 ms allowed"),
        ({"champion_drop": 5.1}, "the champion scores 5.1 points less"),
        ({"test_items": 29}, "has 29 of the 30 items .* show which encoders are better: add images"),
        (
            {"differences": GAINED | {"i2t": Difference(41.0, 40.0, -2.1, 4.0)}},
            "image to text 41.0 % .*; allowed -2\\) may be worse",
        ),
        ({"differences": GAINED | {"both": Difference(41.0, 40.0, -0.1, 2.0)}}, "both directions .* not shown"),
    ],
)
def test_each_rule_refuses_by_itself_and_says_why(changed: dict[str, object], reason: str) -> None:
    decision = decide(inputs(**changed), RULES)
    assert not decision.promote
    [only] = decision.reasons
    assert re.search(reason, only)


def test_every_objection_is_reported() -> None:
    decision = decide(inputs(validated=False, recall=0.0, milliseconds=99.0, champion_drop=9.0), RULES)
    assert len(decision.reasons) == 4


def test_a_bound_that_is_met_exactly_is_met() -> None:
    edge = GAINED | {"i2t": Difference(40.0, 40.0, -2.0, 2.0)}
    assert decide(inputs(differences=edge, champion_drop=5.0, recall=0.9, milliseconds=10.0), RULES).promote


def test_where_nothing_must_gain_no_loss_is_enough() -> None:
    same = dict.fromkeys(GAINED, Difference(40.0, 40.0, -1.0, 1.0))
    assert not decide(inputs(differences=same), RULES).promote
    assert decide(inputs(differences=same), RULES.model_copy(update={"must_improve": None})).promote


def test_the_same_encoders_need_not_gain_but_their_index_must_be_sound() -> None:
    same = inputs(differences=None, test_items=None)
    assert decide(same, RULES).reasons == ("same encoders as the champion",)
    assert not decide(replace(same, recall=0.5), RULES).promote


def test_on_one_query_an_interval_without_width_shows_nothing() -> None:
    certain = dict.fromkeys(GAINED, Difference(100.0, 0.0, 100.0, 100.0))
    decision = decide(inputs(differences=certain, test_items=1), RULES)
    assert not decision.promote
    assert decision.reasons[0].startswith("the test split has 1 of the 30 items")


def test_so_many_test_items_show_a_gain_as_large_as_the_margin_and_one_fewer_does_not() -> None:
    rules = GateConfig()
    needed = required_test_items(rules)
    assert needed == 385
    assert detectable_gain(needed) <= rules.non_inferiority_margin < detectable_gain(needed - 1)
    assert required_test_items(rules.model_copy(update={"non_inferiority_margin": 50.0})) == rules.min_test_items
    assert required_test_items(rules.model_copy(update={"non_inferiority_margin": 0.0})) is None


def test_the_detectable_gain_is_half_the_interval_of_a_bootstrap_and_what_the_document_says() -> None:
    rng = np.random.default_rng(0)
    differences = rng.choice([-100.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 100.0], 385)  # of models that correlate by 1/2
    assert differences.std() == pytest.approx(ITEM_SD, rel=0.1)
    low, high = np.percentile(rng.choice(differences, (4000, 385)).mean(axis=1), [2.5, 97.5])
    assert (high - low) / 2 == pytest.approx(detectable_gain(385), rel=0.1)
    page = (Path(__file__).parents[2] / "docs/evaluation.md").read_text()
    stated = re.findall(r"([\d,]+) items (\d+\.\d)", page)
    assert len(stated) == 4
    assert [float(gain) for _, gain in stated] == [
        round(detectable_gain(int(items.replace(",", ""))), 1) for items, _ in stated
    ]
