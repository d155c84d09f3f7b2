"""What a training run learns: the paper's objective and the baselines."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from cots.config_base import Config, Fraction


class LossWeightsConfig(Config):
    """Weights of the three levels of interaction and of the masked views; 0 switches a term and its cost off."""

    instance: NonNegativeFloat = Field(default=1.0, description="Instance level. Paper: 1 (M).")
    token: NonNegativeFloat = Field(default=1.0, description="Token level: masked patches and tokens. Paper: 1 (M).")
    task: NonNegativeFloat = Field(default=0.1, description="Task level. Paper: 1 (M).")
    masked_views: NonNegativeFloat = Field(
        default=0.0,
        description="Instance level between masked images and masked texts. 0 in the paper (D); for runs that see "
        "every pair some 50 times or more: docs/decisions/0007-masked-views.md.",
    )


class FilterConfig(Config):
    """The adaptive momentum filter: drops a pair below mean - num_std * std, once warmed up."""

    warmup_steps: NonNegativeInt = Field(default=100, description="Steps before pairs are dropped.")
    num_std: PositiveFloat | None = Field(
        default=2.0,
        description="Standard deviations below the running mean; null drops nothing. The statistics are logged all the "
        "same. Paper: 2 (M).",
    )
    momentum: Fraction = Field(default=0.9, description="Of the running statistics.")


class MaskConfig(Config):
    """What is hidden from masked images and texts."""

    patch_ratio: Fraction = Field(default=0.4, description="Fraction of the patches. Paper: 0.4 (M).")
    min_block: PositiveInt = Field(default=4, description="Patches of the smallest block. Paper: 16 (M).")
    mlm_probability: Fraction = Field(default=0.15, description="Fraction of the tokens. Paper: 0.15 (M).")


class TemperatureConfig(Config):
    """Divisor of the similarities: fixed, or learned from `init` and kept above `min`."""

    init: PositiveFloat = Field(default=0.07, description="At the start. Paper: 0.05 to 0.07 (M).")
    learnable: bool = Field(default=False, description="Learned, or fixed. Paper: fixed (M).")
    min: PositiveFloat = Field(default=0.01, description="Lower bound of a learned one.")

    @model_validator(mode="after")
    def _starts_above_its_minimum(self) -> Self:
        if self.init < self.min:
            raise ValueError(f"init {self.init} lies below min {self.min}")
        return self


class CotsObjectiveConfig(Config):
    """The paper's objective. MoCo's is loss weights 1, 0, 0, 0 with `filter.num_std: null`."""

    kind: Literal["cots"] = Field(default="cots", description="cots, or the baselines clip and siglip.")
    loss_weights: LossWeightsConfig = Field(
        default=LossWeightsConfig(), description="Of the levels; 0 switches a term and its cost off."
    )
    temperature: TemperatureConfig = Field(default=TemperatureConfig(), description="Divisor of the similarities.")
    in_batch_negatives: Literal["none", "momentum", "online"] = Field(
        default="online",
        description="Beside the queue: none (the paper), momentum or online features of the batch. The gradient of "
        "online ones teaches both encoders at once (D): docs/decisions/0002-batch-negatives.md.",
    )
    momentum: Fraction = Field(default=0.9, description="Of the momentum encoders. Paper: 0.99 (L).")
    queue_size: NonNegativeInt = Field(
        default=0,
        description="Features of a modality that are kept; 0 for no queue. Beside online negatives a queue hurts "
        "(docs/log.md). Paper: 9,600 to 12,800 (L/M).",
    )
    queue_warmup_steps: NonNegativeInt = Field(
        default=0,
        description="Steps before features are queued: early on they age too fast. "
        "(D): docs/decisions/0003-queue-warm-up.md.",
    )
    filter: FilterConfig = Field(
        default=FilterConfig(),
        description="Drops pairs that do not fit, below the running mean. Without filter and queue and with "
        "`in_batch_negatives: online` the momentum encoders are not run (docs/performance.md).",
    )
    mask: MaskConfig = Field(default=MaskConfig(), description="What is hidden from masked images and texts.")
    save: Literal["online", "ema"] = Field(
        default="online",
        description="Which encoders the run writes: online, or ema, their average over the last steps. (D)",
    )

    @model_validator(mode="after")
    def _something_is_learnt(self) -> Self:
        if not any(self.loss_weights.model_dump().values()):
            raise ValueError("every loss weight is 0: nothing would be learnt")
        return self

    @property
    def masked(self) -> MaskConfig | None:
        """What is hidden; None where neither token level nor masked views are trained."""
        return self.mask if self.loss_weights.token or self.loss_weights.masked_views else None

    @property
    def saves_ema(self) -> bool:
        """Whether the run writes the momentum encoders, not the online ones."""
        return self.save == "ema"

    @property
    def needs_whole_batch(self) -> bool:
        """Whether negatives have a gradient, so that a batch cannot be computed in parts."""
        return self.in_batch_negatives == "online"

    @property
    def needs_one_frame(self) -> bool:
        """Whether visual tokens are predicted, which belong to one frame."""
        return bool(self.loss_weights.token)


class InBatchObjectiveConfig(Config):
    """What the baselines have in common: their negatives are the batch's, with gradient, and nothing is hidden."""

    masked: ClassVar[None] = None
    saves_ema: ClassVar[bool] = False
    needs_whole_batch: ClassVar[bool] = True
    needs_one_frame: ClassVar[bool] = False


class ClipObjectiveConfig(InBatchObjectiveConfig):
    """The baseline CLIP: InfoNCE over the batch, both encoders with gradient; ALIGN is the same on noisy data."""

    kind: Literal["clip"] = Field(default="clip", description="cots, or the baselines clip and siglip.")
    temperature: TemperatureConfig = Field(
        default=TemperatureConfig(learnable=True), description="Divisor of the similarities."
    )


class SiglipObjectiveConfig(InBatchObjectiveConfig):
    """The baseline SigLIP: a sigmoid loss over the batch's pairs, with a learned bias."""

    kind: Literal["siglip"] = Field(default="siglip", description="cots, or the baselines clip and siglip.")
    temperature: TemperatureConfig = Field(
        default=TemperatureConfig(init=0.1, learnable=True), description="Divisor of the similarities."
    )
    bias: float = Field(default=-10.0, description="Of the similarities, at the start.")


ObjectiveConfig = Annotated[
    CotsObjectiveConfig | ClipObjectiveConfig | SiglipObjectiveConfig, Field(discriminator="kind")
]
