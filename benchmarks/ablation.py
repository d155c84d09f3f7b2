"""What each loss level adds: `make ablation`.

Every variant is pre-trained with every seed by `dvc exp run` on the data, encoders, steps and batch of params.yaml, and
measured on its evaluation split. With `--start CHECKOUT` every variant is instead fine-tuned for the deployed target,
starting from the model of the same variant and seed that `make ablation` trained in that other checkout, for example
pre-trained on images there and fine-tuned on videos here. Each variant is compared with CLIP by a paired bootstrap over
items and seeds. Finished runs are kept with their models in reports/ablation/ and not repeated; params.yaml is restored
at the end; models/ holds the models of the last run.
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
from cots.evaluation.metric_table import rsum
from cots.evaluation.retrieval import evaluate_retrieval
from cots.file_names import MANIFEST_PATH, SHARDS_PATH
from cots.models.dual_encoder import DualEncoder
from cots.project_files import PARAMS_FILE
from cots.report.results import write_query_table

OUT = Path("reports/ablation")
CLIP, SIGLIP = ClipObjectiveConfig(), SiglipObjectiveConfig()


def unfiltered(objective: CotsObjectiveConfig) -> CotsObjectiveConfig:
    """The same objective without the adaptive momentum filter."""
    return objective.model_copy(update={"filter": objective.filter.model_copy(update={"num_std": None})})


class Grid(NamedTuple):
    """The runs of one checkout: pre-training, or fine-tuning of the models of another checkout."""

    checkout: Path
    params: Params
    start: "Grid | None" = None

    @property
    def section(self) -> str:
        """The section of params.yaml that the runs vary."""
        return "pretrain" if self.start is None else f"finetune.{self.params.index.target}"

    @property
    def training(self) -> TrainConfig:
        """The values of that section."""
        return self.params.pretrain if self.start is None else self.params.finetune[self.params.index.target]

    @property
    def model(self) -> Path:
        """The model folder that a run writes."""
        return Path("models/pretrained" if self.start is None else f"models/finetuned/{self.params.index.target}")

    def variants(self) -> dict[str, ObjectiveConfig]:
        """The objective of each variant by name; the last one is that of params.yaml.

        Raises:
            SystemExit: the objective of params.yaml is not cots.
        """
        full = self.training.objective
        if not isinstance(full, CotsObjectiveConfig):
            sys.exit(f"error: {self.checkout / PARAMS_FILE}: {self.section}.objective.kind must be cots")

        def levels(
            token: float = 0, task: float = 0, masked_views: float = 0, *, filtered: bool = True
        ) -> ObjectiveConfig:
            weights = LossWeightsConfig(instance=1, token=token, task=task, masked_views=masked_views)
            objective = full.model_copy(update={"loss_weights": weights})
            return objective if filtered else unfiltered(objective)

        token, task = full.loss_weights.token, full.loss_weights.task
        return {
            "CLIP": CLIP,
            "SigLIP": SIGLIP,
            "instance": levels(filtered=False),
            "instance + masked views": levels(masked_views=1, filtered=False),
            "instance + AMF": levels(),
            "instance + AMF + task": levels(task=task),
            "instance + AMF + token": levels(token=token),
            "instance + AMF + token + task": levels(token=token, task=task),
            "all": full,
        }

    def run_params(self, name: str, seed: int) -> Params:
        """The parameters of one run."""
        training = self.training.model_copy(update={"objective": self.variants()[name], "seed": seed})
        if self.start is None:
            return self.params.model_copy(update={"pretrain": training})
        return self.params.model_copy(update={"finetune": self.params.finetune | {self.params.index.target: training}})

    def archive(self, name: str, seed: int) -> Path:
        """Folder that keeps a run's model, beside its table; its name depends on everything that the run depends on."""
        start = "" if self.start is None else self.start.archive(name, seed).name
        digest = hashlib.sha256(
            (self.run_params(name, seed).model_dump_json(by_alias=True) + start).encode()
        ).hexdigest()
        return self.checkout / OUT / f"{name.replace(' ', '')}-{digest[:10]}"


def main() -> None:
    """Run the missing runs of the grid, then write table and plot."""
    parser = argparse.ArgumentParser(prog="make ablation", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default 0 1 2)")
    parser.add_argument("--only", nargs="*", help="variants by name (default all)")
    parser.add_argument("--start", type=Path, help="another checkout; the models of its ablation are fine-tuned here")
    arguments = parser.parse_args()
    start = arguments.start and Grid(arguments.start, Params.load(arguments.start / PARAMS_FILE))
    grid = Grid(Path(), Params.load(), start)
    names = [name for name in grid.variants() if name in (arguments.only or grid.variants())]
    OUT.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[pd.DataFrame]] = {name: [] for name in names}
    for seed in arguments.seeds:
        for name in names:
            runs[name].append(measure_or_load(grid, name, seed))
        (OUT / "table.md").write_text(markdown_table(runs, grid), encoding="utf8")
        plot(runs, OUT / "rsum.png")
    print((OUT / "table.md").read_text(encoding="utf8"))


def measure_or_load(grid: Grid, name: str, seed: int) -> pd.DataFrame:
    """Query table of one variant and seed; trains and measures the model unless that has been done."""
    model = grid.archive(name, seed)
    table = model.with_suffix(".parquet")
    if not table.exists():
        if grid.start is not None:
            start = grid.start.archive(name, seed)
            if not start.exists():
                sys.exit(f"error: no folder {start}: run `make ablation` for {name}, seed {seed} in that checkout")
            replace(Path("models/pretrained"), start)
        train(grid, name, seed)
        replace(model, grid.model)
        measure_run(table, model, grid.params)
    [[run]] = query_tables(table).values()
    return run


def replace(folder: Path, by: Path) -> None:
    """Replace a folder by a copy of another one."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(by, folder)


def train(grid: Grid, name: str, seed: int) -> None:
    """Run the stage once, with `dvc repro` if it fine-tunes: `dvc exp run` would remove a foreign models/pretrained."""
    original, stage = PARAMS_FILE.read_bytes(), grid.section.replace(".", "@")
    experiment = ["exp", "run", "--name", f"ablation-{grid.archive(name, seed).name.rpartition('-')[2]}"]
    try:
        values = grid.run_params(name, seed).model_dump(mode="json", by_alias=True)
        PARAMS_FILE.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf8")
        command = ["dvc", *(experiment if grid.start is None else ["repro"]), "--force", "--single-item", stage]
        subprocess.run(command, check=True)
    finally:
        PARAMS_FILE.write_bytes(original)


def measure_run(table: Path, model: Path, params: Params) -> None:
    """Measure retrieval of a model on the evaluation split, for the media of the deployed target."""
    section, media = params.evaluate, MEDIA_OF[params.index.target]
    rows = select_part(read_manifest(MANIFEST_PATH), section.split, media)
    samples = read_stored_samples(SHARDS_PATH, rows)
    embedded = embed(DualEncoder.load(model), samples, batch_size=section.batch_size)
    write_query_table(table, embedded, evaluate_retrieval(embedded, media=media, folds=1, resamples=1, seed=0))


def markdown_table(runs: dict[str, list[pd.DataFrame]], grid: Grid) -> str:
    """Means over seeds, and the paired test against the first variant, as a Markdown table."""
    params, (first, *_) = grid.params, runs
    a, b = directions_of(runs[first][0])
    lines = [
        f"{params.source.kind}, split {params.evaluate.split}: {grid.section}, {grid.training.steps} steps of "
        f"{grid.training.batch_size} pairs, {len(runs[first])} seeds. Recalls in per cent, means over seeds; RSUM "
        f"of each seed in parentheses; the difference in RSUM to {first}, with its 95 % interval and p by a paired "
        "bootstrap over items and seeds.",
        "",
        f"| variant | {a} R@1/5/10 | {b} R@1/5/10 | RSUM | to {first} | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        comparison = compare_query_tables(seeds, runs[first], resamples=2000, seed=0)
        ways = ["/".join(f"{comparison[way][f'R@{k}']['challenger']:.1f}" for k in (1, 5, 10)) for way in (a, b)]
        total = comparison["rsum"]
        each = ", ".join(f"{rsum(directions_of(run)):.1f}" for run in seeds)
        difference = (
            f"{total['difference']:+.1f} ({total['low']:+.1f} to {total['high']:+.1f})" if name != first else ""
        )
        p_value = f"{total['p']:.4f}" if name != first else ""
        lines.append(
            f"| {name} | {ways[0]} | {ways[1]} | {total['challenger']:.1f} ({each}) | {difference} | {p_value} |"
        )
    return "\n".join(lines) + "\n"


def plot(runs: dict[str, list[pd.DataFrame]], path: Path) -> None:
    """Plot RSUM: one row for each variant, a point for each seed, a line for the mean."""
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 0.5 * len(runs) + 1.2), layout="constrained")
    for row, seeds in enumerate(runs.values()):
        totals = [rsum(directions_of(run)) for run in seeds]
        axes.plot(totals, [row] * len(totals), "o", color="tab:blue", alpha=0.6)
        axes.plot([np.mean(totals)] * 2, [row - 0.3, row + 0.3], color="tab:blue", linewidth=2)
    axes.set_yticks(range(len(runs)), list(runs))
    axes.invert_yaxis()
    axes.set_xlabel("RSUM, at most 600; a point for each seed, a line for the mean")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    with exit_on_error():
        main()
