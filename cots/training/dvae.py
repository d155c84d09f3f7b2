"""Training of the dVAE: reconstruction loss, plus a KL term that pulls the codes towards uniform use."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from cots.config.dvae import TrainedDvaeConfig
from cots.data.random_crops import RandomCrops
from cots.devices import autocast
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
    """Train in place; a killed run resumes from its checkpoint.

    Args:
        dvae: on its device, channels last.
        crops: endless; a function of the step.
        config: the section of the run.
        checkpoint_path: the checkpoint file; after the last step it holds the finished run.
        fingerprint: digest of parameters and data.
        on_step: called with the metrics of each step.

    Returns:
        The curves, one row per step.

    Raises:
        RunFailed: the loss or its gradient is not finite.
    """
    device = next(dvae.parameters()).device
    optimizer = torch.optim.AdamW(dvae.parameters(), fused=True, weight_decay=0.0)
    start, curves = 0, list[Metrics]()
    if state := checkpoint.load(checkpoint_path, fingerprint=fingerprint):
        dvae.load_state_dict(state["dvae"])
        optimizer.load_state_dict(state["optimizer"])
        start, curves = state["step"], state["curves"]
    for step, batch in zip(range(start, config.steps), crops.iter_from(start), strict=False):
        torch.manual_seed(hash((config.seed, step)))  # the Gumbel noise is a function of the step
        curves.append({"step": step} | dvae_step(dvae, optimizer, to_pixels(batch, device), step, config))
        on_step(curves[-1])
        if checkpoint.is_due(step, every=config.checkpoint_every, steps=config.steps):
            state = {"dvae": dvae.state_dict(), "optimizer": optimizer.state_dict()}
            checkpoint.save(checkpoint_path, state | {"step": step + 1, "curves": curves}, fingerprint=fingerprint)
    return curves


def dvae_step(
    dvae: Dvae, optimizer: torch.optim.Optimizer, batch: Tensor, step: int, config: TrainedDvaeConfig
) -> Metrics:
    """One training step; returns its metrics."""
    temperature = exponential(step, start=config.temperature.start, end=config.temperature.end, steps=config.steps)
    kl_weight = config.kl_weight * min(1.0, 2 * step / config.steps)  # full weight from half way on
    learning_rate = config.learning_rate * warmup_cosine(step, warmup_steps=config.steps // 20, steps=config.steps)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    with autocast(batch.device):
        output = dvae(batch, temperature)
    reconstruction = F.mse_loss(output.pixels, batch)
    divergence = kl_to_uniform(output.log_probs)
    loss = reconstruction + kl_weight * divergence
    loss.backward()  # type: ignore[no-untyped-call]
    norm = torch.nn.utils.clip_grad_norm_(dvae.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    require_finite(step, loss=loss.item(), gradient=norm.item())
    counts = torch.bincount(output.log_probs.argmax(dim=1).flatten(), minlength=dvae.num_codes)
    return {
        "reconstruction": float(reconstruction.detach()),
        "kl": float(divergence.detach()),
        "perplexity": perplexity(counts),
        "temperature": temperature,
        "learning_rate": learning_rate,
    }
