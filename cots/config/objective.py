"""Training objectives: the paper's and the baselines."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cots.config_base import Config, Fraction


class LossWeightsConfig(Config):
    """Weights of the three levels of interaction and of five terms of this project; 0 switches a term off."""

    instance: NonNegativeFloat = Field(default=1.0, description="Weight of the instance level. Paper: 1 (M).")
    token: NonNegativeFloat = Field(default=1.0, description="Weight of the token level. Paper: 1 (M).")
    task: NonNegativeFloat = Field(default=0.1, description="Weight of the task level. Paper: 1 (M).")
    masked_views: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the instance level between masked images and masked texts. 0 in the paper (D); for runs "
        "that see every pair some 50 times or more: docs/decisions/0007-masked-views.md.",
    )
    within_modality: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the contrast within a modality: two crops of an image, and captions of an image where "
        "`captions_per_sample` is 2 or more. 0 in the paper (D). See [shared-layers.md](shared-layers.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    translation: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of words guessed from the image and its caption in another language. Needs captions in "
        "several languages. 0 in the paper (D); UC2's is with cross-attention. See [languages.md](languages.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    class_contrast: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the contrast by class, between and within images and texts. Needs `class_column`. 0 in "
        "the paper (D), after VLCDoC. See [documents.md](documents.md).",
        json_schema_extra={"since": "0.3.0"},
    )
    classification: NonNegativeFloat = Field(
        default=0.0,
        description="Weight of the classification head: the class by image, by text and by both. Needs `class_column`. "
        "0 in the paper (D), after VLCDoC. See [documents.md](documents.md).",
        json_schema_extra={"since": "0.3.0"},
    )


class FilterConfig(Config):
    """The adaptive momentum filter: after a warm-up it drops pairs of a similarity below mean - num_std * std."""

    warmup_steps: NonNegativeInt = Field(
        default=100, description="Steps before pairs are dropped; at least one, whose similarities are the first known."
    )
    num_std: PositiveFloat | None = Field(
        default=2.0,
        description="Standard deviations below the running mean, where pairs are dropped; null: no pair is dropped. "
        "The statistics are logged in any case. Paper: 2 (M).",
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.9, description="Momentum of the running statistics."
    )


class MaskConfig(Config):
    """How images and texts are masked."""

    patch_ratio: Fraction = Field(default=0.4, description="Fraction of the patches that are masked. Paper: 0.4 (M).")
    min_block: PositiveInt = Field(default=4, description="Patches in the smallest masked block. Paper: 16 (M).")
    mlm_probability: Fraction = Field(
        default=0.15, description="Fraction of the tokens that are masked. Paper: 0.15 (M)."
    )


class TemperatureConfig(Config):
    """Divisor of the similarities: fixed, or learned from `init` and kept above `min`."""

    init: PositiveFloat | None = Field(
        default=0.07,
        description="Initial value; null: that of the model that the run starts from, 0.07 if it has none. "
        "Paper: 0.05 to 0.07 (M).",
    )
    learnable: bool = Field(default=False, description="Whether it is learned. Paper: fixed (M).")
    min: PositiveFloat = Field(
        default=0.01, description="Lower bound, if it is learned. Half of the initial value if a model starts below it."
    )

    @model_validator(mode="after")
    def _check_init(self) -> Self:
        if self.init is not None and self.init < self.min:
            raise ValueError(f"init {self.init} is below min {self.min}")
        return self


class CotsObjectiveConfig(Config):
    """The paper's objective. MoCo's is loss weights 1, 0, 0, 0 with `filter.num_std: null`."""

    kind: Literal["cots"] = Field(default="cots", description="cots, or one of the baselines clip and siglip.")
    loss_weights: LossWeightsConfig = Field(
        default=LossWeightsConfig(), description="Weights of the levels; 0 switches a term and its cost off."
    )
    temperature: TemperatureConfig = Field(default=TemperatureConfig(), description="Divisor of the similarities.")
    in_batch_negatives: Literal["none", "momentum", "online"] = Field(
        default="online",
        description="Features of the batch as negatives, beside the queue: none (the paper), momentum or online. "
        "Online features have a gradient, so that each pair trains both encoders at once (D): "
        "docs/decisions/0002-batch-negatives.md.",
    )
    momentum: Fraction = Field(default=0.9, description="Momentum of the momentum encoders. Paper: 0.99 (L).")
    queue_size: NonNegativeInt = Field(
        default=0,
        description="Features in the queue of each modality; 0: no queue. With online negatives a queue hurts "
        "(docs/log.md). Paper: 9,600 to 12,800 (L/M).",
    )
    queue_warmup_steps: NonNegativeInt = Field(
        default=0,
        description="Steps before features enter the queue. Early features become outdated too fast "
        "(D): docs/decisions/0003-queue-warm-up.md.",
    )
    filter: FilterConfig = Field(
        default=FilterConfig(),
        description="Drops pairs that likely do not match. Without filter and queue, and with "
        "`in_batch_negatives: online`, the momentum encoders are not run (docs/performance.md).",
    )
    mask: MaskConfig = Field(default=MaskConfig(), description="How images and texts are masked.")
    class_column: str = Field(
        default="class",
        min_length=1,
        description="Column of the source with the class of each image or video, for `class_contrast` and "
        "`classification`; without these it is not read. Samples without a class are in the other losses alone.",
        json_schema_extra={"since": "0.3.0"},
    )
    save: Literal["online", "ema"] = Field(
        default="online",
        description="Encoders that the run saves: online, or ema (their exponential moving average). (D)",
    )

    @model_validator(mode="after")
    def _check_weights(self) -> Self:
        if not any(self.loss_weights.model_dump().values()):
            raise ValueError("every loss weight is 0: nothing would be learnt")
        return self

    @model_validator(mode="after")
    def _check_negatives(self) -> Self:
        if self.in_batch_negatives == "none" and not self.queue_size and self.compares_pairs:
            raise ValueError("in_batch_negatives none with queue_size 0: without negatives nothing would be learnt")
        return self

    @property
    def compares_pairs(self) -> bool:
        """Whether a level is trained that compares a pair with negatives."""
        alone = ("token", "translation", "classification")
        return any(weight for level, weight in self.loss_weights if level not in alone)

    @property
    def masked(self) -> MaskConfig | None:
        """How inputs are masked; None if neither token level nor masked views nor translation are trained."""
        return self.mask if self.masks_images or self.needs_translations else None

    @property
    def masks_images(self) -> bool:
        """Whether images are masked, and not texts alone."""
        return bool(self.loss_weights.token or self.loss_weights.masked_views)

    @property
    def needs_translations(self) -> bool:
        """Whether a pair comes with a caption of its image in another language."""
        return bool(self.loss_weights.translation)

    @property
    def needed_class_column(self) -> str | None:
        """Column with the classes; None if no loss needs them."""
        return self.class_column if self.loss_weights.class_contrast or self.loss_weights.classification else None

    @property
    def needs_two_crops(self) -> bool:
        """Whether two crops of an image are compared."""
        return bool(self.loss_weights.within_modality)

    @property
    def saves_ema(self) -> bool:
        """Whether the run saves the momentum encoders instead of the online ones."""
        return self.save == "ema"

    @property
    def needs_whole_batch(self) -> bool:
        """Whether negatives have a gradient, so that a batch cannot be split into micro-batches."""
        return self.in_batch_negatives == "online"

    @property
    def needs_one_frame(self) -> bool:
        """Whether visual tokens are predicted; they belong to a single frame."""
        return bool(self.loss_weights.token)


class InBatchObjectiveConfig(Config):
    """Common to the baselines: negatives come from the batch and have a gradient; nothing is masked."""

    masked: ClassVar[None] = None
    masks_images: ClassVar[bool] = False
    needs_translations: ClassVar[bool] = False
    needed_class_column: ClassVar[None] = None
    saves_ema: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = True
    needs_two_crops: ClassVar[bool] = False
    needs_one_frame: ClassVar[bool] = False


class ClipObjectiveConfig(InBatchObjectiveConfig):
    """The baseline CLIP: InfoNCE over the batch, with gradients to both encoders; ALIGN is the same on noisy data."""

    kind: Literal["clip"] = Field(default="clip", description="cots, or one of the baselines clip and siglip.")
    temperature: TemperatureConfig = Field(
        default=TemperatureConfig(learnable=True), description="Divisor of the similarities."
    )


class SiglipObjectiveConfig(InBatchObjectiveConfig):
    """The baseline SigLIP: a sigmoid loss over the batch's pairs, with a learned bias."""

    kind: Literal["siglip"] = Field(default="siglip", description="cots, or one of the baselines clip and siglip.")
    temperature: TemperatureConfig = Field(
        default=TemperatureConfig(init=0.1, learnable=True), description="Divisor of the similarities."
    )
    bias: float | None = Field(
        default=-10.0,
        description="Initial bias of the similarities; null: that of the model that the run starts from, -10 if it "
        "has none.",
    )


ObjectiveConfig = Annotated[
    CotsObjectiveConfig | ClipObjectiveConfig | SiglipObjectiveConfig, Field(discriminator="kind")
]
