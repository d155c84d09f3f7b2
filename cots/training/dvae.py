"""Training of the dVAE: reconstruction loss, plus a KL term that pulls the codes towards uniform use."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cots.collectives import all_reduce_gradients, all_reduce_sum, clip_grad_norm
from cots.config.dvae import TrainedDvaeConfig
from cots.data.random_crops import RandomCrops
from cots.devices import autocast
from cots.distributed import barrier, local_slice, rank, world_size
from cots.errors import BadInput
from cots.models.dvae.pixels import to_pixels
from cots.models.dvae.vae import Dvae, kl_to_uniform, perplexity
from cots.training import checkpoint
from cots.training.require_finite import require_finite
from cots.training.schedule import exponential, warmup_cosine

Metrics = dict[str, float]


def train_dvae(
    dvae: Dvae,
    crops: RandomCrops,
    *,
    config: TrainedDvaeConfig,
    checkpoint_path: Path,
    fingerprint: str,
    on_step: Callable[[Metrics], None],
) -> list[Metrics]:
    """Train in place, each rank on its share of every batch; a killed run resumes from its checkpoint.

    Args:
        dvae: on its device, channels last; the same on every rank.
        crops: endless; a function of the step.
        config: the section of the run.
        checkpoint_path: the checkpoint file; after the last step it holds the finished run.
        fingerprint: digest of parameters and data.
        on_step: called with the metrics of each step.

    Returns:
        The curves, one row per step.

    Raises:
        BadInput: the ranks have different parameters or data, or are more than the crops of a batch.
        RunFailed: the loss or its gradient is not finite.
    """
    if config.batch_size < world_size():
        raise BadInput(f"dvae.batch_size is {config.batch_size} for {world_size()} processes: start fewer, or raise it")
    device = next(dvae.parameters()).device
    optimizer = torch.optim.AdamW(dvae.parameters(), fused=True, weight_decay=0.0)
    start, curves = 0, list[Metrics]()
    if state := checkpoint.load_agreed(checkpoint_path, fingerprint=fingerprint):
        dvae.load_state_dict(state["dvae"])
        optimizer.load_state_dict(state["optimizer"])
        start, curves = state["step"], state["curves"]
    share = local_slice(config.batch_size)
    for step, batch in zip(range(start, config.steps), crops.iter_from(start, share), strict=False):
        curves.append({"step": step} | dvae_step(dvae, optimizer, to_pixels(batch, device), step, share, config))
        on_step(curves[-1])
        if checkpoint.is_due(step, every=config.checkpoint_every, steps=config.steps) and rank() == 0:
            state = {"dvae": dvae.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(checkpoint_path, state | {"step": step + 1, "curves": curves}, fingerprint=fingerprint)
    barrier()  # a slower rank may still be loading the checkpoint that the first one removes next
    return curves


def dvae_step(
    dvae: Dvae,
    optimizer: torch.optim.Optimizer,
    crops: Tensor,
    step: int,
    share: slice,
    config: TrainedDvaeConfig,
) -> Metrics:
    """One training step; returns the metrics of the whole batch.

    Args:
        dvae: to be trained.
        optimizer: over its parameters.
        crops: (R, 3, H, W), this rank's share of the batch.
        step: from 0; share: positions of these crops in the batch.
        config: the section of the run.
    """
    temperature = exponential(step, start=config.temperature.start, end=config.temperature.end, steps=config.steps)
    kl_weight = config.kl_weight * min(1.0, 2 * step / config.steps)  # full weight from half way on
    learning_rate = config.learning_rate * warmup_cosine(step, warmup_steps=config.steps // 20, steps=config.steps)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    noise_seeds = [hash((config.seed, step, position)) for position in range(config.batch_size)[share]]
    with autocast(crops.device):
        output = dvae(crops, temperature, noise_seeds)
    part = len(crops) / config.batch_size
    reconstruction = part * F.mse_loss(output.pixels, crops)
    divergence = part * kl_to_uniform(output.log_probs)
    loss = reconstruction + kl_weight * divergence
    loss.backward()  # type: ignore[no-untyped-call]
    all_reduce_gradients(dvae)
    norm = clip_grad_norm(dvae, 1.0)
    optimizer.step()
    optimizer.zero_grad()
    sums = all_reduce_sum(torch.stack([reconstruction.detach(), divergence.detach(), loss.detach()]))
    mean_reconstruction, mean_divergence, mean_loss = sums.tolist()
    require_finite(step, loss=mean_loss, gradient=norm.item())
    counts = torch.bincount(output.log_probs.argmax(dim=1).flatten(), minlength=dvae.num_codes)
    return {
        "reconstruction": mean_reconstruction,
        "kl": mean_divergence,
        "perplexity": perplexity(all_reduce_sum(counts)),
        "temperature": temperature,
        "learning_rate": learning_rate,
    }
