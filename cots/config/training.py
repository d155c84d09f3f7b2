"""Sections `pretrain` and `finetune`: training runs."""

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cots.config.objective import CotsObjectiveConfig, FilterConfig, LossWeightsConfig, ObjectiveConfig
from cots.config.sections import Sections
from cots.config_base import Config, Fraction, Seed, Start
from cots.directions import Target


class TrainableBlocksConfig(Config):
    """Number of the last blocks of each backbone that are trained; `all` includes its embeddings, `locked` is none."""

    image: Literal["all", "locked"] | NonNegativeInt = Field(
        default="all",
        description="Blocks of the image encoder; 0 trains its final norm, locked nothing but the projection (LiT). "
        "Paper: 6 (L).",
    )
    text: Literal["all", "locked"] | NonNegativeInt = Field(
        default="all",
        description="Blocks of the text encoder; 0 trains its final norm, locked nothing but the projection. "
        "Paper: 6 (L).",
    )


class HardNegativesConfig(Config):
    """Samples that a model confuses come into one batch."""

    table: Path | None = Field(
        default=None, description="Table of hard negatives, which `cots hard-negatives` writes; null: none."
    )
    share: Fraction = Field(
        default=0.5,
        description="Fraction of samples that the nearest of their hard negatives follows. Groups have 1 / (1 - share) "
        "samples on average. (D)",
    )


class TrainConfig(Config):
    """A training run, for pre-training and fine-tuning."""

    seed: Seed = Field(default=0, description="Seed of weights, order of samples and dropout.")
    steps: NonNegativeInt = Field(default=250, description="Optimizer steps; 0 keeps what the run starts from.")
    batch_size: PositiveInt = Field(
        default=128, description="Images and videos per step, over all ranks. Paper: 2,048 (M)."
    )
    captions_per_sample: PositiveInt = Field(
        default=1,
        description="Captions of each image or video in a batch, drawn anew in each epoch; fewer where it has fewer. "
        "Each is a pair with it, and no negative of the others; the image is encoded once. Paper: 1. (D): "
        "docs/decisions/0012-several-captions-of-an-image-in-a-batch.md.",
        json_schema_extra={"since": "0.3.0"},
    )
    language_temperature: Annotated[float, Field(ge=1)] = Field(
        default=1.0,
        description="T of the draw of captions by language: of n_l training captions a share ~ n_l^(1/T). 1: every "
        "caption of a sample weighs the same; larger: rare languages come more often. See "
        "[languages.md](languages.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    grad_accum_steps: PositiveInt = Field(
        default=1,
        description="Micro-batches per batch, to save memory. Losses and gradients stay the same; impossible if "
        "negatives have a gradient.",
    )
    hard_negatives: HardNegativesConfig = Field(
        default=HardNegativesConfig(),
        description="Samples that an earlier model confuses come into one batch; off by default. They are looked for "
        "among 5,000 samples at a time.",
        json_schema_extra={"since": "0.3.0"},
    )
    frames: PositiveInt = Field(
        default=1,
        description="Frames per sample; the embedding of a video is the average over its frames. (L) One "
        "frame is drawn from each of as many equal segments of the stored frames (L), so a shorter video repeats its "
        "frames evenly; 1 takes the frame whose crop was tokenized, which the token level needs.",
    )
    learning_rate: PositiveFloat = Field(
        default=0.001, description="Peak learning rate. A cosine decay to 0 follows. Paper: 5e-5 to 1e-4 (M)."
    )
    warmup_steps: NonNegativeInt = Field(default=50, description="Steps of linear warm-up to the peak.")
    weight_decay: NonNegativeFloat = Field(default=0.02, description="Weight decay of AdamW. Paper: 0.02 (M).")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0,
        description="Factor of the learning rate from each block to the one below it. 1: the same rate everywhere (D).",
    )
    head_lr_scale: PositiveFloat = Field(
        default=1.0,
        description="Factor of the learning rate of projections, prediction heads and temperature. About 10 if they "
        "begin with random weights on pretrained encoders (D).",
        json_schema_extra={"since": "0.3.0"},
    )
    trainable_blocks: TrainableBlocksConfig = Field(
        default=TrainableBlocksConfig(), description="Last blocks of each backbone that are trained, or all."
    )
    cached_views: NonNegativeInt = Field(
        default=0,
        description="Crop views of each sample that pass the frozen image blocks only once; 0: off. That happens "
        "before the first step; the run uses these views only, and keeps their tokens in half precision in "
        "`runs/features`. Pays if each view is seen several times; not with masked patches. See "
        "[encoders.md](encoders.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations in the backward pass: less memory, about a third more time."
    )
    fsdp: bool = Field(
        default=False,
        description="Shard weights, gradients and AdamW's moments over the ranks (FSDP2). For encoders that do not fit "
        "on one device; the same results (D): docs/decisions/0006-several-processes-share-a-batch.md.",
    )
    torch_compile: bool = Field(
        default=False,
        description="Compile each block with torch.compile, for large encoders on a GPU. From the second step on, "
        "after half a minute of compilation (docs/performance.md). Results differ by rounding, also those of a resumed "
        "run from those of an uninterrupted one.",
    )
    max_grad_norm: PositiveFloat = Field(
        default=1.0, description="Maximum norm of all gradients together; larger ones are scaled down."
    )
    validate_every: PositiveInt | None = Field(
        default=None,
        description="Steps between evaluations on the validation split; null: none. Recalls and RSUM appear in the "
        "curves as `val/...`, and training is the same to the last bit.",
        json_schema_extra={"since": "0.3.0"},
    )
    grad_norms_every: PositiveInt | None = Field(
        default=None,
        description="Steps between measurements of the gradient by level; null: none. The norm of each level's "
        "weighted gradient in each backbone appears in the curves as `grad_norm/token/image` and so on; such a step "
        "takes one more pass for each level.",
        json_schema_extra={"since": "0.3.0"},
    )
    checkpoint_every: PositiveInt = Field(default=100, description="Steps between checkpoints.")
    objective: ObjectiveConfig = Field(default=CotsObjectiveConfig(), description="The training objective.")

    @model_validator(mode="after")
    def _check_frames(self) -> Self:
        if self.objective.needs_one_frame and self.frames > 1:
            raise ValueError(
                f"loss_weights.token is not 0 with {self.frames} frames: visual tokens belong to a single frame"
            )
        return self

    @model_validator(mode="after")
    def _check_cached_views(self) -> Self:
        if not self.cached_views:
            return self
        if self.trainable_blocks.image == "all":
            raise ValueError("cached_views needs frozen blocks: set trainable_blocks.image to a number or to locked")
        if self.objective.masks_images or self.frames > 1 or self.fsdp:
            raise ValueError("cached_views needs whole images, one frame and no fsdp: set it to 0")
        return self

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        objective = self.objective
        if (
            isinstance(objective, CotsObjectiveConfig)
            and objective.compares_pairs
            and objective.in_batch_negatives == "none"
            and objective.queue_warmup_steps >= self.steps > 0
        ):
            raise ValueError(
                f"queue_warmup_steps {objective.queue_warmup_steps} of {self.steps} steps, in_batch_negatives none: "
                "without negatives nothing would be learnt"
            )
        return self

    @model_validator(mode="after")
    def _check_monitor(self) -> Self:
        if self.fsdp and (self.validate_every or self.grad_norms_every):
            raise ValueError("validate_every and grad_norms_every need whole weights on every rank: not with fsdp")
        return self

    @model_validator(mode="after")
    def _check_accumulation(self) -> Self:
        steps = self.grad_accum_steps
        if steps > self.batch_size:
            raise ValueError(f"grad_accum_steps {steps} is larger than batch_size {self.batch_size}")
        if steps > 1 and self.objective.needs_whole_batch:
            raise ValueError(
                f"grad_accum_steps {steps}: this objective needs the whole batch, because its negatives have a gradient"
            )
        return self


class FinetuneConfig(TrainConfig):
    """A run that starts from pre-trained encoders, at an image size of its own."""

    steps: NonNegativeInt = Field(default=200, description="Optimizer steps; 0 keeps what the run starts from.")
    warmup_steps: NonNegativeInt = Field(default=20, description="Steps of linear warm-up to the peak.")
    objective: ObjectiveConfig = Field(
        default=CotsObjectiveConfig(
            loss_weights=LossWeightsConfig(token=0.0),
            in_batch_negatives="momentum",
            queue_size=512,
            queue_warmup_steps=100,
            filter=FilterConfig(warmup_steps=20),
        ),
        description="The training objective.",
    )
    init_from: Start | None = Field(
        default=None,
        description="A model to start from instead of the pre-trained encoders. As `model.init_from`.",
        json_schema_extra={"since": "0.3.0"},
    )
    size: PositiveInt = Field(
        default=64,
        description="Side of the input image, pixels. Position embeddings are interpolated if it differs from "
        "`model.image.size`. Paper: up to 384 (L).",
    )


class PretrainSection(Sections):
    """A file with section `pretrain`."""

    pretrain: TrainConfig = Field(
        default=TrainConfig(), description="Pre-training, on images and single frames of videos."
    )


class FinetuneSection(Sections):
    """A file with section `finetune`."""

    finetune: dict[Target, FinetuneConfig] = Field(
        default={"image-text": FinetuneConfig()},
        description="Fine-tuning of the pre-trained encoders, one run for each retrieval target.",
    )
