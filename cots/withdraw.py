"""Takes withdrawn samples out of the deployed index at once: without the data, without encoding, without the gate."""

import shutil
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import webdataset as wds
from numpy.typing import NDArray

from cots.config.index import IndexConfig
from cots.data.manifest import PIECE
from cots.data.object_cache import local_part
from cots.data.store import keep_folder, store_of
from cots.errors import BadInput, CotsError, RunFailed
from cots.file_names import LINEAGE
from cots.files import locked, write_json
from cots.index.distinct_captions import DistinctCaptions
from cots.index.embedding_file import BLOCK, EmbeddingFile
from cots.index.embedding_index import EmbeddingIndex
from cots.index.frame_embeddings import FrameEmbeddings
from cots.index.index_folder import CAPTION_INDEX, CAPTIONS, FIT, FRAMES, ITEM_INDEX, ITEMS, THUMBNAILS
from cots.index.thumbnails import Thumbnails
from cots.project_files import LOCK_FILE
from cots.registry.alias_manager import format_ids
from cots.registry.cards import DATA_CARD, MODEL_CARD
from cots.registry.client import CHAMPION, INDEX
from cots.registry.evidence import VersionArtifacts
from cots.registry.packaged import read_package
from cots.registry.packaging import InferenceConfig, save_index
from cots.registry.registry import Registry
from cots.registry.versions import VersionInfo, write_runs
from cots.search_engine.engine import read_metadata
from cots.stages.index import write_index, write_tables
from cots.stages.package import describe_index
from cots.tracking.git import git_state
from cots.tracking.loading import fetch_model_folder

WORK = Path("runs/withdraw")


def deploy_without_withdrawn() -> int | None:
    """Deploy the champion's index without the samples that the registry lists as withdrawn.

    Waits for another withdrawal in this folder to end. If one was killed, the next one completes it.

    If somebody has deleted the champion or its alias, the version that was deployed last takes its place, because
    services go on with what they have loaded.

    Returns:
        The version that is deployed now; None if nothing was ever deployed, or the champion's index has no withdrawn
        sample.

    Raises:
        RunFailed: samples are still served, and the message says by which version, and why; or every version that was
            deployed has been deleted, so that services may go on with one of them.
    """
    champion = None
    try:
        WORK.parent.mkdir(exist_ok=True)
        with locked(WORK.parent):
            shutil.rmtree(WORK, ignore_errors=True)  # left by a withdrawal that was killed
            registry = Registry()
            registry.complete_promotion()
            champion = registry.find_last_deployed()
            if champion is None:
                _require_never_deployed(registry)
                return None
            if withdrawn := registry.find_withdrawn(champion.version):
                return _replace(registry, champion, withdrawn)
            if CHAMPION in champion.aliases:
                return None
            why = "services go on with the deleted champion, which may have withdrawn samples"
            registry.promote(champion.version, why=why)
            return champion.version
    except (CotsError, OSError, ValueError, KeyError) as error:
        served = f"are still served by {INDEX} version {champion.version}" if champion else "may still be served"
        raise RunFailed(f"withdrawn samples {served}: {str(error).splitlines()[0]}; then repeat the command") from error


def _require_never_deployed(registry: Registry) -> None:
    if registry.list_promotions():
        raise RunFailed(
            f"every version of {INDEX} that was deployed has been deleted, and services go on with what they have "
            "loaded: deploy another by `cots registry promote` or `cots index FOLDER`, or end the services"
        )


def _replace(registry: Registry, champion: VersionInfo, withdrawn: Collection[str]) -> int:
    package, runs = WORK / "package", WORK / "runs"
    WORK.mkdir()
    try:
        _package(champion, registry.get_artifacts(champion.version), withdrawn, package)
        write_runs(champion, runs)
        why = f"without withdrawn samples: {format_ids(withdrawn)}"
        return registry.deploy(package, runs, LOCK_FILE, why=why)
    finally:
        shutil.rmtree(WORK, ignore_errors=True)


def _package(champion: VersionInfo, artifacts: VersionArtifacts, withdrawn: Collection[str], package: Path) -> None:
    """Write the champion's package, with an index of its remaining samples."""
    scratch = package.parent / "champion"
    scratch.mkdir()
    model = fetch_model_folder(f"models:/{INDEX}/{champion.version}", into=scratch)
    paths, config = read_package(model)
    settings = IndexConfig.model_validate(artifacts.load_params()["index"])
    index, out = package.parent / "index", package / "index"
    write_index_without(withdrawn, paths["index"], index, settings=settings)
    keep_folder(index, store_of(paths["index"]), stage="index")
    cards = {name: (model / name).read_text(encoding="utf8") for name in (MODEL_CARD, DATA_CARD)}
    save_index(out, paths["encoders"], index, config=InferenceConfig(**config), cards=cards)
    artifacts.download_evidence(package)
    write_json(package / LINEAGE, artifacts.load_lineage() | git_state() | describe_index(index, out))


def write_index_without(withdrawn: Collection[str], index: Path, out: Path, *, settings: IndexConfig) -> None:
    """Write an index folder without some of its items; the embeddings of the others stay as they are.

    Raises:
        RunFailed: no items remain.
        ValueError, OSError, KeyError: a file is missing or damaged.
    """
    read_items = partial(_read_without, withdrawn, local_part(index / ITEMS))
    ids = pd.read_parquet(local_part(index / ITEMS), columns=["id"])["id"]
    rows = np.flatnonzero(~ids.isin(withdrawn).to_numpy())
    if not len(rows):
        raise RunFailed("its index has no other samples: register one that has")
    out.mkdir()
    if (index / FIT).is_file():
        shutil.copyfile(index / FIT, out / FIT)
    frames, thumbnails = FrameEmbeddings.load(index / FRAMES), Thumbnails(index / THUMBNAILS)
    frames.select(rows).save(out / FRAMES)
    counts = np.maximum(np.diff(frames.starts), 1).tolist()  # an image has a thumbnail, but no frame embedding
    with wds.TarWriter(str(out / THUMBNAILS), mtime=0, encoder=False) as tar:
        for row, old_row in enumerate(rows.tolist()):
            tar.write(thumbnails.copy_members(old_row, frames=counts[old_row], to_row=row))
    vectors = _copy_vectors(EmbeddingIndex.load(index / ITEM_INDEX), rows, out)
    captions = DistinctCaptions.find(piece["captions"] for piece in read_items())
    texts = captions.texts(piece["captions"] for piece in read_items())
    text_rows = pd.Index(pd.read_parquet(local_part(index / CAPTIONS))["caption"])
    found = text_rows.get_indexer([text for piece in texts for text in piece.to_pylist()])
    text_vectors = _copy_vectors(EmbeddingIndex.load(index / CAPTION_INDEX), found, out)
    write_tables(out, read_items, captions)
    encoder = read_metadata(index)["encoder"]
    try:
        write_index(out, vectors, text_vectors, settings=settings, encoder=encoder)
    except BadInput:  # too few vectors remain for such an index; exact search takes any number
        exact = settings.model_copy(update={"factory": "Flat"})
        write_index(out, vectors, text_vectors, settings=exact, encoder=encoder)


def _read_without(withdrawn: Collection[str], items: Path) -> Iterator[pa.RecordBatch]:
    """The other items of an index, in pieces."""
    with pq.ParquetFile(items, pre_buffer=False) as file:
        for piece in file.iter_batches(PIECE):
            out = pc.is_in(piece["id"], pa.array(withdrawn, piece.schema.field("id").type))
            yield piece.filter(pc.invert(out))


def _copy_vectors(index: EmbeddingIndex, rows: NDArray[np.int64], folder: Path) -> EmbeddingFile:
    """The vectors of some rows, in their order, in a file."""
    vectors = EmbeddingFile(index.dim, folder)
    for start in range(0, len(rows), BLOCK):
        vectors.append(index.rows(rows[start : start + BLOCK]))
    return vectors
