"""Sections that stage `package` reads."""

from typing import Any, Self

from pydantic import model_validator

from cots.config.index import IndexSection
from cots.config.stages.evaluate import EvaluateParams


class PackageParams(EvaluateParams, IndexSection):
    """Sections that stage `package` reads: those that decide the model and its index, for its cards and evidence."""

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        if self.index.target not in self.finetune:
            raise ValueError(f"index.target {self.index.target!r} is not a key of finetune {sorted(self.finetune)}")
        return self

    def dump_packaged(self) -> dict[str, Any]:
        """Plain values of all sections that decide the model and its index, without those about its deployment."""
        return self.dump_evaluated() | {"index": self.index.model_dump(mode="json")}
