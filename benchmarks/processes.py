"""A training step on the same batch in one process and in two, on the same number of cores: pairs per second.

Every variant is started again in each round, as `cots.launch` starts a stage; only the steps are timed.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks._rounds import times_faster
from benchmarks.step import random_batch
from cots.config.objective import CotsObjectiveConfig
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import default_device
from cots.distributed import local_slice, rank
from cots.factory.model import build_model
from cots.factory.objective import build_objective
from cots.init_distributed import init_distributed
from cots.training.fsdp import apply_fsdp
from cots.training.optim import build_param_groups
from cots.training.trainer import train_step

STEPS = 12
BASELINE = "1 process, 1 thread"


class Variant(NamedTuple):
    """In how many processes and threads a batch is computed."""

    processes: int
    threads: int
    sharded: bool = False


VARIANTS = {
    BASELINE: Variant(1, 1),
    "1 process, 2 threads": Variant(1, 2),
    "2 processes, 1 thread each": Variant(2, 1),
    "2 processes, weights sharded": Variant(2, 1, sharded=True),
}


def main(rounds: int = 5, steps: int = STEPS) -> None:
    """Print a table."""
    pairs = Params.load().pretrain.batch_size
    seconds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, variant in VARIANTS.items():
            seconds[name].append(_run(variant, steps))
    faster = times_faster(seconds, than=BASELINE)
    print(f"params.yaml's model and objective, batch {pairs}, {os.cpu_count()} cores")
    for name, times in seconds.items():
        print(f"  {name:<29} {pairs / statistics.median(times):7.1f} pairs/s, x{faster[name]:.2f}")


def smoke() -> None:
    """One round of few steps."""
    main(rounds=1, steps=2)


def _run(variant: Variant, steps: int) -> float:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command = [*torchrun, f"--nproc-per-node={variant.processes}", "-m", "benchmarks.processes"]
    environment = os.environ | {"OMP_NUM_THREADS": str(variant.threads)}
    arguments = [str(steps), *(["sharded"] if variant.sharded else [])]
    done = subprocess.run([*command, *arguments], env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def worker(steps: int, *, sharded: bool) -> None:
    """One rank's part of some steps; rank 0 prints the seconds of a step."""
    params = Params.load()
    cots = params.pretrain.objective
    assert isinstance(cots, CotsObjectiveConfig)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        model = build_model(params.model, Path(folder))
    objective = build_objective(model, cots, num_codes=params.dvae.codebook_size).to(default_device())
    global_batch = random_batch(
        params.model, cots, pairs=params.pretrain.batch_size, vocab=30, num_codes=params.dvae.codebook_size
    )
    batch = global_batch.select(
        torch.arange(len(global_batch.image_index), device=global_batch.image_index.device)[
            local_slice(len(global_batch.image_index))
        ]
    )
    if sharded:
        apply_fsdp(objective)
    optimizer = torch.optim.AdamW(build_param_groups(objective, weight_decay=0.02, layer_decay=1.0), fused=True)
    for step in range(steps + 2):
        if step == 2:  # after the warm-up
            start = time.perf_counter()
        train_step(objective.train(), optimizer, batch, learning_rate=1e-4, max_grad_norm=1.0, grad_accum_steps=1)
    if rank() == 0:
        print((time.perf_counter() - start) / steps)


if __name__ == "__main__":
    if "RANK" in os.environ:
        with init_distributed():
            worker(int(sys.argv[1]), sharded="sharded" in sys.argv[2:])
    else:
        main()
