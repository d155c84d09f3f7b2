"""The training objective from its configuration."""

import copy
from collections.abc import Callable
from typing import Any

from cots.config.objective import ClipObjectiveConfig, CotsObjectiveConfig, ObjectiveConfig, SiglipObjectiveConfig
from cots.errors import BadInput
from cots.losses.filter import AdaptiveMomentumFilter
from cots.models.class_head import ClassHead
from cots.models.dual_encoder import DualEncoder
from cots.models.heads import MaskedTokenHead
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.objectives.clip import ClipObjective
from cots.objectives.cots import CotsObjective, LossWeights
from cots.objectives.protocol import Objective
from cots.objectives.siglip import SiglipObjective

TEMPERATURE, BIAS = 0.07, -10.0  # initial values, if neither the section nor the model has any


def build_objective(
    model: DualEncoder, section: ObjectiveConfig, *, num_codes: int, classes: tuple[str, ...] = ()
) -> Objective[Any]:
    """The training objective around a model's encoders.

    Args:
        model: the encoders; a classification head of the same classes is trained further.
        section: the parameters.
        num_codes: size of the dVAE's codebook.
        classes: names of the classes, if a loss needs them.
    """
    config = section.temperature
    init = model.config.get("temperature", TEMPERATURE) if config.init is None else config.init
    lowest = config.min if init >= config.min else init / 2
    temperature = Temperature(init=init, learnable=config.learnable, min=lowest)
    return OBJECTIVES[section.kind](model, section, temperature, num_codes, classes)


def trained_scales(model: DualEncoder, objective: Objective[Any]) -> dict[str, float]:
    """Temperature and bias after a run, for the model's config, if the run learned them or the model has them."""
    scales: dict[str, float] = {}
    temperature = objective.get_submodule("temperature")
    if "temperature" in model.config or any(p.requires_grad for p in temperature.parameters()):
        scales["temperature"] = temperature().item()
    if isinstance(objective, SiglipObjective):
        scales["bias"] = objective.bias.item()
    return scales


def _build_cots(
    model: DualEncoder,
    section: CotsObjectiveConfig,
    temperature: Temperature,
    num_codes: int,
    classes: tuple[str, ...],
) -> CotsObjective:
    image, text, dim, filter_config = model.image, model.text, model.dim, section.filter
    if section.needs_translations and model.tokenizer.mask_token_id is None:
        raise BadInput("loss_weights.translation: the tokenizer has no mask token, as CLIP's: set the weight to 0")
    return CotsObjective(
        image=image,
        text=text,
        patch_head=MaskedTokenHead(width=image.backbone.width, dim=dim, vocab_size=num_codes),
        word_head=MaskedTokenHead(
            width=text.backbone.width,
            dim=2 * dim if section.needs_translations else dim,  # of image and translation
            vocab_size=len(model.tokenizer),
        )
        if model.tokenizer.mask_token_id is not None
        else None,
        class_head=_build_class_head(model, classes) if section.loss_weights.classification else None,
        queue=PairQueue(size=section.queue_size, dim=dim, warmup_steps=section.queue_warmup_steps),
        noise_filter=AdaptiveMomentumFilter(
            warmup_steps=filter_config.warmup_steps, num_std=filter_config.num_std, momentum=filter_config.momentum
        ),
        loss_weights=LossWeights(**section.loss_weights.model_dump()),
        temperature=temperature,
        in_batch_negatives=section.in_batch_negatives,
        momentum=section.momentum,
    )


def _build_class_head(model: DualEncoder, classes: tuple[str, ...]) -> ClassHead:
    """A copy of the model's head if that has the same classes, or a new one."""
    if model.class_head and model.classes == classes:
        return copy.deepcopy(model.class_head)
    return ClassHead(dim=model.dim, num_classes=len(classes))


def _build_clip(
    model: DualEncoder,
    section: ClipObjectiveConfig,
    temperature: Temperature,
    num_codes: int,
    classes: tuple[str, ...],
) -> ClipObjective:
    return ClipObjective(image=model.image, text=model.text, temperature=temperature)


def _build_siglip(
    model: DualEncoder,
    section: SiglipObjectiveConfig,
    temperature: Temperature,
    num_codes: int,
    classes: tuple[str, ...],
) -> SiglipObjective:
    bias = model.config.get("bias", BIAS) if section.bias is None else section.bias
    return SiglipObjective(image=model.image, text=model.text, temperature=temperature, bias=bias)


# Each takes the model, its own section, the temperature, the size of the dVAE's codebook, and the names of the classes.
OBJECTIVES: dict[str, Callable[[DualEncoder, Any, Temperature, int, tuple[str, ...]], Objective[Any]]] = {
    "cots": _build_cots,
    "clip": _build_clip,
    "siglip": _build_siglip,
}
