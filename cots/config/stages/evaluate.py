"""Sections that stage `evaluate` reads."""

from typing import Any, Self

from pydantic import Field, model_validator

from cots.config.dvae import DvaeSection
from cots.config.evaluate import EvaluateSection
from cots.config.model import ModelSection
from cots.config.prepare import PrepareSection
from cots.config.tokenize import TokenizeSection
from cots.config.training import FinetuneSection, PretrainSection
from cots.config.validate import ValidateSection


class EvaluateParams(
    PrepareSection,
    ValidateSection,
    ModelSection,
    DvaeSection,
    TokenizeSection,
    PretrainSection,
    FinetuneSection,
    EvaluateSection,
):
    """Sections that stage `evaluate` reads: its own, and those of the runs that the report describes.

    `source` is shown as the file says it: stage `prepare` checks it, with classes that stand beside the readers.
    """

    source: Any = Field(default={"kind": "scenes"}, description="The data set and its layout.")

    @model_validator(mode="after")
    def _check_finetune_sizes(self) -> Self:
        image = self.model.image
        for target, run in self.finetune.items():
            if run.size % image.patch:
                raise ValueError(
                    f"finetune.{target}.size {run.size} is not a multiple of model.image.patch {image.patch}"
                )
            if run.objective.masks_images and run.size != image.size:
                raise ValueError(
                    f"finetune.{target}: the visual tokens are of images of {image.size} pixels, size is {run.size}: "
                    "set objective.loss_weights.token and masked_views to 0"
                )
        return self

    def dump_evaluated(self) -> dict[str, Any]:
        """Plain values of all sections that decide the model and its metrics, in the order of the file."""
        names = ("source", "prepare", "validate", "model", "dvae", "tokenize", "pretrain", "finetune", "evaluate")
        sections = self.model_dump(mode="json", by_alias=True)
        return {name: sections[name] for name in names}
