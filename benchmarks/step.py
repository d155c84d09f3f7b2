"""A training step: what each level costs against CLIP, and how ours compare with other libraries' at equal towers.

The variants run in turn; ratios are medians over rounds. `python -m benchmarks.step levels`, `small` or `base` prints
one table alone: params.yaml's model by levels; its streams, with the ViT's own patch embedding that the peers have too,
against them; the same with ViT-B/16 and BERT-base at 224 pixels.
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
from benchmarks._rounds import Call, in_turn, times_faster
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
WORDS = (8, 24)  # tokens of a caption: from, and fewer than
LEVELS = {
    "instance": LossWeightsConfig(instance=1, token=0, task=0, masked_views=0),
    "instance + task": LossWeightsConfig(instance=1, token=0, task=1, masked_views=0),
    "instance + token": LossWeightsConfig(instance=1, token=1, task=0, masked_views=0),
    "all three": LossWeightsConfig(instance=1, token=1, task=1, masked_views=0),
    "all, masked views": LossWeightsConfig(instance=1, token=1, task=1, masked_views=1),
}


Peer = Callable[[DualEncoder, Batch], Call]


class Size(NamedTuple):
    """Which streams, and how many pairs at once."""

    model: Callable[[Params], ModelConfig]
    pairs: int | None = None  # on a processor; as in params.yaml
    peers: tuple[Peer, ...] = ()


def small(params: Params) -> ModelConfig:
    """The streams of params.yaml with the ViT's own patch embedding."""
    image = params.model.image.model_copy(update={"stem": "linear"})
    return params.model.model_copy(update={"image": image})


SIZES = {
    "levels": Size(lambda params: params.model),
    "small": Size(small, peers=(open_clip_step, dual_encoder_step)),
    "base": Size(lambda _: section("base"), pairs=16, peers=(open_clip_step, dual_encoder_step, albef_step)),
}


def pairs_of(size: str) -> int:
    """The batch of a size: on an accelerator large streams have what the paper's parameters give one of eight."""
    pairs = SIZES[size].pairs
    return (
        Params.load().pretrain.batch_size if pairs is None else pairs if default_device().type == "cpu" else ACCELERATED
    )


def random_batch(model: ModelConfig, cots: CotsObjectiveConfig, *, pairs: int, vocab: int, codes: int) -> Batch:
    """A batch of noise in the shapes of pre-training."""
    size, grid = model.image.size, model.image.grid
    lengths = torch.randint(*WORDS, (pairs, 1)).index_fill_(0, torch.tensor([0]), WORDS[1] - 1)
    attended = torch.arange(WORDS[1] - 1) < lengths
    ids = torch.where(attended, torch.randint(5, vocab, attended.shape), 0)
    hidden = torch.rand(pairs, grid**2).argsort(dim=1) < round(cots.mask.patch_ratio * grid**2)
    batch = Batch(
        image_index=torch.arange(pairs),
        caption_index=torch.arange(pairs),
        frames=torch.randn(pairs, 1, 3, size, size),
        input_ids=ids,
        attention_mask=attended,
        bool_masked_pos=hidden,
        visual_tokens=torch.randint(0, codes, hidden.shape),
        mlm_input_ids=ids,
        mlm_mask=attended & (torch.rand(ids.shape) < cots.mask.mlm_probability),
    )
    return Batch(*(field.to(default_device()) for field in batch))


def main(sizes: tuple[str, ...] = tuple(SIZES), rounds: int = 7) -> None:
    """Print a table for each size."""
    for size in sizes:
        table(size, rounds=rounds)


def smoke() -> None:
    """One round without the large streams."""
    main(("levels", "small"), rounds=1)


def table(size: str, *, rounds: int) -> None:
    """Print pairs a second of each variant, its time as a ratio to CLIP's, and its share of the matrix rate.

    Each takes turns with CLIP and is freed before the next is built: large streams fit twice, not five times.
    """
    params, (model_of, _, peers), pairs = Params.load(), SIZES[size], pairs_of(size)
    cots = params.pretrain.objective
    assert isinstance(cots, CotsObjectiveConfig)
    settings, codes = model_of(params), params.dvae.codebook_size
    levels = {"all three": LEVELS["all three"]} if peers else LEVELS
    objectives: dict[str, ObjectiveConfig] = {} if peers else {"SigLIP": SIGLIP}
    whole = {name: cots.model_copy(update={"loss_weights": weights}) for name, weights in levels.items()}
    objectives |= whole | {
        f"{name}, no filter": unfiltered(one) for name, one in whole.items() if name.startswith("all")
    }
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        build = partial(build_model, settings, Path(folder))
        batch = random_batch(settings, cots, pairs=pairs, vocab=30, codes=codes)
        variants = {name: partial(_step, build, one, batch, codes) for name, one in objectives.items()}
        variants |= {peer.__name__.removesuffix("_step"): partial(_peer, peer, build, batch) for peer in peers}
        peak, image, clip = matmul_rate(default_device()), settings.image, _step(build, CLIP, batch, codes)
        print(f"{size}: {image.name}, {image.size} px, batch {pairs}, {torch.get_num_threads()} threads")
        print(f"  matrix products reach {peak / 1e9:,.0f} GFLOP/s; per cent of it beside the rates", flush=True)
        for name, made in variants.items():
            calls = {"CLIP": clip, name: made()}
            used = {which: operations(call) / peak for which, call in calls.items()}
            seconds = in_turn(calls, rounds=rounds, settling=1)
            ratio = 1 / times_faster(seconds, than="CLIP")[name]
            told = [_told(pairs, statistics.median(taken), used[which]) for which, taken in seconds.items()]
            print(f"  {name:<28} {told[1]}   x{ratio:.2f} of the time of CLIP, {told[0]}", flush=True)


def _told(pairs: int, taken: float, used: float) -> str:
    return f"{pairs / taken:7.1f} pairs/s, {used / taken:.0%}"


def operations(call: Call) -> int:
    """Of the matrix products of a call."""
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())


def _peer(peer: Peer, build: Callable[[], DualEncoder], batch: Batch) -> Call:
    return peer(build().to(default_device()), batch)


def _step(build: Callable[[], DualEncoder], section: ObjectiveConfig, batch: Batch, codes: int) -> Call:
    return training_step(training_objective(build, section, codes), batch)


def training_objective(build: Callable[[], DualEncoder], section: ObjectiveConfig, codes: int) -> Objective[Any]:
    """An objective over new streams, ready to train."""
    objective = build_objective(build().to(default_device()), section, num_codes=codes).to(default_device())
    return objective.train()


def training_step(objective: Objective[Any], batch: Batch) -> Call:
    """The step of training."""
    optimizer = torch.optim.AdamW(build_param_groups(objective, weight_decay=0.02, layer_decay=1.0), fused=True)
    return partial(train_step, objective, optimizer, batch, learning_rate=1e-4, max_grad_norm=1.0, grad_accum_steps=1)


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or tuple(SIZES))
