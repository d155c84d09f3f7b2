"""Parameter groups for the optimiser: what decays, and how fast each depth learns."""

from typing import Any

from torch import nn

from cots.models.encoder import Encoder


def build_param_groups(module: nn.Module, *, weight_decay: float, layer_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by weight decay and depth, the fastest group first.

        learning rate of a group = scale * the run's rate,   scale = layer_decay ** (depth distance from the top)

    The distance is 0 for heads, projections and final norms, 1 for the last block of a stream, one more for each block
    below, and one more again for the embeddings. Matrices decay, vectors (biases, norms) do not, nor single numbers (a
    learned temperature), which have groups of their own: they alone are never shared out among processes. With
    layer_decay 1 there are at most three groups, of scale 1.

    Args:
        module: with streams anywhere inside; momentum copies have nothing trainable.
        weight_decay: of the matrices, >= 0.
        layer_decay: in (0, 1].

    Returns:
        Groups of `params`, `weight_decay` and `scale`; a loop sets each group's `lr` from its `scale`.

    Raises:
        BadInput: layer_decay is below 1 and a stream's blocks are no list.

    Source: BEiT, arXiv:2106.08254, appendix; github.com/microsoft/unilm/tree/master/beit (optim_factory.py).
    """
    scales = scale_by_depth(module, layer_decay) if layer_decay < 1 else {}
    trained = [(parameter, scales.get(parameter, 1.0)) for parameter in module.parameters() if parameter.requires_grad]
    kinds = sorted({(its, min(p.ndim, 2)) for p, its in trained}, reverse=True)
    return [
        {
            "params": [p for p, its in trained if (its, min(p.ndim, 2)) == (scale, axes)],
            "weight_decay": weight_decay if axes == 2 else 0.0,
            "scale": scale,
        }
        for scale, axes in kinds
    ]


def scale_by_depth(module: nn.Module, layer_decay: float) -> dict[nn.Parameter, float]:
    """layer_decay ** distance for the parameters of every stream's embeddings and blocks; all others are at the top."""
    streams = [part for part in module.modules() if isinstance(part, Encoder)]
    return {
        parameter: layer_decay**distance
        for stream in streams
        for distance, layer in enumerate(reversed(stream.layer_groups()), start=1)
        for parameter in layer
    }
