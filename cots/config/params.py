"""The whole file."""

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, ValidationError, model_validator

from cots.config.data import Prepare, Source, Tokenize, Validate
from cots.config.model import Dvae, Model
from cots.config.operation import Drift, Evaluate, Gate, Index
from cots.config.training import Finetune, Training
from cots.config.values import Section, Target
from cots.errors import BadInput


class Params(Section):
    """All of `params.yaml`."""

    source: Source
    prepare: Prepare
    validate_: Validate = Field(alias="validate")
    model: Model
    dvae: Dvae
    tokenize: Tokenize
    pretrain: Training
    finetune: dict[Target, Finetune]
    evaluate: Evaluate
    index: Index
    gate: Gate
    drift: Drift

    @model_validator(mode="after")
    def _the_deployed_target_is_trained(self) -> Self:
        if self.index.target not in self.finetune:
            raise ValueError(f"index.target {self.index.target!r} is not among finetune {sorted(self.finetune)}")
        return self

    @model_validator(mode="after")
    def _the_gate_asks_of_what_is_measured(self) -> Self:
        known = {"image-text": ("i2t", "t2i"), "video-text": ("v2t", "t2v")}[self.index.target]
        if self.gate.better not in (None, "both", *known):
            raise ValueError(f"gate.better {self.gate.better} is no direction of index.target {self.index.target}")
        return self

    @model_validator(mode="after")
    def _fine_tuned_sizes_fit(self) -> Self:
        image = self.model.image
        for target, run in self.finetune.items():
            if run.size % image.patch:
                raise ValueError(
                    f"finetune.{target}.size {run.size} is not a multiple of model.image.patch {image.patch}"
                )
            if run.masked and run.size != image.size:
                raise ValueError(
                    f"finetune.{target}: the visual tokens are those of {image.size} pixels, size is {run.size}: "
                    "set objective.weights.token and masked_views to 0"
                )
        return self

    def recipe(self) -> dict[str, Any]:
        """Plain values of all that shapes the model and its index, without what decides about them afterwards."""
        return self.model_dump(mode="json", by_alias=True, exclude={"gate", "drift"})

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Self:
        """Read and check a parameter file.

        Raises:
            BadInput: no such file, not YAML, or wrong keys and values; all mistakes in one message.
        """
        try:
            text = path.read_text(encoding="utf8")
        except FileNotFoundError:
            raise BadInput(
                f"no parameter file {path}: run in the project's folder, or write one with `cots use`"
            ) from None
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"cannot read {path}: {error}") from None
        try:
            return cls.model_validate(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
        except ValidationError as error:
            mistakes = [f"{'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']}" for e in error.errors()]
            raise BadInput(f"{path}: {len(mistakes)} mistake(s): " + "; ".join(mistakes)) from None
