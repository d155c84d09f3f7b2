"""Sections `pretrain` and `finetune`: training runs."""

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cots.config.objective import CotsObjectiveConfig, FilterConfig, LossWeightsConfig, ObjectiveConfig
from cots.config.sections import Sections
from cots.config_base import Config
from cots.directions import Target


class TrainableBlocksConfig(Config):
    """How many of each backbone's last blocks are trained; with `all`, its embeddings too."""

    image: Literal["all"] | NonNegativeInt = Field(default="all", description="Of the image encoder. Paper: 6 (L).")
    text: Literal["all"] | NonNegativeInt = Field(default="all", description="Of the text encoder. Paper: 6 (L).")


class TrainConfig(Config):
    """One run of an objective, for pre-training and for fine-tuning."""

    seed: int = Field(default=0, description="Of weights, order of samples and dropout.")
    steps: PositiveInt = Field(default=250, description="Optimizer steps.")
    batch_size: PositiveInt = Field(default=128, description="Pairs in a step, over all processes. Paper: 2,048 (M).")
    grad_accum_steps: PositiveInt = Field(
        default=1,
        description="Parts that a batch is computed in, one after the other: less memory. The same losses and "
        "gradients; only with negatives that have no gradient.",
    )
    frames: PositiveInt = Field(
        default=1,
        description="Frames of a sample; a video of several is the average of its frames. (L) One is drawn inside each "
        "of as many equal segments of the kept frames (L), so a shorter video repeats its own evenly; 1 takes the "
        "frame whose crop was tokenized, which the token level needs.",
    )
    learning_rate: PositiveFloat = Field(
        default=0.001, description="Peak. Half a cosine to 0 follows. Paper: 5e-5 to 1e-4 (M)."
    )
    warmup_steps: NonNegativeInt = Field(default=50, description="Steps until the peak.")
    weight_decay: NonNegativeFloat = Field(default=0.02, description="AdamW's. Paper: 0.02 (M).")
    layer_decay: Annotated[float, Field(gt=0, le=1)] = Field(
        default=1.0, description="Factor of the learning rate for each block further from the top. 1: one rate (D)."
    )
    trainable_blocks: TrainableBlocksConfig = Field(
        default=TrainableBlocksConfig(), description="all, or how many of the last blocks of each encoder."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Recompute activations: less memory, about a third more time."
    )
    fsdp: bool = Field(
        default=False,
        description="Each of several processes keeps a part of the weights (FSDP2). And of their gradients and AdamW's "
        "moments; it fetches the rest block by block: for encoders that do not fit one device, the same results (D): "
        "docs/decisions/0006-several-processes-share-a-batch.md.",
    )
    torch_compile: bool = Field(
        default=False,
        description="torch.compile of each block, for large encoders on a GPU. From the second step on, after half a "
        "minute (docs/performance.md); the same results but for rounding, so that a resumed run may end a rounding "
        "apart.",
    )
    max_grad_norm: PositiveFloat = Field(default=1.0, description="Of all gradients together.")
    checkpoint_every: PositiveInt = Field(default=100, description="Steps between checkpoints.")
    objective: ObjectiveConfig = Field(default=CotsObjectiveConfig(), description="What is learnt.")

    @model_validator(mode="after")
    def _tokens_belong_to_one_frame(self) -> Self:
        if self.objective.needs_one_frame and self.frames > 1:
            raise ValueError(
                f"loss_weights.token is not 0 with {self.frames} frames: visual tokens belong to one frame"
            )
        return self

    @model_validator(mode="after")
    def _accumulation_needs_negatives_without_gradient(self) -> Self:
        parts = self.grad_accum_steps
        if parts > self.batch_size:
            raise ValueError(f"grad_accum_steps {parts} of a batch of {self.batch_size}")
        if parts > 1 and self.objective.needs_whole_batch:
            raise ValueError(
                f"grad_accum_steps {parts}: this objective needs its batch whole, its negatives have a gradient"
            )
        return self


class FinetuneConfig(TrainConfig):
    """A run that goes on from pre-trained encoders, at an image size of its own."""

    steps: PositiveInt = Field(default=200, description="Optimizer steps.")
    warmup_steps: NonNegativeInt = Field(default=20, description="Steps until the peak.")
    objective: ObjectiveConfig = Field(
        default=CotsObjectiveConfig(
            loss_weights=LossWeightsConfig(token=0.0),
            in_batch_negatives="momentum",
            queue_size=512,
            queue_warmup_steps=100,
            filter=FilterConfig(warmup_steps=20),
        ),
        description="What is learnt.",
    )
    size: PositiveInt = Field(
        default=64,
        description="Side of the input, pixels. Position embeddings are interpolated where it is not "
        "`model.image.size`. Paper: up to 384 (L).",
    )


class PretrainSection(Sections):
    """A file with section `pretrain`."""

    pretrain: TrainConfig = Field(default=TrainConfig(), description="Training from scratch, over images and frames.")


class FinetuneSection(Sections):
    """A file with section `finetune`."""

    finetune: dict[Target, FinetuneConfig] = Field(
        default={"image-text": FinetuneConfig()},
        description="Training that goes on from the pre-trained encoders, one run for each retrieval target.",
    )
