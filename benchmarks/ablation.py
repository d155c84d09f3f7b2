"""What each level of interaction is worth: `make ablation`.

Every variant is pre-trained with every seed by `dvc exp run` on the data, streams, steps and batch of params.yaml, and
measured on its evaluation split. With `--start CHECKOUT` every variant is fine-tuned instead, for the deployed target,
from what the same variant and seed have become by `make ablation` in that other checkout: pre-trained on pictures
there, fine-tuned on clips here. Differences are held against CLIP by a paired bootstrap over items and seeds. Runs
that have ended are kept in reports/ablation/, models too, and not run again; params.yaml is put back at the end;
models/ holds the last run's.
"""

import argparse
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
import yaml

from cots.config.objective import (
    ClipObjectiveConfig,
    CotsObjectiveConfig,
    LossWeightsConfig,
    ObjectiveConfig,
    SiglipObjectiveConfig,
)
from cots.config.params import Params
from cots.config.training import TrainConfig
from cots.data.manifest import read_manifest, select_part
from cots.data.stored_samples import read_stored_samples
from cots.directions import MEDIA_OF
from cots.errors import exit_on_error
from cots.evaluation.comparison import compare_query_tables, directions_of, query_tables
from cots.evaluation.embedding import embed
from cots.evaluation.metrics import rsum
from cots.evaluation.retrieval import evaluate_retrieval
from cots.file_names import MANIFEST_PATH, SHARDS_PATH
from cots.models.dual_encoder import DualEncoder
from cots.report.results import write_query_table

PARAMS, OUT = Path("params.yaml"), Path("reports/ablation")
CLIP, SIGLIP = ClipObjectiveConfig(), SiglipObjectiveConfig()


def unfiltered(objective: CotsObjectiveConfig) -> CotsObjectiveConfig:
    """The same without the adaptive momentum filter."""
    return objective.model_copy(update={"filter": objective.filter.model_copy(update={"num_std": None})})


class Grid(NamedTuple):
    """The runs of one checkout: pre-training, or fine-tuning from another's."""

    checkout: Path
    params: Params
    start: "Grid | None" = None

    @property
    def section(self) -> str:
        """Of params.yaml, which the runs vary."""
        return "pretrain" if self.start is None else f"finetune.{self.params.index.target}"

    @property
    def training(self) -> TrainConfig:
        """That section."""
        return self.params.pretrain if self.start is None else self.params.finetune[self.params.index.target]

    @property
    def model(self) -> Path:
        """What a run leaves behind."""
        return Path("models/pretrained" if self.start is None else f"models/finetuned/{self.params.index.target}")

    def variants(self) -> dict[str, ObjectiveConfig]:
        """The section's objective by the variant's name; the last is params.yaml's own.

        Raises:
            SystemExit: that has no levels.
        """
        whole = self.training.objective
        if not isinstance(whole, CotsObjectiveConfig):
            sys.exit(f"error: {self.checkout / PARAMS}: {self.section}.objective.kind must be cots")

        def levels(
            token: float = 0, task: float = 0, masked_views: float = 0, *, filtered: bool = True
        ) -> ObjectiveConfig:
            weights = LossWeightsConfig(instance=1, token=token, task=task, masked_views=masked_views)
            varied = whole.model_copy(update={"loss_weights": weights})
            return varied if filtered else unfiltered(varied)

        token, task = whole.loss_weights.token, whole.loss_weights.task
        return {
            "CLIP": CLIP,
            "SigLIP": SIGLIP,
            "instance": levels(filtered=False),
            "instance + masked views": levels(masked_views=1, filtered=False),
            "instance + AMF": levels(),
            "instance + AMF + task": levels(task=task),
            "instance + AMF + token": levels(token=token),
            "instance + AMF + token + task": levels(token=token, task=task),
            "all": whole,
        }

    def varied(self, name: str, seed: int) -> Params:
        """The parameters of one run."""
        training = self.training.model_copy(update={"objective": self.variants()[name], "seed": seed})
        if self.start is None:
            return self.params.model_copy(update={"pretrain": training})
        return self.params.model_copy(update={"finetune": self.params.finetune | {self.params.index.target: training}})

    def kept(self, name: str, seed: int) -> Path:
        """Where a run's model is kept, its table beside it; the name changes with whatever the run depends on."""
        start = "" if self.start is None else self.start.kept(name, seed).name
        digest = hashlib.sha256((self.varied(name, seed).model_dump_json(by_alias=True) + start).encode()).hexdigest()
        return self.checkout / OUT / f"{name.replace(' ', '')}-{digest[:10]}"


def main() -> None:
    """Run what is missing of the grid, then write table and plot."""
    reader = argparse.ArgumentParser(prog="make ablation", description=__doc__.splitlines()[0])
    reader.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default 0 1 2)")
    reader.add_argument("--only", nargs="*", help="variants by name (default all)")
    reader.add_argument("--start", type=Path, help="another checkout, whose ablation's models are fine-tuned here")
    asked = reader.parse_args()
    start = asked.start and Grid(asked.start, Params.load(asked.start / PARAMS))
    grid = Grid(Path(), Params.load(), start)
    names = [name for name in grid.variants() if name in (asked.only or grid.variants())]
    OUT.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    for seed in asked.seeds:
        for name in names:
            runs[name].append(measured_run(grid, name, seed))
        (OUT / "table.md").write_text(as_table(runs, grid), encoding="utf8")
        plot(runs, OUT / "rsum.png")
    print((OUT / "table.md").read_text(encoding="utf8"))


def measured_run(grid: Grid, name: str, seed: int) -> pd.DataFrame:
    """The table of queries of one variant with one seed, which is trained and measured unless that has been done."""
    kept = grid.kept(name, seed)
    table = kept.with_suffix(".parquet")
    if not table.exists():
        if grid.start is not None:
            given = grid.start.kept(name, seed)
            if not given.exists():
                sys.exit(f"error: {given} is not there: run `make ablation` for {name}, seed {seed} in that checkout")
            replace(Path("models/pretrained"), given)
        train(grid, name, seed)
        replace(kept, grid.model)
        measure_run(table, kept, grid.params)
    [[run]] = query_tables(table).values()
    return run


def replace(folder: Path, by: Path) -> None:
    """Put a copy of one folder in another's place."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(by, folder)


def train(grid: Grid, name: str, seed: int) -> None:
    """One run of the stage; `dvc exp run` would remove a models/pretrained that no stage of this checkout made."""
    original, stage = PARAMS.read_bytes(), grid.section.replace(".", "@")
    experiment = ["exp", "run", "--name", f"ablation-{grid.kept(name, seed).name.rpartition('-')[2]}"]
    try:
        varied = grid.varied(name, seed).model_dump(mode="json", by_alias=True)
        PARAMS.write_text(yaml.safe_dump(varied, sort_keys=False), encoding="utf8")
        command = ["dvc", *(experiment if grid.start is None else ["repro"]), "--force", "--single-item", stage]
        subprocess.run(command, check=True)
    finally:
        PARAMS.write_bytes(original)


def measure_run(table: Path, model: Path, params: Params) -> None:
    """Retrieval of a model on the evaluation split, for the deployed target's kind of media."""
    settings, media = params.evaluate, MEDIA_OF[params.index.target]
    rows = select_part(read_manifest(MANIFEST_PATH), settings.split, media)
    samples = read_stored_samples(SHARDS_PATH, rows)
    held = embed(DualEncoder.load(model), samples, batch_size=settings.batch_size)
    write_query_table(table, held, evaluate_retrieval(held, media=media, folds=1, resamples=1, seed=0))


def as_table(runs: dict[str, list[pd.DataFrame]], grid: Grid) -> str:
    """Means over seeds, and the paired test against CLIP, in Markdown."""
    params, (first, *_) = grid.params, runs
    a, b = directions_of(runs[first][0])
    lines = [
        f"{params.source.kind}, split {params.evaluate.split}: {grid.section}, {grid.training.steps} steps of "
        f"{grid.training.batch_size} pairs, {len(runs[first])} seeds. Recalls in per cent, means over seeds; RSUM of "
        f"each seed in brackets; the difference in RSUM to {first} with its 95 % interval and p by a paired bootstrap "
        "over items and seeds.",
        "",
        f"| variant | {a} R@1/5/10 | {b} R@1/5/10 | RSUM | to {first} | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        against = compare_query_tables(seeds, runs[first], resamples=2000, seed=0)
        ways = ["/".join(f"{against[way][f'R@{k}']['challenger']:.1f}" for k in (1, 5, 10)) for way in (a, b)]
        total = against["rsum"]
        each = ", ".join(f"{rsum(directions_of(run)):.1f}" for run in seeds)
        apart = f"{total['difference']:+.1f} ({total['low']:+.1f} to {total['high']:+.1f})" if name != first else ""
        chance = f"{total['p']:.4f}" if name != first else ""
        lines.append(f"| {name} | {ways[0]} | {ways[1]} | {total['challenger']:.1f} ({each}) | {apart} | {chance} |")
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, list[pd.DataFrame]], path: Path) -> None:
    """RSUM of every run, one row a variant, the mean as a line."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.5 * len(runs) + 1.2), layout="constrained")
    for row, seeds in enumerate(runs.values()):
        totals = [rsum(directions_of(run)) for run in seeds]
        axes.plot(totals, [row] * len(totals), "o", color="tab:blue", alpha=0.6)
        axes.plot([np.mean(totals)] * 2, [row - 0.3, row + 0.3], color="tab:blue", linewidth=2)
    axes.set_yticks(range(len(runs)), list(runs))
    axes.invert_yaxis()
    axes.set_xlabel("RSUM, per cent of 600; a point a seed, a line their mean")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    with exit_on_error():
        main()
