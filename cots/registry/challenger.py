"""Measures a challenger and the champion on the same test queries, as input of the gate."""

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
from cots.tracking.loading import load_encoders


@dataclass(frozen=True, slots=True)
class ChallengerEvaluator:
    """Collects the measurements that the gate decides on.

    Attributes:
        rules: thresholds of the gate.
        rank_queries: ranks the current test queries with the given encoders; returns one row per query, in the
            format of `cots evaluate --queries`.
    """

    rules: GateConfig
    rank_queries: Callable[[DualEncoder], pd.DataFrame]

    def collect_gate_inputs(
        self, client: MlflowClient, champion: ModelVersion, package: Path, lineage: Mapping[str, Any]
    ) -> GateInputs:
        """Compare the challenger in `package` with the champion on the challenger's test queries.

        If images and captions of the test split have not changed, the champion's ranks are those it was registered
        with; otherwise its encoders are evaluated again.
        """
        differences, test_items, drop = None, None, 0.0
        if champion.tags.get("encoder.digest") != lineage["encoder.digest"]:
            challenger_ranks = read_queries(package / EVIDENCE / QUERIES)
            champion_ranks = VersionArtifacts(client, champion).load_queries()
            if champion.tags.get("queries.digest") != lineage["queries.digest"]:
                registered = self._mean_recall(champion_ranks)
                champion_ranks = self.rank_queries(load_encoders(f"models:/{champion.name}/{champion.version}"))
                drop = registered - self._mean_recall(champion_ranks)
            differences = self._compare(challenger_ranks, champion_ranks)
            test_items = challenger_ranks["item"].nunique()
        index = lineage["index"]
        return GateInputs(
            differences=differences,
            test_items=test_items,
            champion_drop=drop,
            recall=index["recall"],
            milliseconds=index["ms_per_query"],
            validated=lineage["validation"]["success"],
        )

    def _compare(self, challenger: pd.DataFrame, champion: pd.DataFrame) -> dict[str, Difference]:
        recalls = mean_recalls(challenger, champion, resamples=self.rules.bootstrap_resamples, seed=self.rules.seed)
        return {
            direction: Difference(recall["challenger"], recall["champion"], recall["low"], recall["high"])
            for direction, recall in recalls.items()
        }

    def _mean_recall(self, ranks: pd.DataFrame) -> float:
        return mean_recalls(ranks, ranks, resamples=1, seed=0)[BOTH]["champion"]
