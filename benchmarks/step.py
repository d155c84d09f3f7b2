"""A training step: the cost of each loss level relative to CLIP, and other libraries' steps with equal encoders.

The variants are interleaved; ratios are medians over rounds. `python -m benchmarks.step levels`, `small` or `base`
prints one table only: the levels with the model of params.yaml; its encoders, with the ViT's own patch embedding, which
the other libraries have too, compared with theirs; the same with ViT-B/16 and BERT-base at 224 pixels.
"""

import statistics
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks._peers import albef_step, dual_encoder_step, open_clip_step
from benchmarks._rounds import Call, interleave, times_faster
from benchmarks.ablation import CLIP, SIGLIP, unfiltered
from benchmarks.single_stream import section
from cots.config.model import ModelConfig
from cots.config.objective import CotsObjectiveConfig, LossWeightsConfig, ObjectiveConfig
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import default_device
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.models.dual_encoder import DualEncoder
from cots.objectives.protocol import Batch, Objective
from cots.training.mfu import matmul_rate
from cots.training.optim import build_param_groups
from cots.training.trainer import train_step

ACCELERATED = 256  # pairs
CAPTION_TOKENS = (8, 24)  # minimum, and one more than the maximum
LEVELS = {
    "instance": LossWeightsConfig(instance=1, token=0, task=0, masked_views=0),
    "instance + task": LossWeightsConfig(instance=1, token=0, task=1, masked_views=0),
    "instance + token": LossWeightsConfig(instance=1, token=1, task=0, masked_views=0),
    "all three": LossWeightsConfig(instance=1, token=1, task=1, masked_views=0),
    "all, masked views": LossWeightsConfig(instance=1, token=1, task=1, masked_views=1),
}


Peer = Callable[[DualEncoder, Batch], Call]


class Size(NamedTuple):
    """Which encoders, how many pairs in a batch, and which other libraries."""

    model: Callable[[Params], ModelConfig]
    pairs: int | None = None  # on a processor; None: as in params.yaml
    peers: tuple[Peer, ...] = ()


def small(params: Params) -> ModelConfig:
    """The encoders of params.yaml with the ViT's own patch embedding."""
    image = params.model.image.model_copy(update={"stem": "linear"})
    return params.model.model_copy(update={"image": image})


SIZES = {
    "levels": Size(lambda params: params.model),
    "small": Size(small, peers=(open_clip_step, dual_encoder_step)),
    "base": Size(lambda _: section("base"), pairs=16, peers=(open_clip_step, dual_encoder_step, albef_step)),
}


def batch_size_of(size: str) -> int:
    """Pairs in a batch; on an accelerator, for large encoders, the paper's batch divided by eight devices."""
    pairs = SIZES[size].pairs
    return (
        Params.load().pretrain.batch_size if pairs is None else pairs if default_device().type == "cpu" else ACCELERATED
    )


def random_batch(model: ModelConfig, cots: CotsObjectiveConfig, *, pairs: int, vocab: int, num_codes: int) -> Batch:
    """A batch of noise with the shapes of pre-training."""
    size, grid = model.image.size, model.image.grid
    lengths = torch.randint(*CAPTION_TOKENS, (pairs, 1)).index_fill_(0, torch.tensor([0]), CAPTION_TOKENS[1] - 1)
    attention_mask = torch.arange(CAPTION_TOKENS[1] - 1) < lengths
    input_ids = torch.where(attention_mask, torch.randint(5, vocab, attention_mask.shape), 0)
    bool_masked_pos = torch.rand(pairs, grid**2).argsort(dim=1) < round(cots.mask.patch_ratio * grid**2)
    batch = Batch(
        image_index=torch.arange(pairs),
        caption_index=torch.arange(pairs),
        frame_row=torch.arange(pairs),
        frames=torch.randn(pairs, 1, 3, size, size),
        input_ids=input_ids,
        attention_mask=attention_mask,
        bool_masked_pos=bool_masked_pos,
        visual_tokens=torch.randint(0, num_codes, bool_masked_pos.shape),
        mlm_input_ids=input_ids,
        mlm_mask=attention_mask & (torch.rand(input_ids.shape) < cots.mask.mlm_probability),
    )
    fields = {name: field for name, field in batch._asdict().items() if field is not None}
    return Batch(**{name: field.to(default_device()) for name, field in fields.items()})


def main(sizes: tuple[str, ...] = tuple(SIZES), rounds: int = 7) -> None:
    """Print a table for each size."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """One round without the large encoders."""
    main(("levels", "small"), rounds=1)


def table(size: str, *, rounds: int) -> None:
    """Print pairs per second of each variant, the ratio of its time to CLIP's, and its fraction of the matrix rate.

    Each is interleaved with CLIP and freed before the next is built, because memory holds two large models, not five.
    """
    params, (model_of, _, peers), pairs = Params.load(), SIZES[size], batch_size_of(size)
    cots = params.pretrain.objective
    assert isinstance(cots, CotsObjectiveConfig)
    model_config, num_codes = model_of(params), params.dvae.codebook_size
    levels = {"all three": LEVELS["all three"]} if peers else LEVELS
    objectives: dict[str, ObjectiveConfig] = {} if peers else {"SigLIP": SIGLIP}
    by_levels = {name: cots.model_copy(update={"loss_weights": weights}) for name, weights in levels.items()}
    objectives |= by_levels | {
        f"{name}, no filter": unfiltered(objective) for name, objective in by_levels.items() if name.startswith("all")
    }
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        build = partial(build_model, model_config, Path(folder))
        batch = random_batch(model_config, cots, pairs=pairs, vocab=30, num_codes=num_codes)
        variants = {name: partial(_step, build, objective, batch, num_codes) for name, objective in objectives.items()}
        variants |= {peer.__name__.removesuffix("_step"): partial(_peer, peer, build, batch) for peer in peers}
        peak, image, clip = matmul_rate(default_device()), model_config.image, _step(build, CLIP, batch, num_codes)
        print(f"{size}: {image.name}, {image.size} px, batch {pairs}, {torch.get_num_threads()} threads")
        print(f"  matrix products reach {peak / 1e9:,.0f} GFLOP/s; per cent are of that rate", flush=True)
        for name, build_step in variants.items():
            calls = {"CLIP": clip, name: build_step()}
            used = {which: operations(call) / peak for which, call in calls.items()}
            seconds = interleave(calls, rounds=rounds, settling=1)
            ratio = 1 / times_faster(seconds, than="CLIP")[name]
            rates = [_rate(pairs, statistics.median(times), used[which]) for which, times in seconds.items()]
            print(f"  {name:<28} {rates[1]}   x{ratio:.2f} of the time of CLIP, {rates[0]}", flush=True)


def _rate(pairs: int, seconds: float, used: float) -> str:
    return f"{pairs / seconds:7.1f} pairs/s, {used / seconds:.0%}"


def operations(call: Call) -> int:
    """FLOPs of the matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _peer(peer: Peer, build: Callable[[], DualEncoder], batch: Batch) -> Call:
    return peer(build().to(default_device()), batch)


def _step(build: Callable[[], DualEncoder], section: ObjectiveConfig, batch: Batch, num_codes: int) -> Call:
    return training_step(training_objective(build, section, num_codes), batch)


def training_objective(build: Callable[[], DualEncoder], section: ObjectiveConfig, num_codes: int) -> Objective[Any]:
    """An objective over new encoders, in training mode."""
    objective = build_objective(build().to(default_device()), section, num_codes=num_codes).to(default_device())
    return objective.train()


def training_step(objective: Objective[Any], batch: Batch) -> Call:
    """A step of training as `cots.training` runs it."""
    optimizer = torch.optim.AdamW(build_param_groups(objective, weight_decay=0.02, layer_decay=1.0), fused=True)
    return partial(train_step, objective, optimizer, batch, learning_rate=1e-4, max_grad_norm=1.0, grad_accum_steps=1)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(SIZES))
