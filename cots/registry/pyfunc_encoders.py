"""The registered model `cots-encoders`, as MLflow loads it: this file travels with all of `cots` that it imports."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from numpy.typing import NDArray

from cots.models.dual_encoder import DualEncoder
from cots.search.queries import DEFAULT_K, QueryReader, encode_queries


class EncodersModel(PythonModel):
    """Texts and pictures to unit vectors of one space."""

    def load_context(self, context: PythonModelContext) -> None:
        """Open both streams."""
        self.model = DualEncoder.load(Path(context.artifacts["encoders"])).for_inference()
        config = context.model_config
        self.batch = config["batch"]
        self.read = QueryReader(columns=("text", "image"), max_pixels=config["max_pixels"], min_side=config["min_side"])

    # The annotation keeps MLflow from checking types: it knows no "list of texts or table". `QueryReader` knows.
    def predict(
        self, context: object, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> NDArray[np.float32]:
        """Unit rows (N, D), one for each row of the input.

        Args:
            context: MLflow's.
            model_input: see `QueryReader`; a list of texts, or a table with text / image.
            params: none are known.
        """
        return encode_queries(self.model, self.read(model_input, k=DEFAULT_K), batch=self.batch)


set_model(EncodersModel())
