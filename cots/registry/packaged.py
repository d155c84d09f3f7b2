"""A packaged index, opened without MLflow and by the code that runs, not by that which travels with the package."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from cots.errors import BadInput
from cots.registry.catalog import local_files
from cots.search.engine import SearchEngine
from cots.search.queries import QueryReader

MLMODEL = "MLmodel"
COLUMNS = ("text", "image", "k", "media")
CONFIG = ("batch", "max_pixels", "min_side")


@dataclass(frozen=True, slots=True)
class PackagedSearch:
    """An open index and what it was packed to be run with.

    Attributes:
        search: encoders and index.
        batch: queries encoded at once; max_pixels, min_side: of images.
    """

    search: SearchEngine
    batch: int
    max_pixels: int
    min_side: int

    def ask(self, queries: object, *, k: int, media: str) -> list[list[dict[str, Any]]]:
        """Results of each query, best first, as `cots-index` gives them to MLflow's callers.

        Raises:
            BadInput: something is no query.
        """
        read = QueryReader(columns=COLUMNS, max_pixels=self.max_pixels, min_side=self.min_side)
        return self.search(read(queries, k=k, media=media), batch=self.batch)


@contextmanager
def opened_search(uri: str) -> Iterator[PackagedSearch]:
    """The packaged index behind an address, to be asked in the block, after which fetched files go.

    Args:
        uri: `models:/cots-index@champion`, `models:/cots-index/3`, or an MLflow model folder.

    Raises:
        BadInput: there is no such model, or it is no packaged index.
        RunFailed: MLflow is down.
    """
    if found := local_files(uri):
        yield open_package(found)
        return
    if (Path(uri) / MLMODEL).is_file():
        yield open_package(Path(uri))
        return
    from cots.registry.loading import model_folder

    with TemporaryDirectory() as scratch:
        yield open_package(model_folder(uri, into=Path(scratch)))


def open_package(folder: Path) -> PackagedSearch:
    """Open an MLflow model folder of `cots-index`.

    Raises:
        BadInput: it is none, or is damaged.
    """
    paths, config = describe(folder)
    return PackagedSearch(SearchEngine.load(paths["encoders"], paths["index"]), **config)


def describe(folder: Path) -> tuple[dict[str, Path], dict[str, int]]:
    """Where encoders and index of an MLflow model folder are, and what it is to be run with.

    Raises:
        BadInput: it is no packaged index.
    """
    if not (folder / MLMODEL).is_file():
        raise BadInput(
            f"{folder} is no packaged index (it is not an MLflow model folder): give package/index or an address"
        )
    try:
        flavor = yaml.safe_load((folder / MLMODEL).read_text(encoding="utf8"))["flavors"]["python_function"]
        paths = {name: folder / flavor["artifacts"][name]["path"] for name in ("encoders", "index")}
        return paths, {name: int(flavor["config"][name]) for name in CONFIG}
    except (KeyError, OSError, TypeError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{folder} is no packaged index ({error}): give package/index or an address") from None
