"""Prepares several sources in one process: `python -m cots.launch tests.stages.prepare_worker JOBS PART_SIZE`.

JOBS is a JSON file: a list of parameters and paths of the stage. Processes share the work as those of the stage do.
"""

import json
import sys
from pathlib import Path

import pytest

from cots.config.stages.prepare import PrepareParams
from cots.init_distributed import init_distributed
from cots.stages.prepare import stage

if __name__ == "__main__":
    for module in ("parts", "scenes.source"):
        pytest.MonkeyPatch().setattr(f"cots.data.sources.{module}.PART_SIZE", int(sys.argv[2]))
    with init_distributed(needs_accelerator=False):
        for values, paths in json.loads(Path(sys.argv[1]).read_text(encoding="utf8")):
            params = PrepareParams.model_validate(values)
            stage(params.source.path, *map(Path, paths), params=params)
