"""What each level of interaction is worth: `make ablation`.

Every variant is pre-trained with every seed by `dvc exp run` on the data, streams, steps and batch of params.yaml, and
measured on its evaluation split. Differences are held against CLIP by a paired bootstrap over items and seeds. Runs
that have ended are kept in reports/ablation/ and not run again; params.yaml is put back at the end.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pandas as pd

from cots.comparison import compared, directions_of, query_tables
from cots.config import CotsObjective, LevelWeights, Params
from cots.data.manifest import part, read_manifest
from cots.evaluation import MEDIA, embed, measure, stored_samples
from cots.model import RetrievalModel
from cots.reporting.results import write_query_table
from cots.retrieval.metrics import rsum

PARAMS, OUT = Path("params.yaml"), Path("reports/ablation")
LEARNED = "temperature:{start:0.07,learned:true,least:0.01}"
COTS = "pretrain.objective"


def levels(instance: float, token: float, task: float, masked_views: float = 0) -> str:
    """The override of the weights."""
    return f"{COTS}.weights={{instance:{instance},token:{token},task:{task},masked_views:{masked_views}}}"


def variants(weights: LevelWeights) -> dict[str, list[str]]:
    """Overrides of params.yaml by the variant's name; the last is params.yaml as it is."""
    unfiltered = f"{COTS}.filter.deviations=null"
    return {
        "CLIP": [f"~{COTS}", f"+{COTS}={{kind:clip,{LEARNED}}}"],
        "SigLIP": [f"~{COTS}", f"+{COTS}={{kind:siglip,{LEARNED.replace('0.07', '0.1')},bias:-10.0}}"],
        "instance": [levels(1, 0, 0), unfiltered],
        "instance + masked views": [levels(1, 0, 0, 1), unfiltered],
        "instance + AMF": [levels(1, 0, 0)],
        "instance + AMF + task": [levels(1, 0, weights.task)],
        "instance + AMF + token": [levels(1, weights.token, 0)],
        "instance + AMF + token + task": [levels(1, weights.token, weights.task)],
        "all": [],
    }


def main() -> None:
    """Run what is missing of the grid, then write table and plot."""
    reader = argparse.ArgumentParser(prog="make ablation", description=__doc__.splitlines()[0])
    reader.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default 0 1 2)")
    reader.add_argument("--only", nargs="*", help="variants by name (default all)")
    asked = reader.parse_args()
    params = Params.load()
    objective = params.pretrain.objective
    if not isinstance(objective, CotsObjective):
        sys.exit("error: pretrain.objective.kind must be cots: the grid switches its levels")
    grid = variants(objective.weights)
    grid = {name: grid[name] for name in grid if name in (asked.only or grid)}
    OUT.mkdir(parents=True, exist_ok=True)
    runs: dict[str, list[pd.DataFrame]] = {name: [] for name in grid}
    for seed in asked.seeds:
        for name, changes in grid.items():
            runs[name].append(measured_run(name, [*changes, f"pretrain.seed={seed}"], params))
        (OUT / "table.md").write_text(as_table(runs, params), encoding="utf8")
        plot(runs, OUT / "rsum.png")
    print((OUT / "table.md").read_text(encoding="utf8"))


def measured_run(name: str, changes: list[str], params: Params) -> pd.DataFrame:
    """The table of queries of one variant with one seed, which is trained and measured unless that has been done."""
    asked = json.dumps([params.model_dump(mode="json", by_alias=True), changes])
    digest = hashlib.sha256(asked.encode()).hexdigest()[:10]
    saved = OUT / f"{name.replace(' ', '')}-{digest}.parquet"
    if not saved.exists():
        original = PARAMS.read_bytes()
        overrides = [word for change in changes for word in ("-S", change)]
        command = [
            "dvc",
            "exp",
            "run",
            "--force",
            "--name",
            f"ablation-{digest}",
            *overrides,
            "--single-item",
            "pretrain",
        ]
        try:
            subprocess.run(command, check=True)
        finally:
            PARAMS.write_bytes(original)
        measure_run(saved, params)
    [[run]] = query_tables(saved).values()
    return run


def measure_run(saved: Path, params: Params) -> None:
    """Retrieval of models/pretrained on the evaluation split, for the deployed target's kind of media."""
    settings, media = params.evaluate, MEDIA[params.index.target]
    rows = part(read_manifest(Path("data/manifest.parquet")), settings.split, media)
    model, samples = RetrievalModel.load(Path("models/pretrained")), stored_samples(Path("data/shards"), rows)
    held = embed(model, samples, batch=settings.batch)
    write_query_table(saved, held, measure(held, media=media, folds=1, resamples=1, seed=0))


def as_table(runs: dict[str, list[pd.DataFrame]], params: Params) -> str:
    """Means over seeds, and the paired test against CLIP, in Markdown."""
    first, *_ = runs
    a, b = directions_of(runs[first][0])
    lines = [
        f"{params.source.kind}, split {params.evaluate.split}: {params.pretrain.steps} steps of "
        f"{params.pretrain.batch} pairs, {len(runs[first])} seeds. Recalls in per cent, means over seeds; RSUM of each "
        f"seed in brackets; the difference in RSUM to {first} with its 95 % interval and p by a paired bootstrap over "
        "items and seeds.",
        "",
        f"| variant | {a} R@1/5/10 | {b} R@1/5/10 | RSUM | to {first} | p |",
        "|---|---|---|---|---|---|",
    ]
    for name, seeds in runs.items():
        against = compared(seeds, runs[first], resamples=2000, seed=0)
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
    main()
