"""Parameter groups for the optimizer: weight decay, and layer-wise learning rate decay."""

from typing import Any

from torch import nn

from cots.models.encoder import Encoder


def build_param_groups(
    module: nn.Module, *, weight_decay: float, layer_decay: float, head_lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters grouped by weight decay and depth, the highest learning rate first.

        learning rate of a group = scale * learning rate of the run
        scale = head_lr_scale outside the backbones, layer_decay ** distance from the top inside

    The distance is 0 for final norms, 1 for the last block of an encoder, one more for each block below, and one more
    again for the embeddings. Outside the backbones are projections, prediction heads, temperature and bias. Matrices
    decay; vectors (biases, norms) and scalars (a learnable temperature) do not. Scalars have groups of their own,
    because FSDP does not shard them. With both factors 1 there are at most three groups, of scale 1.

    Args:
        module: contains encoders at any depth; momentum encoders have nothing trainable.
        weight_decay: of the matrices, >= 0.
        layer_decay: in (0, 1].
        head_lr_scale: > 0; above 1 for projections with random weights on pretrained encoders.

    Returns:
        Groups of `params`, `weight_decay` and `scale`; the training loop sets each group's `lr` from its `scale`.

    Raises:
        BadInput: layer_decay is below 1 and an encoder has no list of blocks.

    Source: BEiT, arXiv:2106.08254, appendix; github.com/microsoft/unilm/tree/master/beit (optim_factory.py).
    """
    scales = dict.fromkeys(outside_backbones(module), head_lr_scale) if head_lr_scale != 1 else {}
    if layer_decay < 1:
        scales |= scale_by_depth(module, layer_decay)
    trainable = [
        (parameter, scales.get(parameter, 1.0)) for parameter in module.parameters() if parameter.requires_grad
    ]
    kinds = sorted({(scale, min(p.ndim, 2)) for p, scale in trainable}, reverse=True)
    return [
        {
            "params": [p for p, p_scale in trainable if (p_scale, min(p.ndim, 2)) == (scale, axes)],
            "weight_decay": weight_decay if axes == 2 else 0.0,
            "scale": scale,
        }
        for scale, axes in kinds
    ]


def outside_backbones(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that belong to no encoder's backbone."""
    backbones = [part.backbone for part in module.modules() if isinstance(part, Encoder)]
    inside = {parameter for backbone in backbones for parameter in backbone.parameters()}
    return [parameter for parameter in module.parameters() if parameter not in inside]


def scale_by_depth(module: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """layer_decay ** distance of the parameters in every encoder's embeddings and blocks; others have distance 0."""
    encoders = [part for part in module.modules() if isinstance(part, Encoder)]
    return {
        parameter: layer_decay**distance
        for encoder in encoders
        for distance, layer in enumerate(reversed(encoder.layer_groups()), start=1)
        for parameter in layer
    }
