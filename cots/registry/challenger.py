"""Measures a challenger and the champion on the same test queries, for the gate to decide."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cots.config.gate import GateConfig
from cots.evaluation.comparison import directions_of, mean_recalls, read_queries
from cots.evaluation.metric_table import chance_level, summarize
from cots.evaluation.metrics import RankedQueries
from cots.models.dual_encoder import DualEncoder
from cots.registry.evidence import EVIDENCE, QUERIES, VersionArtifacts
from cots.registry.gate import BOTH, AboveChance, Decision, Difference, GateInputs, decide_first
from cots.tracking.loading import load_encoders

Z = 1.96  # standard deviations on each side of a 95 % interval


@dataclass(frozen=True, slots=True)
class ChallengerEvaluator:
    """Collects the measurements that the gate decides on.

    Attributes:
        rules: thresholds of the gate.
        rank_queries: ranks the current test queries with the given encoders; returns one row per query, in the format
            of `cots evaluate --queries`.
    """

    rules: GateConfig
    rank_queries: Callable[[DualEncoder], pd.DataFrame]

    def collect_gate_inputs(
        self, client: MlflowClient, champion: ModelVersion, package: Path, lineage: Mapping[str, Any]
    ) -> GateInputs:
        """Compare the challenger in `package` with the champion on the challenger's test queries.

        If images and captions of the test split have not changed, the champion's registered ranks are used; otherwise
        its encoders are evaluated again.
        """
        differences: dict[str, Difference] | None = None
        test_items, drop = None, 0.0
        if champion.tags.get("encoder.digest") != lineage["encoder.digest"]:
            challenger_ranks = _read_ranks(package)
            differences, test_items = {}, 0
            if challenger_ranks is not None:
                champion_ranks = VersionArtifacts(client, champion).load_queries()
                if champion.tags.get("queries.digest") != lineage["queries.digest"]:
                    registered = champion_ranks
                    champion_ranks = self.rank_queries(load_encoders(f"models:/{champion.name}/{champion.version}"))
                    if len(registered):
                        drop = self._mean_recall(registered) - self._mean_recall(champion_ranks)
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

    def decide_first(self, package: Path) -> Decision:
        """The gate's decision on a version when there is no other to compare it with."""
        ranks = _read_ranks(package)
        if ranks is None:
            return decide_first({}, 0, self.rules)
        items = ranks["item"].nunique()
        directions = {name: _above_chance(queries, items) for name, queries in directions_of(ranks).items()}
        return decide_first(directions, items, self.rules)

    def _compare(self, challenger: pd.DataFrame, champion: pd.DataFrame) -> dict[str, Difference]:
        recalls = mean_recalls(challenger, champion, resamples=self.rules.bootstrap_resamples, seed=self.rules.seed)
        return {
            direction: Difference(recall["challenger"], recall["champion"], recall["low"], recall["high"])
            for direction, recall in recalls.items()
        }

    def _mean_recall(self, ranks: pd.DataFrame) -> float:
        return mean_recalls(ranks, ranks, resamples=1, seed=0)[BOTH]["champion"]


def _read_ranks(package: Path) -> pd.DataFrame | None:
    """The ranks of the package's test queries; None if the test split has no captions."""
    path = package / EVIDENCE / QUERIES
    return read_queries(path) if pq.read_metadata(path).num_rows else None


def _above_chance(queries: RankedQueries, items: int) -> AboveChance:
    """Recall@10 with the Wilson interval for so many independent items, and its chance level."""
    recall, chance = (scores["R@10"] / 100 for scores in (summarize(queries), chance_level(queries)))
    center = (recall + Z**2 / (2 * items)) / (1 + Z**2 / items)
    half_width = Z / (1 + Z**2 / items) * np.sqrt(recall * (1 - recall) / items + Z**2 / (4 * items**2))
    return AboveChance(*(100 * float(value) for value in (recall, center - half_width, center + half_width, chance)))
