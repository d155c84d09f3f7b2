"""The registered model `cots-index`, as MLflow loads it: this file travels with all of `cots` that it imports."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from cots.search.engine import SearchEngine
from cots.search.queries import DEFAULT_K, DEFAULT_MEDIA, QueryReader


class IndexModel(PythonModel):
    """Ranked search results for texts and pictures."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open encoders and index; refuses an index of other encoders."""
        self.search = SearchEngine.load(Path(context.artifacts["encoders"]), Path(context.artifacts["index"]))
        config = context.model_config
        self.batch = config["batch"]
        self.read = QueryReader(
            columns=("text", "image", "k", "media"), max_pixels=config["max_pixels"], min_side=config["min_side"]
        )

    # The annotation keeps MLflow from checking types: it knows no "list of texts or table". `QueryReader` knows.
    def predict(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Results of each query, best first.

        Args:
            context: MLflow's.
            model_input: see `QueryReader`; a list of texts, or a table with text / image / k / media.
            params: `k` and `media`, of the queries that do not say it themselves.
        """
        asked = {"k": DEFAULT_K, "media": DEFAULT_MEDIA} | (params or {})
        return self.search(self.read(model_input, k=asked["k"], media=asked["media"]), batch=self.batch)


set_model(IndexModel())
