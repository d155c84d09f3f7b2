"""MLflow model code of `cots-encoders`; packaged together with every `cots` module it imports."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from cots.digests import verify_sums
from cots.models.dual_encoder import DualEncoder
from cots.search_engine.queries import DEFAULT_K, QueryReader, encode_queries


class EncodersModel(PythonModel):
    """Encodes texts and images to unit vectors in the shared embedding space."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load both encoders; damaged files are refused."""
        verify_sums(Path(context.artifacts["encoders"]).parents[1])
        self.model = DualEncoder.load(Path(context.artifacts["encoders"])).for_inference()
        config = context.model_config
        self.batch_size = config["batch"]
        self.reader = QueryReader(
            columns=("text", "image"), max_pixels=config["max_pixels"], min_side=config["min_side"]
        )

    # The annotation disables MLflow's type check, which cannot express "list of texts or table"; `QueryReader` checks.
    def predict(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Embeddings (N, D) with unit rows, one for each input row.

        Args:
            context: MLflow's.
            model_input: see `QueryReader`; a list of texts, or a table with text / image.
            params: ignored; the model has none.
        """
        return encode_queries(self.model, self.reader(model_input, k=DEFAULT_K), batch_size=self.batch_size)


set_model(EncodersModel())
