"""Sections that stage `train_dvae` reads."""

from typing import Self

from pydantic import model_validator

from cots.config.dvae import DvaeSection
from cots.config.model import ModelSection
from cots.config.tokenize import TokenizeSection


class TrainDvaeParams(ModelSection, DvaeSection, TokenizeSection):
    """Sections that stage `train_dvae` reads."""

    @model_validator(mode="after")
    def _check_batch(self) -> Self:
        if self.dvae.kind == "train" and self.dvae.batch_size == 1 and self.model.image.grid == 1:
            raise ValueError(
                "dvae.batch_size 1 with a single patch: a batch needs two visual tokens for its statistics"
            )
        return self
