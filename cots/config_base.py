"""Value types, and the base class of every mapping in `params.yaml`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # of NumPy and torch alike
CodebookSize = Annotated[int, Field(ge=2, le=65536)]  # tokens are stored in 16 bits


def _not_written_here(name: str) -> str:
    if Path(name).parts[:1] == ("models",):
        raise ValueError(
            f"{name} is written by this pipeline, and DVC removes it before the stage runs: copy the folder"
        )
    return name


Start = Annotated[str, AfterValidator(_not_written_here)]  # a model that training starts from
SplitName = Literal["train", "val", "test"]


class Config(BaseModel):
    """A mapping in `params.yaml`; unknown keys and infinite numbers are errors, instances are immutable.

    Every key has its default and description beside its type: `Field(default=..., description=...)`. The first sentence
    of the description becomes the comment in a parameter file, the whole of it goes into docs/params.md. A key added
    after 0.1.0 has `json_schema_extra={"since": "0.2.0"}`: older checkpoints then stay valid while the key has its
    default.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _fill_defaults(cls, values: Any) -> Any:  # noqa: ANN401  YAML
        return fill_defaults(cls, values)


def fill_defaults(model: type[BaseModel], values: Any) -> Any:  # noqa: ANN401  YAML
    """Fill nested mappings with the defaults of the field that holds them; those of their class may differ."""
    if not isinstance(values, dict):
        return values
    defaults = {field.alias or name: field.default for name, field in model.model_fields.items()}
    return {key: _merge(defaults.get(key), value) for key, value in values.items()}


def _merge(default: object, value: Any) -> Any:  # noqa: ANN401  YAML
    if not isinstance(default, Config) or not isinstance(value, Mapping):
        return value
    merged = dict(default)
    if value.get("kind") != merged.get("kind") and "kind" in value:
        return value
    return merged | {key: _merge(merged.get(key), inner) for key, inner in value.items()}
