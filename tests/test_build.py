"""The tables that build objects from configuration hold all that the configuration allows."""

from typing import get_args

from cots.build import OBJECTIVES
from cots.config.objective import LossWeightsConfig, ObjectiveConfig
from cots.objective import LossWeights
from tests.test_objective import objective


def test_every_kind_of_objective_that_the_configuration_allows_has_a_builder() -> None:
    union, _ = get_args(ObjectiveConfig)
    kinds = {get_args(config.model_fields["kind"].annotation)[0] for config in get_args(union)}
    assert OBJECTIVES.keys() == kinds


def test_every_loss_that_has_a_weight_is_computed_by_a_level_of_its_name() -> None:
    levels = objective(queue=0, negatives="online").levels()
    assert set(LossWeights._fields) == LossWeightsConfig.model_fields.keys() == levels.keys()
