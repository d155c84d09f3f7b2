"""What contrast by class and the classification head add on drawn documents: `python -m benchmarks.documents`.

Each variant is pre-trained with each seed on the data, encoders, steps and batch of preset `documents`, without
fine-tuning, and measured on the test split. Finished runs are kept in OUT/runs and not repeated.
"""

import argparse
from contextlib import chdir
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cots.cli.presets import bundled, read_preset
from cots.config.objective import CotsObjectiveConfig, LossWeightsConfig
from cots.config.params import Params
from cots.data.ingest.metadata import metadata_column
from cots.data.manifest import read_manifest, select_part
from cots.data.stored_samples import read_stored_samples
from cots.errors import exit_on_error
from cots.evaluation.bootstrap import TAILS
from cots.evaluation.class_head import INPUTS, class_scores, mean_texts, predict_classes
from cots.evaluation.comparison import compare_query_tables, query_tables
from cots.evaluation.embedding import embed
from cots.evaluation.retrieval import evaluate_retrieval
from cots.factory.model import build_model
from cots.models.dual_encoder import DualEncoder
from cots.models.dvae.io import save_dvae
from cots.models.dvae.vae import Dvae
from cots.report.results import write_query_table
from cots.stages import prepare, tokenize
from cots.training import checkpoint
from cots.training.fit import Inputs, fit

VARIANTS = {  # class_contrast, classification
    "head": (0.0, 0.5),
    "head, contrast by class": (0.2, 0.5),
    "retrieval alone": (0.0, 0.0),
}
REFERENCE = "head"  # what the others are compared with
RESAMPLES = 2000


def main() -> None:
    """Run the missing runs, then write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.documents", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs (default 0 1 2)")
    parser.add_argument("--out", type=Path, default=Path("reports/documents"), help="folder (default %(default)s)")
    arguments = parser.parse_args()
    params = Params.model_validate(read_preset("documents", bundled("cots/data/documents.yaml").resolve()))
    arguments.out.mkdir(parents=True, exist_ok=True)
    with chdir(arguments.out):  # for checkpoints
        prepare_once(params)
        for seed in arguments.seeds:
            for name in VARIANTS:
                run_once(params, name, seed)
        Path("table.md").write_text(table(arguments.seeds), encoding="utf8")
        print(Path("table.md").read_text(encoding="utf8"))


def prepare_once(params: Params) -> None:
    """Draw the documents and their crops. No loss reads the visual tokens, so the dVAE is an untrained one."""
    if Path("tokenizer").is_dir():
        return
    torch.manual_seed(0)
    save_dvae(Dvae(num_codes=params.dvae.codebook_size, hidden=8, blocks=1), Path("dvae"))
    shards, manifest, withdrawn = Path("shards"), Path("manifest.parquet"), Path("withdrawn.csv")
    withdrawn.write_text("id,when,reason\n")
    prepare.stage(params.source.path, withdrawn, shards, manifest, Path("rejected.parquet"), params=params)
    tokenize.stage(shards, manifest, Path("dvae"), Path("tokens"), Path("tokenizer"), params=params)


def run_once(params: Params, name: str, seed: int) -> None:
    """Train and measure one variant: a query table and, with a head, the predicted classes."""
    folder = run_folder(name, seed)
    if (folder / "image-text.parquet").exists():
        return
    contrast, classification = VARIANTS[name]
    objective = params.pretrain.objective
    assert isinstance(objective, CotsObjectiveConfig)
    values = objective.loss_weights.model_dump() | {"class_contrast": contrast, "classification": classification}
    objective = objective.model_copy(update={"loss_weights": LossWeightsConfig(**values)})
    training = params.pretrain.model_copy(update={"objective": objective, "seed": seed})
    torch.manual_seed(seed)
    model = build_model(params.model, Path("tokenizer"))
    inputs = Inputs(Path("shards"), Path("manifest.parquet"), Path("tokens"))
    fit(model, inputs, folder / "report", name="pretrain", training=training, num_codes=2, media=("image",))
    checkpoint.path_of("pretrain").unlink(missing_ok=True)
    model.save(folder / "model")
    measure(model, folder)


def run_folder(name: str, seed: int) -> Path:
    """Where a run is kept."""
    return Path("runs") / f"{name.replace(' ', '-').replace(',', '')}-{seed}"


def measure(model: DualEncoder, folder: Path) -> None:
    """Write the ranks of all queries and, with a head, what it predicts by image, by text and by both."""
    rows = select_part(read_manifest(Path("manifest.parquet")), "test", "image")
    split = embed(model, read_stored_samples(Path("shards"), rows), batch_size=128)
    if model.class_head:
        predicted = predict_classes(model, split.items, mean_texts(split))
        labels = [model.classes.index(str(label)) for label in metadata_column(rows["metadata"], "class")]
        pd.DataFrame({"class": labels} | predicted).to_csv(folder / "classes.csv", index=False)
    retrieval = evaluate_retrieval(split, media="image", folds=1, resamples=1, seed=0)
    write_query_table(folder / "image-text.parquet", split, retrieval)


def table(seeds: list[int]) -> str:
    """Means over seeds, and paired intervals of the differences to the reference, as two Markdown tables.

    Intervals of RSUM draw pages and seeds, those of accuracy pages alone.
    """
    retrieval = ["| variant | i2t R@1/5/10 | t2i R@1/5/10 | RSUM | to `head` |", "|---|---|---|---|---|"]
    classes = ["| variant | by | accuracy | macro F1 | accuracy to `head` |", "|---|---|---|---|---|"]
    for name in VARIANTS:
        comparison = compare_query_tables(
            _queries(name, seeds), _queries(REFERENCE, seeds), resamples=RESAMPLES, seed=0
        )
        ways = [
            "/".join(f"{comparison[way][f'R@{k}']['challenger']:.1f}" for k in (1, 5, 10)) for way in ("i2t", "t2i")
        ]
        total = comparison["rsum"]
        retrieval.append(f"| {name} | {ways[0]} | {ways[1]} | {total['challenger']:.1f} | {_difference(**total)} |")
        if VARIANTS[name][1]:
            classes += [_class_row(name, given, seeds) for given in INPUTS]
    return "\n".join([*retrieval, "", *classes]) + "\n"


def _queries(name: str, seeds: list[int]) -> list[pd.DataFrame]:
    return [query_tables(run_folder(name, seed) / "image-text.parquet")["image-text"][0] for seed in seeds]


def _class_row(name: str, given: str, seeds: list[int]) -> str:
    runs, reference = _predictions(name, seeds), _predictions(REFERENCE, seeds)
    once = np.ones(len(runs[0]))
    scores = [class_scores(run["class"].to_numpy(), run[given].to_numpy(), once) for run in runs]
    accuracy, f1 = (np.mean([score[key] for score in scores]) for key in ("accuracy", "macro_f1"))
    gains: NDArray[np.float64] = np.mean(
        [
            (run[given] == run["class"]).to_numpy(float) - (other[given] == other["class"]).to_numpy(float)
            for run, other in zip(runs, reference, strict=True)
        ],
        axis=0,
    )
    draws = np.random.default_rng(0).integers(0, len(gains), (RESAMPLES, len(gains)))
    low, high = np.percentile(100 * gains[draws].mean(axis=1), TAILS)
    difference = _difference(difference=100 * gains.mean(), low=low, high=high)
    return f"| {name} | {given} | {accuracy:.1f} | {f1:.1f} | {difference} |"


def _predictions(name: str, seeds: list[int]) -> list[pd.DataFrame]:
    return [pd.read_csv(run_folder(name, seed) / "classes.csv") for seed in seeds]


def _difference(*, difference: float, low: float, high: float, **_: float) -> str:
    return f"{difference:+.1f} ({low:+.1f} to {high:+.1f})" if difference or low or high else ""


if __name__ == "__main__":
    with exit_on_error():
        main()
