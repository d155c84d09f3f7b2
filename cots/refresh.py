"""New pictures without new training: the present data under the deployed encoders becomes a version of the index."""

import shutil
from pathlib import Path

from cots.config.params import Params
from cots.digests import file_digest
from cots.file_names import LINEAGE, MANIFEST
from cots.files import write_json
from cots.registry.cards import DATA_CARD, MODEL_CARD
from cots.registry.client import INDEX
from cots.registry.evidence import PARAMS
from cots.registry.loading import encoders_in, model_folder
from cots.registry.packaging import save_index
from cots.registry.publishing import judge_of, published
from cots.registry.registry import Published, Registry
from cots.registry.versions import VersionInfo
from cots.stages.index import stage as index_stage
from cots.stages.package import index_facts, limits_of, read_validation
from cots.tracking.git import git_state

WORK, MEMORY = Path("runs/refresh"), Path("runs/vectors")


def refresh(params: Params, project: Path = Path()) -> Published | None:
    """Index the samples of `data/` with the champion's encoders, and publish the index.

    What these encoders indexed on this machine before is not encoded again (`runs/vectors`, where only the vectors of
    present samples are kept).

    Metrics, evidence and runs stay those of the training that made the encoders; manifest, items and validation are
    the present ones.

    Args:
        params: the project's; its section `index` and its limits on pictures count.
        project: its folder.

    Returns:
        None where the champion's index is of these pictures and parameters already.

    Raises:
        BadInput: nothing is deployed, or an input is missing.
        RunFailed: MLflow is down or refuses, or another promotion came first.
    """
    registry = Registry()
    champion = registry.champion()
    kept, manifest = registry.kept(champion.version), project / "data" / MANIFEST
    before = kept.params()
    recipe = before | {"index": params.recipe()["index"]}
    if champion.tags["manifest.digest"] == file_digest(manifest) and recipe == before:
        return None
    work = project / WORK
    shutil.rmtree(work, ignore_errors=True)
    write_json(kept.folder(work / "package") / PARAMS, recipe)
    _package(champion, params, project, lineage=kept.lineage())
    _write_runs(champion, work / "runs")
    return published(work / "package", judge_of(params, project), project, runs=work / "runs")


def _package(champion: VersionInfo, params: Params, project: Path, *, lineage: dict[str, object]) -> None:
    """What stage `package` would write, without encoders: those are registered."""
    work, data = project / WORK, project / "data"
    scratch = work / "champion"
    scratch.mkdir()
    uri = f"models:/{INDEX}/{champion.version}"
    before = model_folder(uri, into=scratch)
    encoders = encoders_in(before, named=uri)
    index_stage(data / "shards", data / MANIFEST, encoders, work / "index", params=params, memory=project / MEMORY)
    cards = {name: (before / name).read_text(encoding="utf8") for name in (MODEL_CARD, DATA_CARD)}
    out = work / "package" / "index"
    save_index(out, encoders, work / "index", limits=limits_of(params), cards=cards)
    validation = read_validation(project / "reports" / "validation")
    found = index_facts(work / "index", out, data / MANIFEST, validation)
    write_json(work / "package" / LINEAGE, lineage | git_state() | found)


def _write_runs(champion: VersionInfo, folder: Path) -> None:
    """The runs behind the encoders, as the stages would name them."""
    folder.mkdir()
    for name, run in champion.lineage()["runs"].items():
        write_json(folder / f"{name}.json", {"run_id": run})
