"""`cots evaluate`: measures a model on any data set in a known layout."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cots.cli.files import writing
from cots.cli.tables import class_head_table, classification_table, retrieval_table, table
from cots.data.limits import MAX_BYTES, MAX_CAPTION_CHARS, MAX_FRAMES, MAX_PIXELS, MAX_SECONDS, MIN_SIDE
from cots.directions import TARGET_OF
from cots.errors import BadInput
from cots.files import write_json

if TYPE_CHECKING:
    from cots.data.ingest.ingestor import Rejected
    from cots.data.samples import Sample, StoredSample
    from cots.directions import Media
    from cots.models.dual_encoder import DualEncoder

Format = Literal["karpathy", "coco", "folder", "webdataset", "msrvtt", "scenes", "documents"]
MAX_ID_CHARS = 100  # of the ids of rejected samples in a row of the table; --json has all of them


def evaluate(
    model: Annotated[
        str, typer.Option(help="A registered version (models:/...), a model folder, or a checkpoint of CLIP or SigLIP.")
    ],
    data: Annotated[Path, typer.Option(help="Data set; for scenes and documents, a parameter file with that source.")],
    layout: Annotated[Format, typer.Option("--format", help="Layout of the data set.")],
    split: Annotated[
        Literal["train", "val", "test"],
        typer.Option(help="Split to measure; in a folder or webdataset without splits every sample is `test`."),
    ],
    protocol: Annotated[
        Literal["full", "1k-A"] | None,
        typer.Option(help="For msrvtt only: its own splits (full), or 1,000 test videos with one caption each (1k-A)."),
    ] = None,
    out: Annotated[Path | None, typer.Option("--json", help="Write all results to this file.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Write every query's rank to this folder, for `cots compare`.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images encoded at once.")] = 128,
    size: Annotated[
        int, typer.Option(min=1, help="Larger images are first reduced to this shorter side, pixels.")
    ] = 256,
    frames: Annotated[int, typer.Option(min=1, help="Maximum frames of a video.")] = MAX_FRAMES,
    min_side: Annotated[
        int, typer.Option(min=1, help="Images whose shorter side is below this are rejected, pixels.")
    ] = MIN_SIDE,
    max_pixels: Annotated[
        int, typer.Option(min=1, help="Images with more pixels are rejected without decoding.")
    ] = MAX_PIXELS,
    max_bytes: Annotated[
        int, typer.Option(min=1, help="Images and videos with more bytes are rejected without decoding.")
    ] = MAX_BYTES,
    max_seconds: Annotated[
        float, typer.Option(min=0.01, help="Videos that take longer to decode are rejected, seconds of one core.")
    ] = MAX_SECONDS,
    max_caption_chars: Annotated[
        int, typer.Option(min=1, help="Longer captions are left out, characters.")
    ] = MAX_CAPTION_CHARS,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Also read files elsewhere that links in the data set lead to.")
    ] = False,
    folds: Annotated[
        int, typer.Option(min=1, help="Also show the mean over so many folds (5 for COCO's 1K); 1 for none.")
    ] = 1,
    bootstrap: Annotated[int, typer.Option(min=1, help="Bootstrap resamples for the 95 % intervals.")] = 1000,
    seed: Annotated[int, typer.Option(help="Seed of the resamples.")] = 0,
    label_column: Annotated[
        str | None,
        typer.Option(
            help="For folder only: column with the labels, which caption images without a caption; without a table "
            "the folder of an image is its label."
        ),
    ] = None,
    class_column: Annotated[
        str | None, typer.Option(help="Column with the class of each image: also measure zero-shot classification.")
    ] = None,
    template: Annotated[
        list[str] | None,
        typer.Option(help="Prompt in which {} stands for the class, such as 'a photo of a {}.'; may be repeated."),
    ] = None,
) -> None:
    """Measure retrieval in both directions on a data set, and the model's classification head, if it has one."""
    from cots.data.ingest.by_media import ingest_by_media
    from cots.data.ingest.ingestor import Ingestor
    from cots.tracking.loading import load_encoders

    root = data if data.is_dir() else data.parent
    ingestor = Ingestor(
        root=root,
        follow_symlinks=follow_symlinks,
        withdrawn={},
        size=size,
        max_frames=frames,
        min_side=min_side,
        max_pixels=max_pixels,
        max_bytes=max_bytes,
        max_seconds=max_seconds,
        max_caption_chars=max_caption_chars,
    )
    samples = list(_samples(data, layout, protocol, label_column))
    labels = _read_classes(samples, class_column, template)
    chosen = [sample for sample in samples if sample.split == split]
    if not chosen:
        raise BadInput(f"{data} has no sample of split {split}")
    encoders = load_encoders(model)
    usable, rejected = ingest_by_media(chosen, ingestor)
    if not usable:
        raise BadInput(
            f"{data}: none of {len(rejected)} samples of split {split} can be used; {_format_first(rejected)}"
        )
    options = {"folds": folds, "resamples": bootstrap, "seed": seed}
    of_head = _read_head_classes(chosen, encoders)
    metrics = _evaluate_by_media(encoders, usable, queries, labels, template, of_head, batch_size=batch, **options)
    used = sum(map(len, usable.values()))
    tables = [retrieval_table(metrics)]
    if labels:
        tables.append(classification_table(metrics))
    if any("class_head" in of_media for of_media in metrics.values()):
        tables.append(class_head_table(metrics))
    typer.echo("\n\n".join(tables) + "\n" + _format_rejected(rejected, used))
    if out:
        reasons = [{"id": sample.id, "reason": sample.reason, "detail": sample.detail} for sample in rejected]
        about = {"model": model, "encoder": encoders.digest, "data": str(data), "format": layout, "split": split}
        with writing(out):
            write_json(out, about | {"protocol": protocol, "used": used, "rejected": reasons, "metrics": metrics})


def _samples(data: Path, layout: Format, protocol: str | None, label_column: str | None) -> Iterator[Sample]:
    """Samples of the data set; no image is opened yet."""
    from cots.config.source import SourceSection

    if (layout == "msrvtt") != (protocol is not None):
        raise BadInput("--format msrvtt needs --protocol full or 1k-A; no other format has one")
    if label_column is not None and layout != "folder":
        raise BadInput(f"--label-column is for --format folder alone; {layout} has no labels")
    if layout in ("scenes", "documents"):
        source = SourceSection.load(data).source
        if source.kind != layout:
            raise BadInput(f"{data}: its source is {source.kind}, not {layout}")
        return source.read()
    undivided: dict[str, Any] = {"holdout": {"val": 0.0, "test": 1.0}}
    options: dict[str, dict[str, Any]] = {
        "folder": undivided | {"label_column": label_column},
        "webdataset": undivided,
        "msrvtt": {"protocol": protocol},
    }
    keys = {"kind": layout, "path": data} | options.get(layout, {})
    return SourceSection.model_validate({"source": keys}).source.read()


def _read_classes(
    samples: Sequence[Sample], column: str | None, templates: Sequence[str] | None
) -> dict[str, str | None]:
    """The class of each sample by its id; empty if no classification is asked for."""
    from cots.data.ingest.metadata import metadata_column, metadata_json
    from cots.evaluation.classification import PLACE

    if (column is None) != (not templates) or any(PLACE not in template for template in templates or ()):
        raise BadInput("--class-column needs a --template, in which {} stands for the class, and the other way round")
    if column is None:
        return {}
    values = metadata_column((metadata_json(sample.metadata) for sample in samples), column)
    return dict(zip((sample.id for sample in samples), values, strict=True))


def _read_head_classes(samples: Sequence[Sample], encoders: DualEncoder) -> dict[str, str | None]:
    """By sample, its class in the column that the model's head was trained on; empty if the model has no head."""
    from cots.data.ingest.metadata import metadata_field, metadata_json

    if not encoders.class_head:
        return {}
    column = encoders.config["classifier"]["column"]
    return {sample.id: metadata_field(metadata_json(sample.metadata), column) for sample in samples}


def _evaluate_by_media(
    encoders: DualEncoder,
    usable: dict[Media, list[StoredSample]],
    queries: Path | None,
    labels: Mapping[str, str | None],
    templates: Sequence[str] | None,
    head_labels: Mapping[str, str | None],
    *,
    batch_size: int,
    folds: int,
    **draws: int,
) -> dict[str, Any]:
    """All metrics by kind of media; also writes every query's rank to the folder `queries`, if given."""
    from cots.evaluation.class_head import evaluate_class_head
    from cots.evaluation.classification import class_names, embed_classes, evaluate_classification
    from cots.evaluation.embedding import embed
    from cots.evaluation.retrieval import evaluate_retrieval
    from cots.report.results import write_query_table

    metrics: dict[str, Any] = {}
    for media, samples in usable.items():
        embedded = embed(encoders, samples, batch_size=batch_size)
        evaluation = evaluate_retrieval(embedded, media=media, folds=folds, **draws)
        metrics[media] = evaluation.metrics
        if templates:
            classes = embed_classes(encoders, class_names(labels.values()), templates, batch_size=batch_size)
            of_items = [labels[id_] for id_ in embedded.ids]
            metrics[media]["classification"] = evaluate_classification(embedded.items, of_items, classes, **draws)
        if head_labels:
            of_items = [head_labels[id_] for id_ in embedded.ids]
            if (scores := evaluate_class_head(encoders, embedded, of_items, **draws)) is not None:
                metrics[media]["class_head"] = scores
        if queries:
            with writing(queries):
                write_query_table(queries / f"{TARGET_OF[media]}.parquet", embedded, evaluation)
    return metrics


def _format_rejected(rejected: Sequence[Rejected], used: int) -> str:
    """How many samples were rejected, why, and which."""
    if not rejected:
        return f"\nall {used} samples were used"
    reasons = Counter(sample.reason for sample in rejected)
    rows = [
        [reason, number, ", ".join(sample.id for sample in rejected if sample.reason == reason)[:MAX_ID_CHARS]]
        for reason, number in reasons.most_common()
    ]
    total = used + len(rejected)
    return f"\n{len(rejected)} of {total} samples could not be used\n" + table(["why", "how many", "which"], rows)


def _format_first(rejected: Sequence[Rejected]) -> str:
    return f"the first: {rejected[0].id}: {rejected[0].reason} ({rejected[0].detail})"
