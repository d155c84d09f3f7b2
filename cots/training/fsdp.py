"""Fully sharded data parallel training (FSDP2), for encoders that do not fit on one device."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from cots.distributed import rank, world_size
from cots.models.class_head import ClassHead
from cots.models.encoder import Encoder, ImageEncoder
from cots.models.heads import MaskedTokenHead


def apply_fsdp(objective: nn.Module) -> None:
    """Shard the weights over the ranks; each block's are gathered when it runs.

    Encoders, momentum encoders and heads are sharded, and so are their gradients and the state of an optimizer created
    afterwards; scalars are not. With one process nothing changes.

    Args:
        objective: contains encoders at any depth; on its device.

    Raises:
        BadInput: an encoder has no list of blocks.
    """
    if world_size() == 1:
        return
    for part in list(objective.modules()):
        if isinstance(part, MaskedTokenHead | ClassHead):
            _fully_shard(part)
        if isinstance(part, Encoder):
            pool = part.backbone.attention_pool if isinstance(part, ImageEncoder) else None
            parts = (*part.layers_above, *part.backbone.blocks, pool, part.backbone)  # it pools after that
            for module in filter(None, parts):
                if not isinstance(module, FSDPModule):  # as shared blocks are for the second encoder
                    _fully_shard(module)
        if isinstance(part, ImageEncoder):
            register_fsdp_forward_method(part.backbone, "forward_clean_and_masked")


def _fully_shard(module: nn.Module) -> None:
    fully_shard(module, reshard_after_forward=True)
    assert isinstance(module, FSDPModule)
    module.set_gradient_divide_factor(1.0)  # losses are shares of the global batch's: gradients add up,
    module.set_force_sum_reduction_for_comms(True)  # with gloo too


def full_state_dict(state: Any) -> Any:  # noqa: ANN401  a nested state dict
    """A state dict with unsharded tensors on rank 0; elsewhere sharded ones become None. A collective.

    Args:
        state: nested dicts and lists with tensors and other values, of a module or an optimizer.
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
    """Load unsharded state dicts; each rank takes its shard.

    Args:
        objective: to be loaded; optimizer: over its parameters.
        weights: of `objective.state_dict()`; moments: of `optimizer.state_dict()`; saved with any number of ranks.
    """
    current = objective.state_dict()
    objective.load_state_dict({key: _shard_like(current[key], value) for key, value in weights.items()})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    sharded = {
        number: {key: _shard_like(parameters[number], value) for key, value in state.items()}
        for number, state in moments["state"].items()
    }
    optimizer.load_state_dict(moments | {"state": sharded})


def _shard_like(reference: Tensor, value: Any) -> Any:  # noqa: ANN401
    if not isinstance(reference, DTensor) or not isinstance(value, Tensor) or value.shape != reference.shape:
        return value  # the optimizer's step count is a scalar
    tensor = value.to(reference.device)
    return distribute_tensor(tensor, reference.device_mesh, reference.placements, src_data_rank=None)
