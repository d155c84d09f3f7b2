"""MLflow model code of `cots-index`; packaged together with every `cots` module it imports."""

from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from cots.digests import verify_sums
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import DEFAULT_K, DEFAULT_MEDIA, QueryReader


class IndexModel(PythonModel):
    """Ranked search results for texts and images."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load encoders and index; damaged files and an index built by other encoders are refused."""
        verify_sums(Path(context.artifacts["index"]).parents[1])
        self.search = SearchEngine.load(Path(context.artifacts["encoders"]), Path(context.artifacts["index"]))
        config = context.model_config
        self.batch_size = config["batch"]
        self.reader = QueryReader(
            columns=("text", "image", "k", "media"), max_pixels=config["max_pixels"], min_side=config["min_side"]
        )

    # The annotation disables MLflow's type check, which cannot express "list of texts or table"; `QueryReader` checks.
    def predict(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> list[list[dict[str, Any]]]:
        """Ranked results of each query, best first.

        Args:
            context: MLflow's.
            model_input: see `QueryReader`; a list of texts, or a table with text / image / k / media.
            params: `k` and `media`, the defaults for queries that set neither.
        """
        settings = {"k": DEFAULT_K, "media": DEFAULT_MEDIA} | (params or {})
        return self.search(
            self.reader(model_input, k=settings["k"], media=settings["media"]), batch_size=self.batch_size
        )


set_model(IndexModel())
