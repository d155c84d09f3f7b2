"""The base of all configuration classes, and types of their values."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
CodebookSize = Annotated[int, Field(ge=2, le=65536)]  # tokens are stored in 16 bits
SplitName = Literal["train", "val", "test"]


class Config(BaseModel):
    """A part of `params.yaml`: unknown keys are errors, values never change.

    Every key has its default and its meaning beside its type: `Field(default=..., description=...)`. The first sentence
    of the description becomes the comment in a parameter file, all of it the reference (docs/params.md). A key that
    came after 0.1.0 says `json_schema_extra={"since": "0.2.0"}`: a checkpoint from before is then still recognised
    where the key has its default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _missing_keys_take_their_defaults(cls, values: Any) -> Any:  # noqa: ANN401  YAML
        return completed(cls, values)


def completed(model: type[BaseModel], values: Any) -> Any:  # noqa: ANN401  YAML
    """A mapping whose parts that name some keys have the others of the default at that place, not of their class."""
    if not isinstance(values, dict):
        return values
    defaults = {field.alias or name: field.default for name, field in model.model_fields.items()}
    return {key: _over(defaults.get(key), value) for key, value in values.items()}


def _over(default: object, value: Any) -> Any:  # noqa: ANN401  YAML
    if not isinstance(default, Config) or not isinstance(value, Mapping):
        return value
    keys = dict(default)
    if value.get("kind") != keys.get("kind") and "kind" in value:
        return value
    return keys | {key: _over(keys.get(key), inner) for key, inner in value.items()}
