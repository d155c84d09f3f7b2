"""The tables that build objects from configuration hold all that the configuration allows."""

from typing import get_args

from cots.config.objective import LossWeightsConfig, ObjectiveConfig
from cots.factory.objective import OBJECTIVES
from cots.objectives.cots import LossWeights
from tests.objectives.test_cots import objective


def test_every_kind_of_objective_that_the_configuration_allows_has_a_builder() -> None:
    union, _ = get_args(ObjectiveConfig)
    kinds = {get_args(config.model_fields["kind"].annotation)[0] for config in get_args(union)}
    assert OBJECTIVES.keys() == kinds


def test_every_loss_that_has_a_weight_is_computed_by_a_level_of_its_name() -> None:
    levels = objective(queue=0, negatives="online").loss_functions()
    assert set(LossWeights._fields) == LossWeightsConfig.model_fields.keys() == levels.keys()
