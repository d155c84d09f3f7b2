from pathlib import Path

import pytest

from cots.data.store import finish_list, keep_part, start_list
from cots.errors import RunFailed
from cots.flows.tasks import repro, repro_alone

pytestmark = pytest.mark.slow


def test_no_flow_begins_with_data_whose_objects_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    start_list(Path("data/shards"), Path("store"))
    Path("data/shards/a").write_bytes(b"a")
    keep_part(Path("data/shards/a"))
    finish_list(Path("data/shards"))
    next(Path("store").glob("*/*")).unlink()
    for task in (repro, repro_alone):
        with pytest.raises(RunFailed, match="which holds data/shards/a, is missing: run `dvc repro --force prepare`"):
            task.fn("evaluate")
