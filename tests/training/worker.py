"""One process of `tests/training/test_processes.py`: some steps of every objective, in float64.

`torchrun ... -m tests.training.worker DATA TOKENIZED OUT`
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.fsdp import FSDPModule

from cots.config.params import Params
from cots.config.training import TrainConfig
from cots.distributed import local_slice, rank, world_size
from cots.factory.dvae_crops import build_dvae_crops
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.factory.train_loader import build_train_loader
from cots.init_distributed import init_distributed
from cots.models.dvae.pixels import to_pixels
from cots.models.dvae.vae import Dvae
from cots.training.dvae import dvae_step
from cots.training.fsdp import apply_fsdp, full_state_dict
from cots.training.optim import build_param_groups
from cots.training.trainer import to_device, train_step
from tests.additions import LEVELS
from tests.training.conftest import PIXELS, tiny_params

STEPS = 3
LONGER = {"sharded and dropped": 5}  # until all pairs of a rank are noise
TEMPERATURE = {"init": 0.07, "learnable": True, "min": 0.01}
NO_KEYS: dict[str, Any] = {
    "in_batch_negatives": "online",
    "queue_size": 0,
    "filter": {"warmup_steps": 1, "num_std": None, "momentum": 0.5},
}
DROPS: dict[str, Any] = {"filter": {"warmup_steps": 1, "num_std": 0.5, "momentum": 0.5}, "queue_size": 12}
DROPS_HALF = {"filter": DROPS["filter"] | {"num_std": 0.01}}
WITHIN = {"loss_weights": LEVELS | {"within_modality": 0.5}}
TRANSLATION = {"loss_weights": LEVELS | {"translation": 1.0}}
BY_CLASS = {"loss_weights": LEVELS | {"class_contrast": 0.5, "classification": 0.5}}
CAPTIONS = {  # of each sample, if more than one
    "several captions": 3,  # the third is made from a label
    "within modalities": 2,
    "sharded within modalities": 2,
    "classes": 2,
}
OBJECTIVES: dict[str, tuple[dict[str, Any], int]] = {
    "sharded": ({"in_batch_negatives": "momentum"}, 1),
    "sharded and dropped": ({"in_batch_negatives": "momentum", **DROPS, **DROPS_HALF}, 1),
    "sharded in parts": ({"in_batch_negatives": "momentum"}, 1),
    "sharded queries": ({"in_batch_negatives": "online"}, 1),
    "sharded without keys": (NO_KEYS, 1),
    "sharded clip": ({"kind": "clip", "temperature": TEMPERATURE}, 1),
    "sharded within modalities": ({"in_batch_negatives": "online", **WITHIN}, 1),
    "keys": ({"in_batch_negatives": "momentum", **DROPS}, 1),
    "keys in parts": ({"in_batch_negatives": "momentum", **DROPS}, 2),
    "no batch": ({"in_batch_negatives": "none", **DROPS}, 1),
    "queries": ({"in_batch_negatives": "online", **DROPS}, 1),
    "without keys": (NO_KEYS, 1),
    "several captions": ({"in_batch_negatives": "momentum", **DROPS}, 2),
    "within modalities": ({"in_batch_negatives": "online", **DROPS, **DROPS_HALF, **WITHIN}, 1),
    "translation": ({"in_batch_negatives": "momentum", **DROPS, **TRANSLATION}, 2),
    "classes": ({"in_batch_negatives": "online", **DROPS, **BY_CLASS}, 1),
    "sharded classes": ({"in_batch_negatives": "momentum", "filter": NO_KEYS["filter"], **BY_CLASS}, 1),  # drops none
    "clip": ({"kind": "clip", "temperature": TEMPERATURE}, 1),
    "siglip": ({"kind": "siglip", "temperature": TEMPERATURE, "bias": -10.0}, 1),
}


def params_of(name: str) -> Params:
    """Tiny parameters of an objective, with a batch that no number of processes divides."""
    objective, parts = OBJECTIVES[name]
    if "kind" not in objective:
        pretrain: dict[str, Any] = {"batch_size": 7, "grad_accum_steps": parts}
        if captions := CAPTIONS.get(name):
            pretrain |= {"batch_size": 5, "captions_per_sample": captions}
        if "translation" in name:
            pretrain |= {"language_temperature": 3.0}
        shared = {"shared_blocks": 1 if "within" in name else 0}
        return tiny_params(pretrain=pretrain, objective=objective, model=shared)
    params = tiny_params(pretrain={"batch_size": 7})
    training = TrainConfig.model_validate(params.pretrain.model_dump() | {"objective": objective})
    return params.model_copy(update={"pretrain": training})


def run_steps(name: str, params: Params, data: Path, tokenized: Path) -> dict[str, Any]:
    """Metrics of each step, and the final state."""
    torch.manual_seed(0)
    model = build_model(params.model, tokenized / "tokenizer")
    paths = (data / "manifest.parquet", data / "shards", tokenized / "tokens")
    batches = build_train_loader(*paths, model=model, training=params.pretrain, media=("image", "video"))
    classes = batches.classes.names if batches.classes else ()
    objective = build_objective(model, params.pretrain.objective, num_codes=16, classes=classes).double()
    if name.startswith("sharded"):
        apply_fsdp(objective)
        assert world_size() == 1 or any(isinstance(module, FSDPModule) for module in objective.modules())
    optimizer = torch.optim.SGD(build_param_groups(objective, weight_decay=0.0, layer_decay=1.0))
    rows, sizes, kept = [], [], []
    for _, arrays in zip(range(LONGER.get(name, STEPS)), batches.iter_from(0), strict=False):
        batch = to_device(arrays, PIXELS, torch.device("cpu"))
        other_frames = None if batch.other_frames is None else batch.other_frames.double()
        batch = batch._replace(frames=batch.frames.double(), other_frames=other_frames)
        keys, metrics = train_step(
            objective,
            optimizer,
            batch,
            learning_rate=0.1,
            max_grad_norm=1.0,
            grad_accum_steps=params.pretrain.grad_accum_steps,
        )
        rows.append(metrics)
        kept.append(int(keys.keep_mask[local_slice(len(keys.keep_mask))].sum()) if keys else len(batch.image_index))
        sizes.append(len(batch.image_index))
    return {"rows": rows, "state": full_state_dict(objective.state_dict()), "sizes": sizes, "kept": kept}


def run_dvae_steps(data: Path) -> dict[str, Any]:
    """Metrics of each step of the dVAE, and its final state."""
    params = tiny_params(dvae={"batch_size": 7})
    assert params.dvae.kind == "train"
    crops = build_dvae_crops(data / "manifest.parquet", data / "shards", params)
    torch.manual_seed(0)
    dvae = Dvae(num_codes=16, hidden=8, blocks=1).double()
    dvae.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(
        dvae.parameters(), fused=True
    )  # which presumes that gradients have the layout of weights
    share, rows = local_slice(7), []
    for step, pixels in zip(range(params.dvae.steps), crops.iter_from(0, share), strict=False):
        batch = to_pixels(pixels, torch.device("cpu")).double()
        rows.append(dvae_step(dvae, optimizer, batch, step, share, params.dvae))
    return {"rows": rows, "state": dvae.state_dict()}


def main(data: str, tokenized: str, out: str) -> None:
    """Run every objective and save the results of this rank."""
    torch.set_num_threads(1)
    results = {name: run_steps(name, params_of(name), Path(data), Path(tokenized)) for name in OBJECTIVES}
    results["dvae"] = run_dvae_steps(Path(data))
    torch.save(results, Path(out) / f"{rank()}.pt")


if __name__ == "__main__":
    with init_distributed():
        main(*sys.argv[1:])
