"""Stage `package`: encoders, index and lineage as MLflow models that load with no project checkout."""

import json
import sys
from pathlib import Path
from typing import Any

from cots.config import Params
from cots.data.manifest import read_manifest
from cots.errors import BadInput, told_in_one_line
from cots.serving.cards import DATA_CARD, MODEL_CARD, Facts, data_card, model_card
from cots.serving.lineage import content_digest, file_digest, git_state, text_digest
from cots.serving.packaging import Limits, save_encoders, save_index
from cots.serving.search import Search

LATER = {"drift"}  # sections about what happens to a package, not about what is in it


def stage(
    encoders: Path, index: Path, metrics: Path, validation: Path, manifest: Path, out: Path, *, params: Params
) -> None:
    """Write `encoders` and `index` (MLflow model folders with model and data card) and `lineage.json` into `out`.

    Raises:
        BadInput: an input is missing, or the index was made by other encoders.
    """
    search = Search.load(encoders, index)
    limits = Limits(batch=params.evaluate.batch, max_pixels=params.prepare.max_pixels, min_side=params.prepare.min_side)
    measured, checked = _read(metrics), _read(validation / "summary.json")
    if params.index.target not in measured:
        raise BadInput(f"{metrics} says nothing of {params.index.target}: evaluate.split holds none of its samples")
    facts = Facts(
        target=params.index.target,
        params=params.model_dump(mode="json", by_alias=True, exclude=LATER),
        metrics=measured,
        validation=checked,
        manifest=read_manifest(manifest),
        encoder=search.model.digest,
        data=file_digest(manifest),
        parameters=text_digest(params.model_dump_json(by_alias=True, exclude=LATER)),
    )
    cards = {MODEL_CARD: model_card(facts), DATA_CARD: data_card(facts)}
    save_encoders(out / "encoders", encoders, dim=search.model.dim, limits=limits, cards=cards)
    save_index(out / "index", encoders, index, limits=limits, cards=cards)
    lineage = git_state() | {
        "params.digest": facts.parameters,
        "manifest.digest": facts.data,
        "encoder.digest": search.model.digest,
        "index.digest": file_digest(index / "index.faiss"),
        "encoders.content": content_digest(out / "encoders"),
        "index.content": content_digest(out / "index"),
        "target": params.index.target,
        "items": len(search.items),
        "metrics": measured,
        "validation": checked,
    }
    partial = out / "lineage.partial"
    partial.write_text(json.dumps(lineage, indent=2) + "\n", encoding="utf8")
    partial.rename(out / "lineage.json")


def _read(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot read {path} ({error}): run `dvc repro {path.parent.name}`") from None
    return found


if __name__ == "__main__":
    with told_in_one_line():
        stage(*map(Path, sys.argv[1:]), params=Params.load())
