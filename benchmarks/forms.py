"""The same training step in several forms: eager, with compiled blocks, and on a GPU as one CUDA graph.

`python -m benchmarks.forms base` or `levels` prints one size only; sizes, batches and matrix rate are those of
`benchmarks.step`. Only CLIP's step can be one CUDA graph: the others need numbers from the GPU, such as how many pairs
the filter keeps.
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

from benchmarks._rounds import Call, interleave, times_faster
from benchmarks.ablation import CLIP, unfiltered
from benchmarks.step import LEVELS, SIZES, batch_size_of, operations, random_batch, training_objective, training_step
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
    """Print pairs per second of each form, and how many times as fast as the eager step it is."""
    params, model_config = Params.load(), SIZES[size].model(Params.load())
    cots, pairs, num_codes = params.pretrain.objective, batch_size_of(size), params.dvae.codebook_size
    assert isinstance(cots, CotsObjectiveConfig)
    full = unfiltered(cots.model_copy(update={"loss_weights": LEVELS["all, masked views"]}))
    objectives: dict[str, ObjectiveConfig] = {"CLIP": CLIP, "all, masked views": full}
    peak = matmul_rate(default_device())
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(["a red star above a blue ring"], vocab_size=1000).save_pretrained(folder)
        batch = random_batch(model_config, cots, pairs=pairs, vocab=30, num_codes=num_codes)
        for name, section in objectives.items():
            forms = {"eager": training_step, "blocks compiled": compiled}
            if default_device().type == "cuda" and section is CLIP:
                forms["one CUDA graph"] = one_graph
            calls = {}
            for form, make in forms.items():
                torch.manual_seed(0)
                objective = training_objective(partial(build_model, model_config, Path(folder)), section, num_codes)
                calls[form] = _warm_up(form, partial(make, objective, batch))
            used = operations(calls["eager"]) / peak
            seconds = interleave(calls, rounds=rounds, settling=1)
            for form, ratio in times_faster(seconds, than="eager").items():
                step_time = statistics.median(seconds[form])
                rate = f"{pairs / step_time:9.1f} pairs/s, {1000 * step_time:7.2f} ms"
                share = f"{used / step_time:.0%} of the matrix rate"
                print(f"  {size}, {name:<18} {form:<16} {rate}, {share}   x{ratio:.2f} as fast", flush=True)


def compiled(objective: Objective[Any], batch: Batch) -> Call:
    """The step with every block of the encoders compiled separately, as with `torch_compile: true`."""
    compile_blocks(objective)
    return training_step(objective, batch)


def one_graph(objective: Objective[Any], batch: Batch) -> Call:
    """A whole step of CLIP, captured once and replayed."""
    trainable = [parameter for parameter in objective.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=torch.tensor(1e-4), fused=True, capturable=True)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(default_device().type, torch.bfloat16, cache_enabled=False):
            loss: Tensor = objective(batch, None).loss
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        return loss

    side_stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side_stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side_stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side_stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def _warm_up(form: str, make: Callable[[], Call]) -> Call:
    """The form after its first three steps, which include compilation."""
    start = time.perf_counter()
    call = make()
    for _ in range(3):
        call()
    print(f"  {form}: {time.perf_counter() - start:.0f} s until the end of the third step", flush=True)
    return call


if __name__ == "__main__":
    main(tuple(sys.argv[1:]) or ("levels", "base"))
