"""Stage `package`: encoders and index as MLflow models that load without a project checkout, with their lineage."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cots.config.stages.package import PackageParams
from cots.data.manifest import read_manifest, select_part
from cots.data.store import part_digest
from cots.digests import content_digest, file_digest, text_digest
from cots.directions import MEDIA_OF
from cots.errors import BadInput, exit_on_error
from cots.file_names import LINEAGE, SUMMARY
from cots.files import write_json
from cots.index.index_folder import ITEM_INDEX
from cots.registry.cards import DATA_CARD, MODEL_CARD, CardContext, data_card, model_card, unmeasured_card
from cots.registry.evidence import EVIDENCE, save_evidence
from cots.registry.packaging import InferenceConfig, save_encoders, save_index
from cots.search_engine.engine import SearchEngine, read_metadata
from cots.tracking.git import git_state


def stage(
    encoders: Path,
    index: Path,
    metrics: Path,
    evaluation: Path,
    validation: Path,
    manifest: Path,
    out: Path,
    *,
    params: PackageParams,
) -> None:
    """Write `encoders` and `index` (MLflow model folders with cards), `evidence` and `lineage.json` into `out`.

    Only encoders that the project has not trained may lack metrics.

    Raises:
        BadInput: an input is missing, or the index was built by other encoders.
    """
    search = SearchEngine.load(encoders, index)
    config, target_metrics, checks = inference_config(params), _read(metrics, "evaluate"), read_validation(validation)
    trained, measured = is_trained(params), params.index.target in target_metrics
    if trained and not measured:
        raise BadInput(f"{metrics} has no metrics of {params.index.target}: evaluate.split has no samples for it")
    table, values = read_manifest(manifest), params.dump_packaged()
    context = CardContext(
        target=params.index.target,
        params=values,
        metrics=target_metrics,
        validation=checks,
        manifest=table,
        encoder=search.model.digest,
        data=file_digest(manifest),
        parameters=text_digest(json.dumps(values, sort_keys=True)),
    )
    card = model_card(context) if measured else unmeasured_card(search.model.config, search.model.digest)
    cards = {MODEL_CARD: card, DATA_CARD: data_card(context)}
    save_encoders(out / "encoders", encoders, dim=search.model.dim, config=config, cards=cards)
    save_index(out / "index", encoders, index, config=config, cards=cards)
    queries, learnt = evaluation / f"{params.index.target}.parquet", table if trained else table.iloc[:0]
    save_evidence(out / EVIDENCE, queries, learnt, values)
    lineage = git_state() | {
        "params.digest": context.parameters,
        "encoder.digest": search.model.digest,
        "encoders.content": content_digest(out / "encoders"),
        "queries.digest": queries_digest(table, params),
        "target": params.index.target,
        "metrics": target_metrics,
        **starts(search.model.config),
    }
    write_json(out / LINEAGE, lineage | index_lineage(index, out / "index", manifest, checks))


def is_trained(params: PackageParams) -> bool:
    """Whether the packaged encoders have learnt from this project's data: any of their runs has a step."""
    return params.pretrain.steps + params.finetune[params.index.target].steps > 0


def starts(config: Mapping[str, Any]) -> dict[str, str]:
    """Name and digest of the model that training began with, of the one that this began with, and so on."""
    lineage: dict[str, str] = {}
    origin, number = config.get("init_from"), 1
    while origin:
        lineage |= {f"init_from.{number}.{key}": origin[key] for key in ("name", "digest")}
        origin, number = origin.get("init_from"), number + 1
    return lineage


def inference_config(params: PackageParams) -> InferenceConfig:
    """Inference settings of the packaged models, from the project's parameters."""
    return InferenceConfig(
        batch_size=params.evaluate.batch_size, max_pixels=params.prepare.max_pixels, min_side=params.prepare.min_side
    )


def index_lineage(index: Path, model_folder: Path, manifest: Path, validation: Mapping[str, Any]) -> dict[str, Any]:
    """The part of the lineage that describes the index and its data, independent of its encoders.

    Args:
        index: output folder of stage `index`.
        model_folder: the index as an MLflow model.
        manifest: file of the data manifest.
        validation: summary of stage `validate`.
    """
    data = {"manifest.digest": file_digest(manifest), "validation": validation}
    return data | describe_index(index, model_folder)


def describe_index(index: Path, model_folder: Path) -> dict[str, Any]:
    """The part of the lineage that describes the index alone; the arguments are those of `index_lineage`."""
    metadata = read_metadata(index)
    return {
        "index.digest": part_digest(index / ITEM_INDEX).hex(),
        "index.content": content_digest(model_folder),
        "index": metadata,
        "items": metadata["size"],
    }


def queries_digest(manifest: pd.DataFrame, params: PackageParams) -> str:
    """Sha256 of the test queries: captions and pixels of the test samples of the model's media."""
    rows = select_part(manifest, params.evaluate.split, MEDIA_OF[params.index.target]).sort_values("id")
    return text_digest(rows[["id", "captions", "pixel_hash"]].to_json(orient="values"))


def read_validation(folder: Path) -> dict[str, Any]:
    """Read the summary of stage `validate`.

    Raises:
        BadInput: there is no readable summary.
    """
    return _read(folder / SUMMARY, "validate")


def _read(path: Path, stage: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}): run `dvc repro {stage}`") from None
    return values


if __name__ == "__main__":
    with exit_on_error():
        models, *paths = map(Path, sys.argv[1:])
        params = PackageParams.load()
        stage(models / params.index.target, *paths, params=params)
