"""What each level of the objective costs against CLIP and SigLIP: a training step of params.yaml's model.

The variants run in turn, A B C A B C, so that a machine's changing speed touches all alike; ratios are medians over
rounds against CLIP.
"""

import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks._rounds import in_turn, times_faster
from cots.build import new_model, new_objective
from cots.config import (
    ClipObjective,
    CotsObjective,
    LevelWeights,
    Mask,
    Objective,
    Params,
    SiglipObjective,
    Temperature,
)
from cots.data.text import train_tokenizer
from cots.model import device
from cots.objective import Batch
from cots.training.groups import parameter_groups
from cots.training.loop import update

LEVELS = {
    "instance": LevelWeights(instance=1, token=0, task=0),
    "instance + task": LevelWeights(instance=1, token=0, task=1),
    "instance + token": LevelWeights(instance=1, token=1, task=0),
    "all three": LevelWeights(instance=1, token=1, task=1),
}
BASELINES: dict[str, Objective] = {
    "CLIP": ClipObjective(kind="clip", temperature=Temperature(start=0.07, learned=True, least=0.01)),
    "SigLIP": SiglipObjective(kind="siglip", temperature=Temperature(start=0.1, learned=True, least=0.01), bias=-10.0),
}


def random_batch(params: Params, vocab: int) -> Batch:
    """A batch of noise in the shapes of pre-training, texts of 13 words."""
    size, grid, pairs, words = params.model.image.size, params.model.image.grid, params.pretrain.batch, 15
    ids = torch.randint(5, vocab, (pairs, words))
    hidden = torch.rand(pairs, grid**2).argsort(dim=1) < round(_mask(params).image * grid**2)
    return Batch(
        samples=torch.arange(pairs),
        captions=torch.arange(pairs),
        frames=torch.randn(pairs, 1, 3, size, size),
        ids=ids,
        attended=torch.ones_like(ids, dtype=torch.bool),
        masked_patches=hidden,
        visual_tokens=torch.randint(0, params.dvae.codes, hidden.shape),
        corrupted_ids=ids,
        masked_words=torch.rand(ids.shape) < _mask(params).text,
    )


def main(rounds: int = 7) -> None:
    """Print pairs a second and the cost of each variant as a ratio."""
    params = Params.load()
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=params.model.text.vocab_size).save_pretrained(
            folder
        )
        cots = params.pretrain.objective
        variants = BASELINES | {name: cots.model_copy(update={"weights": weights}) for name, weights in LEVELS.items()}
        steps = {name: _step(params, Path(folder), section) for name, section in variants.items()}
    seconds = in_turn(
        {name: partial(update, *step, rate=1e-4, max_grad_norm=1.0, parts=1) for name, step in steps.items()},
        rounds=rounds,
    )
    print(f"training step, batch {params.pretrain.batch}, {torch.get_num_threads()} threads, {rounds} rounds")
    for name, gain in times_faster(seconds, than="CLIP").items():
        rate = params.pretrain.batch / statistics.median(seconds[name])
        print(f"{name:<18} {rate:7.0f} pairs/s   x{1 / gain:.2f} of CLIP's time")


def smoke() -> None:
    """One round."""
    main(rounds=1)


def _mask(params: Params) -> Mask:
    assert isinstance(params.pretrain.objective, CotsObjective)
    return params.pretrain.objective.mask


def _step(params: Params, tokenizer: Path, section: Objective) -> tuple[nn.Module, torch.optim.Optimizer, Batch]:
    model = new_model(params.model, tokenizer).to(device())
    objective = new_objective(model, section, codes=params.dvae.codes).to(device())
    groups = parameter_groups(objective, weight_decay=0.02, layer_decay=1.0)
    return objective, torch.optim.AdamW(groups, fused=True), random_batch(params, 30)
