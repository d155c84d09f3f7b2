"""A challenger held against the champion: both on the same test queries, then the gate."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cots.config.gate import GateConfig
from cots.evaluation.comparison import mean_recalls, read_queries
from cots.models.dual_encoder import DualEncoder
from cots.registry.evidence import EVIDENCE, QUERIES, VersionArtifacts
from cots.registry.gate import BOTH, Difference, GateInputs
from cots.registry.loading import load_encoders


@dataclass(frozen=True, slots=True)
class ChallengerEvaluator:
    """Measures what the gate decides on.

    Attributes:
        rules: of the gate.
        asked: ranks the present test queries under some encoders: a row a query, as `cots evaluate --queries` writes.
    """

    rules: GateConfig
    asked: Callable[[DualEncoder], pd.DataFrame]

    def gate_inputs(
        self, client: MlflowClient, champion: ModelVersion, package: Path, lineage: Mapping[str, Any]
    ) -> GateInputs:
        """The challenger in `package` beside the champion, on the challenger's test queries.

        The champion's ranks are those that it was registered with where pictures and captions of the test split are
        the same; otherwise its encoders are asked anew.
        """
        differences, fall = None, 0.0
        if champion.tags["encoder.digest"] != lineage["encoder.digest"]:
            ours, theirs = read_queries(package / EVIDENCE / QUERIES), VersionArtifacts(client, champion).queries()
            if champion.tags["queries.digest"] != lineage["queries.digest"]:
                before = self._mean_recall(theirs)
                theirs = self.asked(load_encoders(f"models:/{champion.name}/{champion.version}"))
                fall = before - self._mean_recall(theirs)
            differences = self._differences(ours, theirs)
        about = lineage["index"]
        return GateInputs(
            differences=differences,
            champion_drop=fall,
            recall=about["recall"],
            milliseconds=about["ms_per_query"],
            validated=lineage["validation"]["success"],
        )

    def _differences(self, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Difference]:
        found = mean_recalls(ours, theirs, resamples=self.rules.bootstrap_resamples, seed=self.rules.seed)
        return {
            name: Difference(one["challenger"], one["champion"], one["low"], one["high"]) for name, one in found.items()
        }

    def _mean_recall(self, table: pd.DataFrame) -> float:
        return mean_recalls(table, table, resamples=1, seed=0)[BOTH]["champion"]
