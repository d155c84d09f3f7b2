"""All sections of `params.yaml`."""

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
    PrepareParams,
    PackageParams,
    ValidateParams,
    TrainDvaeParams,
    TokenizeParams,
    PretrainParams,
    FinetuneParams,
    IndexParams,
    GateSection,
    DriftSection,
):
    """All sections of `params.yaml`, usable as the parameters of any stage; unknown sections are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="after")
    def _check_gate_direction(self) -> Self:
        directions = DIRECTIONS[MEDIA_OF[self.index.target]]
        if self.gate.must_improve not in (None, "both", *directions):
            raise ValueError(
                f"gate.must_improve {self.gate.must_improve} is not a direction of index.target {self.index.target}"
            )
        return self

    @model_validator(mode="after")
    def _check_index_factory(self) -> Self:
        starts = [self.model.init_from, *(run.init_from for run in self.finetune.values())]
        if self.index.factory != "auto" and not any(starts):  # a model to start from has a dimension of its own
            from cots.index.embedding_index import create_untrained  # FAISS, which "auto" does not need

            try:
                create_untrained(self.model.dim, self.index.factory)
            except ValueError as error:
                raise ValueError(f"index.factory: {error}") from None
        return self

    def dump_all(self) -> dict[str, Any]:
        """Plain values of all sections, in the order of the file."""
        gate, drift = self.gate.model_dump(mode="json"), self.drift.model_dump(mode="json")
        return self.dump_packaged() | {"gate": gate, "drift": drift}
