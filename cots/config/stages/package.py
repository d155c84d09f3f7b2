"""Sections that stage `package` reads."""

from typing import Any, Self

from pydantic import model_validator

from cots.config.index import IndexSection
from cots.config.stages.evaluate import EvaluateParams


class PackageParams(EvaluateParams, IndexSection):
    """Sections that stage `package` reads: all that shape the model and its index, for its cards and evidence."""

    @model_validator(mode="after")
    def _the_deployed_target_is_trained(self) -> Self:
        if self.index.target not in self.finetune:
            raise ValueError(f"index.target {self.index.target!r} is not among finetune {sorted(self.finetune)}")
        return self

    def recipe(self) -> dict[str, Any]:
        """Plain values of all that shapes the model and its index, without what decides about them afterwards."""
        return self.described() | {"index": self.index.model_dump(mode="json")}
