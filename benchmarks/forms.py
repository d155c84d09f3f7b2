"""Forms of the same training step: as it is, with every block compiled, and with CUDA graphs where there is a GPU.

`python -m benchmarks.forms base` or `levels` prints one size alone; sizes, batches and the share of the matrix rate as
in `benchmarks.step`. A whole step as one CUDA graph is possible for CLIP alone: the others ask the GPU for numbers on
the way, such as how many pairs the filter kept.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._rounds import Call, in_turn, times_faster
from benchmarks.ablation import CLIP, unfiltered
from benchmarks.step import LEVELS, SIZES, operations, pairs_of, random_batch, training_objective, training_step
from cots.config.objective import CotsObjectiveConfig, ObjectiveConfig
from cots.config.params import Params
from cots.data.wordpiece import train_tokenizer
from cots.devices import default_device
from cots.factory.model import build_model
from cots.models.encoder import compile_blocks
from cots.objectives.protocol import Batch, Objective
from cots.training.mfu import matmul_rate

Form = Callable[[Objective[Any], Batch], Call]


def main(sizes: tuple[str, ...] = ("levels", "base"), rounds: int = 7) -> None:
    """Print a table for each size."""
    for size in sizes:
        table(size, rounds=rounds)


def table(size: str, *, rounds: int) -> None:
    """Print pairs a second of each form, and how many times faster it is than the step as it is."""
    params, settings = Params.load(), SIZES[size].model(Params.load())
    cots, pairs, codes = params.pretrain.objective, pairs_of(size), params.dvae.codebook_size
    assert isinstance(cots, CotsObjectiveConfig)
    whole = unfiltered(cots.model_copy(update={"loss_weights": LEVELS["all, masked views"]}))
    objectives: dict[str, ObjectiveConfig] = {"CLIP": CLIP, "all, masked views": whole}
    peak = matmul_rate(default_device())
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        batch = random_batch(settings, cots, pairs=pairs, vocab=30, codes=codes)
        for name, section in objectives.items():
            forms = {"as it is": training_step, "blocks compiled": compiled}
            if default_device().type == "cuda" and section is CLIP:
                forms["one CUDA graph"] = one_graph
            made = {}
            for form, make in forms.items():
                torch.manual_seed(0)
                objective = training_objective(partial(build_model, settings, Path(folder)), section, codes)
                made[form] = _begun(form, partial(make, objective, batch))
            used = operations(made["as it is"]) / peak
            seconds = in_turn(made, rounds=rounds, settling=1)
            for form, ratio in times_faster(seconds, than="as it is").items():
                taken = statistics.median(seconds[form])
                told = f"{pairs / taken:9.1f} pairs/s, {1000 * taken:7.2f} ms, {used / taken:.0%} of the matrix rate"
                print(f"  {size}, {name:<18} {form:<16} {told}   x{ratio:.2f} as fast", flush=True)


def compiled(objective: Objective[Any], batch: Batch) -> Call:
    """The same, every block of the streams compiled by itself, as `compile_blocks: true` does."""
    compile_blocks(objective)
    return training_step(objective, batch)


def one_graph(objective: Objective[Any], batch: Batch) -> Call:
    """A whole step of CLIP, recorded once and played again."""
    trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=torch.tensor(1e-4), fused=True, capturable=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(default_device().type, torch.bfloat16, cache_enabled=False):
            total: Tensor = objective(batch, None).loss
        total.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        return total

    beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _begun(form: str, make: Callable[[], Call]) -> Call:
    """The form after its first three steps, which compile what is to be compiled."""
    start = time.perf_counter()
    call = make()
    for _ in range(3):
        call()
    print(f"  {form}: {time.perf_counter() - start:.0f} s until its third step ended", flush=True)
    return call


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("levels", "base"))
