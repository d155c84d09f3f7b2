"""Kinds of numbers, and what every section is."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]
Codes = Annotated[int, Field(ge=2, le=65536)]  # size of a codebook; tokens are stored in 16 bits
PositiveFloat = Annotated[float, Field(gt=0)]
SplitName = Literal["train", "val", "test"]
Target = Literal["image-text", "video-text"]
MEDIA: dict[Target, Literal["image", "video"]] = {"image-text": "image", "video-text": "video"}  # that it finds


class Section(BaseModel):
    """A part of `params.yaml`: unknown keys are errors, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True)
