"""Weights that are shared out among the processes (FSDP2), for streams that do not fit one device."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cots.distributed import rank, world_size
from cots.models.encoder import Encoder, ImageEncoder
from cots.models.heads import MaskedTokenHead


def apply_fsdp(objective: nn.Module) -> None:
    """Leave every process its share of the weights; the others' are fetched block by block, whenever they are needed.

    Streams, momentum streams and heads are shared out, and so are their gradients and what an optimiser that is made
    afterwards keeps of them; single numbers are not. With one process nothing changes.

    Args:
        objective: with streams anywhere inside, on its device.

    Raises:
        BadInput: a stream's blocks are no list.
    """
    if world_size() == 1:
        return
    for part in list(objective.modules()):
        if isinstance(part, MaskedTokenHead):
            _fully_shard(part)
        if isinstance(part, Encoder):
            for module in (part.projection, *part.backbone.blocks, part.backbone):
                _fully_shard(module)
        if isinstance(part, ImageEncoder):
            register_fsdp_forward_method(part.backbone, "forward_clean_and_masked")


def _fully_shard(module: nn.Module) -> None:
    fully_shard(module, reshard_after_forward=True)
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)  # losses are shares of the whole batch's: gradients add up,
    module.set_force_sum_reduction_for_comms(True)  # with gloo too


def full_state_dict(state: Any) -> Any:  # noqa: ANN401  a nested state dict
    """A state dict with whole tensors, for the first process; the others, which must ask too, get none of the shared.

    Args:
        state: dicts and lists around tensors and anything else, of a module or an optimiser.
    """
    if isinstance(state, DTensor):
        tensor: Tensor = state.full_tensor()
        return tensor if rank() == 0 else None
    if isinstance(state, dict):
        return {key: full_state_dict(value) for key, value in state.items()}
    if isinstance(state, list):
        return [full_state_dict(value) for value in state]
    return state


def load_full_state(objective: nn.Module, optimizer: torch.optim.Optimizer, *, weights: Any, moments: Any) -> None:  # noqa: ANN401
    """Go on from whole state dicts, of which each process takes its share.

    Args:
        objective: whose weights they are; optimizer: over its parameters.
        weights: `objective.state_dict()`, and moments: `optimizer.state_dict()`, of any number of processes.
    """
    own = objective.state_dict()
    objective.load_state_dict({key: _like(own[key], value) for key, value in weights.items()})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    shared = {
        number: {key: _like(parameters[number], value) for key, value in its.items()}
        for number, its in moments["state"].items()
    }
    optimizer.load_state_dict(moments | {"state": shared})


def _like(model: Tensor, value: Any) -> Any:  # noqa: ANN401
    if not isinstance(model, DTensor) or not isinstance(value, Tensor) or value.shape != model.shape:
        return value  # an optimiser's count of steps is no tensor like its parameter
    here = value.to(model.device)
    return distribute_tensor(here, model.device_mesh, model.placements, src_data_rank=None)
