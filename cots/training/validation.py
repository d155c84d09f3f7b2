"""Retrieval on the validation split during training."""

from pathlib import Path

from torch import nn

from cots.config.training import TrainConfig
from cots.curves import VALIDATION, VALIDATION_RSUM
from cots.data.manifest import read_split
from cots.data.stored_samples import read_stored_samples
from cots.directions import DIRECTIONS, MEDIA
from cots.errors import BadInput
from cots.evaluation.embedding import embed
from cots.evaluation.metric_table import RECALLS, rsum
from cots.evaluation.metrics import rank_queries
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.objectives.protocol import saved_encoders


def validate(
    model: DualEncoder,
    objective: nn.Module,
    shards: Path,
    manifest: Path,
    training: TrainConfig,
    *,
    media: tuple[str, ...],
) -> dict[str, float]:
    """Evaluate the encoders that the run would save now on the validation split.

    Args:
        model: the model in training.
        objective: the objective around it.
        shards: folder of shards.
        manifest: the manifest file.
        training: the run's section of params.yaml.
        media: kinds of media to evaluate, "image" and "video"; one without validation samples is left out.

    Returns:
        By column: `val/rsum`, and recalls such as `val/t2i/R1`. If there are images, RSUM is theirs.

    Raises:
        BadInput: there are no validation samples.
    """
    image, text = map(objective.get_submodule, saved_encoders(ema=training.objective.saves_ema))
    assert isinstance(image, ImageEncoder)
    assert isinstance(text, TextEncoder)
    current = DualEncoder(image=image, text=text, tokenizer=model.tokenizer, config=model.config)
    table, scores = read_split(manifest, "val"), dict[str, float]()
    for kind in MEDIA:
        rows = table[table["media"] == kind]
        if kind not in media or rows.empty:
            continue
        samples = read_stored_samples(shards, rows)
        embedded = embed(current, samples, batch_size=max(training.batch_size // training.grad_accum_steps, 1))
        ranked = rank_queries(embedded.items, embedded.texts, embedded.text_to_item)
        directions = dict(zip(DIRECTIONS[kind], ranked, strict=True))
        scores.setdefault(VALIDATION_RSUM, rsum(directions))
        for direction, queries in directions.items():
            scores |= {  # MLflow allows no @ in names
                f"{VALIDATION}{direction}/{recall.name.replace('@', '')}": recall.score(queries) for recall in RECALLS
            }
    if not scores:
        raise BadInput(f"validate_every: {manifest} has no validation samples: set it to null")
    return scores
