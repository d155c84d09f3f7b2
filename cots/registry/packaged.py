"""Opens a packaged index without importing MLflow, with the installed code rather than the code in the package."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cots.digests import MLMODEL, verify_content
from cots.errors import BadInput
from cots.registry.catalog import find_local_version
from cots.search_engine.engine import SearchEngine
from cots.search_engine.queries import QueryReader, Where, parse_text

QUERY_COLUMNS = ("text", "image", "k", "media")
CONFIG = {"batch_size": "batch", "max_pixels": "max_pixels", "min_side": "min_side"}  # by field, its name on disk


@dataclass(frozen=True, slots=True)
class PackagedSearch:
    """A loaded search engine with the settings it was packaged with.

    Attributes:
        engine: encoders and index.
        batch_size: queries encoded together.
        max_pixels: images with more pixels are refused without decoding.
        min_side: images with a shorter side are refused, pixels.
    """

    engine: SearchEngine
    batch_size: int
    max_pixels: int
    min_side: int

    def search(
        self,
        queries: object,
        *,
        k: int,
        media: str,
        minus: Sequence[str] = (),
        min_score: float | None = None,
        where: Where = (),
    ) -> list[list[dict[str, Any]]]:
        """Ranked results of each query, best first, in the format that `cots-index` returns through MLflow.

        Args:
            queries, k, media: see `QueryReader`.
            minus, min_score, where: of every query, see `Query`.

        Raises:
            BadInput: a query is malformed, or the items have no such column.
        """
        self.engine.filters.require_columns(where)
        reader = QueryReader(columns=QUERY_COLUMNS, max_pixels=self.max_pixels, min_side=self.min_side)
        texts = tuple(parse_text("minus", text) for text in minus)
        parsed = [
            replace(query, minus=texts, min_score=min_score, where=where) for query in reader(queries, k=k, media=media)
        ]
        return self.engine(parsed, batch_size=self.batch_size)


@contextmanager
def open_search(uri: str, *, texts_only: bool = False) -> Iterator[PackagedSearch]:
    """Open the packaged index at a URI; files that had to be downloaded are deleted when the block ends.

    Args:
        uri: `models:/cots-index@champion`, `models:/cots-index/3`, or an MLflow model folder.
        texts_only: every query will be a text: the image encoder need not be loaded.

    Raises:
        BadInput: the model does not exist, is damaged, or is not a packaged index.
        RunFailed: MLflow is down.
    """
    if local := find_local_version(uri):
        verify_content(local.folder, local.tags, name=uri)
        yield _open_package(local.folder, texts_only=texts_only)
        return
    if (Path(uri) / MLMODEL).is_file():
        yield _open_package(Path(uri), texts_only=texts_only)
        return
    from cots.tracking.loading import fetch_model_folder

    with TemporaryDirectory() as scratch:
        folder = fetch_model_folder(uri, into=Path(scratch))
        yield _open_package(folder, texts_only=texts_only)


def _open_package(folder: Path, *, texts_only: bool) -> PackagedSearch:
    paths, config = read_package(folder)
    return PackagedSearch(SearchEngine.load(paths["encoders"], paths["index"], texts_only=texts_only), **config)


def read_package(folder: Path) -> tuple[dict[str, Path], dict[str, int]]:
    """Paths of encoders and index in an MLflow model folder, and the settings it was packaged with.

    Raises:
        BadInput: the folder is not a packaged index.
    """
    if not (folder / MLMODEL).is_file():
        raise BadInput(f"{folder} is not a packaged index, it has no {MLMODEL}: give package/index or a models:/ URI")
    try:
        flavor = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf8"))["flavors"]["python_function"]
        paths = {name: folder / flavor["artifacts"][name]["path"] for name in ("encoders", "index")}
        return paths, {field: int(flavor["config"][name]) for field, name in CONFIG.items()}
    except (KeyError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{folder} is not a packaged index ({error}): give package/index or a models:/ URI") from None
