"""The whole file."""

from typing import Any, Self

from pydantic import ConfigDict, model_validator

from cots.config.drift import DriftSection
from cots.config.gate import GateSection
from cots.config.stages.finetune import FinetuneParams
from cots.config.stages.index import IndexParams
from cots.config.stages.package import PackageParams
from cots.config.stages.prepare import PrepareParams
from cots.config.stages.pretrain import PretrainParams
from cots.config.stages.tokenize import TokenizeParams
from cots.config.stages.train_dvae import TrainDvaeParams
from cots.config.stages.validate import ValidateParams
from cots.directions import DIRECTIONS, MEDIA_OF


class Params(
    PackageParams,
    PrepareParams,
    ValidateParams,
    TrainDvaeParams,
    TokenizeParams,
    PretrainParams,
    FinetuneParams,
    IndexParams,
    GateSection,
    DriftSection,
):
    """All of `params.yaml`; unknown sections are errors too. It can stand for the parameters of any stage."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _the_gate_asks_of_what_is_measured(self) -> Self:
        known = DIRECTIONS[MEDIA_OF[self.index.target]]
        if self.gate.must_improve not in (None, "both", *known):
            raise ValueError(
                f"gate.must_improve {self.gate.must_improve} is no direction of index.target {self.index.target}"
            )
        return self

    def whole(self) -> dict[str, Any]:
        """Plain values of the whole file, in its order."""
        decides = {"gate": self.gate.model_dump(mode="json"), "drift": self.drift.model_dump(mode="json")}
        return self.recipe() | decides
