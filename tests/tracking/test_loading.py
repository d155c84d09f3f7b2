"""Loading models by URI."""

import tempfile
from pathlib import Path

import pytest

from cots.registry.client import INDEX
from cots.registry.packaged import open_search
from cots.registry.registry import Registry
from cots.tracking.loading import load_encoders
from tests.deployed import register


@pytest.mark.slow
def test_what_is_fetched_from_the_registry_answers_and_is_not_kept(
    store: str, tiny_package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(Registry(), tiny_package)
    scratch = tmp_path / "temporary"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    encoders = load_encoders(f"models:/{INDEX}@champion")
    with open_search(f"models:/{INDEX}@champion") as search:
        [results] = search.search(["a red square"], k=10, media="any")
        assert search.engine.result_images(results)
    assert encoders.encode_texts(["a red square"], batch_size=1).shape[0] == 1
    assert results
    assert not list(scratch.iterdir())
