"""Sections that stage `evaluate` reads."""

from typing import Any, Self

from pydantic import model_validator

from cots.config.dvae import DvaeSection
from cots.config.evaluate import EvaluateSection
from cots.config.model import ModelSection
from cots.config.prepare import PrepareSection
from cots.config.source import SourceSection
from cots.config.tokenize import TokenizeSection
from cots.config.training import FinetuneSection, PretrainSection
from cots.config.validate import ValidateSection


class EvaluateParams(
    SourceSection,
    PrepareSection,
    ValidateSection,
    ModelSection,
    DvaeSection,
    TokenizeSection,
    PretrainSection,
    FinetuneSection,
    EvaluateSection,
):
    """Sections that stage `evaluate` reads: its own, and those of the run that the report describes."""

    @model_validator(mode="after")
    def _fine_tuned_sizes_fit(self) -> Self:
        image = self.model.image
        for target, run in self.finetune.items():
            if run.size % image.patch:
                raise ValueError(
                    f"finetune.{target}.size {run.size} is not a multiple of model.image.patch {image.patch}"
                )
            if run.objective.masked and run.size != image.size:
                raise ValueError(
                    f"finetune.{target}: the visual tokens are those of {image.size} pixels, size is {run.size}: "
                    "set objective.loss_weights.token and masked_views to 0"
                )
        return self

    def described(self) -> dict[str, Any]:
        """Plain values of all that shapes the model and what is measured of it, in the order of a file."""
        names = ("source", "prepare", "validate", "model", "dvae", "tokenize", "pretrain", "finetune", "evaluate")
        values = self.model_dump(mode="json", by_alias=True)
        return {name: values[name] for name in names}
