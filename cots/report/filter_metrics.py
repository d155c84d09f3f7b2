"""Evaluates the adaptive momentum filter: how often it drops wrong captions, and which pairs it finds least likely."""

import pandas as pd


def label_pairs(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """Add to each training pair its caption and whether the caption is known to be wrong.

    Args:
        pairs: from `read_pairs`.
        manifest: of the training data.

    Returns:
        The columns of `pairs`, `text` and `wrong`, lowest score first.
    """
    captions = manifest.loc[:, ["id", "captions", "wrong"]].explode(["captions", "wrong"])
    captions = captions.rename(columns={"captions": "text"}).astype({"wrong": bool})
    captions["caption"] = captions.groupby("id").cumcount()
    labelled = pairs.merge(captions, on=["id", "caption"], how="left", validate="one_to_one")
    return labelled.sort_values(["score", "id", "caption"], ignore_index=True)


def filter_metrics(pairs: pd.DataFrame) -> dict[str, float]:
    """How well the filter separates wrong pairs from right ones.

    Args:
        pairs: from `label_pairs`; some of them wrong.

    Returns:
        drops: number of times that the filter dropped a pair; wrong_share: fraction of these that were wrong pairs;
        chance: fraction of wrong pairs among all pairs seen, counted as often as seen; lift: wrong_share / chance;
        recall: fraction of the wrong pairs that were dropped at least once; separation: probability that the latest
        score of a wrong pair is below that of a right one. If nothing was dropped, wrong_share and lift are 0.

    Raises:
        ValueError: no pair, or every pair, is known to be wrong.
    """
    wrong = pairs["wrong"]
    if wrong.all() or not wrong.any():
        raise ValueError(f"{int(wrong.sum())} of {len(pairs)} pairs are known to be wrong: nothing to separate")
    drops = int(pairs["dropped"].sum())
    wrong_share = float(pairs.loc[wrong, "dropped"].sum()) / max(drops, 1)
    chance = float(pairs.loc[wrong, "seen"].sum() / pairs["seen"].sum())
    return {
        "drops": drops,
        "wrong_share": wrong_share,
        "chance": chance,
        "lift": wrong_share / chance,
        "recall": float((pairs.loc[wrong, "dropped"] > 0).mean()),
        "separation": _separation(pairs),
    }


def _separation(pairs: pd.DataFrame) -> float:
    """Area under the ROC curve of a low score as a sign of a wrong pair, from the rank sum of the wrong pairs."""
    ranks = pairs["score"].rank(ascending=False)
    num_wrong = int(pairs["wrong"].sum())
    couples_in_order = float(ranks[pairs["wrong"]].sum()) - num_wrong * (num_wrong + 1) / 2
    return couples_in_order / (num_wrong * (len(pairs) - num_wrong))
