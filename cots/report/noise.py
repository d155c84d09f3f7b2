"""What the adaptive momentum filter found: how well it hits wrong captions, and which pairs it distrusts."""

import pandas as pd


def known_pairs(pairs: pd.DataFrame, manifest: pd.DataFrame) -> pd.DataFrame:
    """The pairs seen in training with their caption and whether it is known to be wrong.

    Args:
        pairs: from `read_pairs`.
        manifest: the data's manifest.

    Returns:
        The columns of `pairs`, `text` and `wrong`, lowest score first.
    """
    captions = manifest.loc[:, ["id", "captions", "wrong"]].explode(["captions", "wrong"])
    captions = captions.rename(columns={"captions": "text"}).astype({"wrong": bool})
    captions["caption"] = captions.groupby("id").cumcount()
    joined = pairs.merge(captions, on=["id", "caption"], how="left", validate="one_to_one")
    return joined.sort_values(["score", "id", "caption"], ignore_index=True)


def filter_figures(pairs: pd.DataFrame) -> dict[str, float]:
    """How much more often than by chance a drop hits a wrong pair.

    Args:
        pairs: from `known_pairs`; some of them wrong.

    Returns:
        drops: events in which the filter dropped a pair; wrong_share: of these, the share that hit wrong pairs;
        chance: the share of wrong pairs among all pairs seen, event by event; lift: their ratio; recall: the share
        of the wrong pairs that were dropped at least once; separation: probability that a wrong pair's latest score
        lies below a right one's. Shares in [0, 1]; without any drop, wrong_share and lift are 0.

    Raises:
        ValueError: no pair, or all pairs, are known to be wrong: there is nothing to tell apart.
    """
    wrong = pairs["wrong"]
    if wrong.all() or not wrong.any():
        raise ValueError(f"{int(wrong.sum())} of {len(pairs)} pairs are known to be wrong: nothing to tell apart")
    drops = int(pairs["dropped"].sum())
    share = float(pairs.loc[wrong, "dropped"].sum()) / max(drops, 1)
    by_chance = float(pairs.loc[wrong, "seen"].sum() / pairs["seen"].sum())
    return {
        "drops": drops,
        "wrong_share": share,
        "chance": by_chance,
        "lift": share / by_chance,
        "recall": float((pairs.loc[wrong, "dropped"] > 0).mean()),
        "separation": _separation(pairs),
    }


def _separation(pairs: pd.DataFrame) -> float:
    """Area under the ROC curve of a low score as the sign of a wrong pair, by the rank-sum of the wrong ones."""
    ranks = pairs["score"].rank(ascending=False)
    wrong = int(pairs["wrong"].sum())
    above = float(ranks[pairs["wrong"]].sum()) - wrong * (wrong + 1) / 2
    return above / (wrong * (len(pairs) - wrong))
