"""Sections of a training run and of its objective."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from cots.config.values import Count, Positive, PositiveFloat, Section, Share, Weight


class LevelWeights(Section):
    """Weights of the three levels of interaction and of the masked views; 0 switches a term and its cost off."""

    instance: Weight
    token: Weight
    task: Weight
    masked_views: Weight  # the instance level between masked pictures and masked texts


class Filter(Section):
    """The adaptive momentum filter: drop a pair below mean - deviations * sigma, once warmed up."""

    warmup: Count  # steps
    deviations: PositiveFloat | None  # null keeps every pair; the statistics are logged all the same
    momentum: Share


class Mask(Section):
    """What is hidden from masked pictures and texts."""

    image: Share  # of the patches
    block: Positive  # patches of the smallest block
    text: Share  # of the words


class Temperature(Section):
    """Divisor of the similarities: fixed, or learned from `start` and kept above `least`."""

    start: PositiveFloat
    learned: bool
    least: PositiveFloat

    @model_validator(mode="after")
    def _starts_above_its_least(self) -> Self:
        if self.start < self.least:
            raise ValueError(f"start {self.start} lies below least {self.least}")
        return self


class CotsObjective(Section):
    """The paper's objective. Instance level alone (MoCo's) is weights 1, 0, 0 with `filter.deviations: null`."""

    kind: Literal["cots"]
    weights: LevelWeights
    temperature: Temperature
    batch_negatives: Literal["none", "keys", "queries"]  # beside the queue; none is the paper
    momentum: Share
    queue: Count  # features per modality
    queue_warmup: Count  # steps before keys are queued
    filter: Filter
    mask: Mask
    keep: Literal["trained", "momentum"]  # which streams the run leaves behind

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not any(self.weights.model_dump().values()):
            raise ValueError("every weight is 0: nothing would be learnt")
        return self


class ClipObjective(Section):
    """The baseline CLIP: InfoNCE over the batch, both streams with gradient; ALIGN is the same on noisy data."""

    kind: Literal["clip"]
    temperature: Temperature


class SiglipObjective(Section):
    """The baseline SigLIP: a sigmoid loss over the batch's pairs, with a learned bias."""

    kind: Literal["siglip"]
    temperature: Temperature
    bias: float  # at the start


Objective = Annotated[CotsObjective | ClipObjective | SiglipObjective, Field(discriminator="kind")]


class TrainableBlocks(Section):
    """How many of each backbone's last blocks are trained; with `all`, its embeddings too."""

    image: Literal["all"] | Count
    text: Literal["all"] | Count


class Training(Section):
    """One run of an objective, for pre-training and for fine-tuning."""

    seed: int
    steps: Positive
    batch: Positive
    parts: Positive  # that a batch is computed in, one after the other: gradient accumulation
    frames: Positive  # per sample: 1 takes one frame of a clip, more are averaged
    learning_rate: PositiveFloat
    warmup: Count
    weight_decay: Weight
    layer_decay: Annotated[float, Field(gt=0, le=1)]  # of the learning rate, per block from the top down
    trainable_blocks: TrainableBlocks
    checkpoint_gradients: bool  # recompute activations in the backward pass
    shard_weights: bool  # among the processes
    compile_blocks: bool  # fuse what each block computes: for large streams on a GPU
    max_grad_norm: PositiveFloat
    checkpoint_every: Positive
    objective: Objective

    @property
    def masked(self) -> Mask | None:
        """What is hidden; None where neither token level nor masked views are trained."""
        objective = self.objective
        if not isinstance(objective, CotsObjective):
            return None
        return objective.mask if objective.weights.token or objective.weights.masked_views else None

    @property
    def keeps_momentum(self) -> bool:
        """Whether the run leaves the momentum streams behind, not the trained ones."""
        return isinstance(self.objective, CotsObjective) and self.objective.keep == "momentum"

    @model_validator(mode="after")
    def _tokens_belong_to_one_frame(self) -> Self:
        objective = self.objective
        if isinstance(objective, CotsObjective) and objective.weights.token and self.frames > 1:
            raise ValueError(f"weights.token is not 0 with {self.frames} frames: visual tokens belong to one frame")
        return self

    @model_validator(mode="after")
    def _parts_need_negatives_without_gradient(self) -> Self:
        objective = self.objective
        if self.parts > self.batch:
            raise ValueError(f"parts {self.parts} of a batch of {self.batch}")
        whole = not isinstance(objective, CotsObjective) or objective.batch_negatives == "queries"
        if self.parts > 1 and whole:
            raise ValueError(f"parts {self.parts}: this objective needs its batch whole, its negatives have a gradient")
        return self


class Finetune(Training):
    """A run that goes on from pre-trained streams, at a resolution of its own."""

    size: Positive  # pixels; position embeddings are interpolated where it is not the model's
