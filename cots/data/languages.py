"""How many captions each language has, and how often each is drawn."""

from collections import Counter
from collections.abc import Sequence

import pandas as pd

from cots.data.manifest import LANGUAGES


def count_languages(manifest: pd.DataFrame) -> Counter[str]:
    """The number of captions in each language; those of an unknown one count for the empty tag.

    Args:
        manifest: rows of a manifest, which has a column `languages` only if a caption's is known.
    """
    counts = Counter[str]()
    for captions, languages in zip(manifest["captions"], _languages(manifest), strict=True):
        counts.update(languages if languages is not None else [""] * len(captions))
    return counts


def has_translations(manifest: pd.DataFrame) -> bool:
    """Whether some row of a manifest has captions in several known languages."""
    return any(len({*(languages if languages is not None else ())} - {""}) > 1 for languages in _languages(manifest))


def language_weights(counts: Counter[str], temperature: float) -> dict[str, float]:
    """Weight of each caption by its language, for draws in which language l comes with p_l ~ n_l^(1 / T).

        w_l = p_l / n_l ~ n_l^(1 / T - 1)

    Args:
        counts: n_l, the number of captions in each language.
        temperature: T > 0. 1: all captions weigh the same; the larger, the more often rare languages come.

    Returns:
        By language; the most frequent one has 1.

    Source: Lample and Conneau, arXiv:1901.07291, section 3.1; as 1 / T in mBERT's successors, arXiv:1907.05019.
    """
    most = max(counts.values(), default=1)
    return {language: (count / most) ** (1 / temperature - 1) for language, count in counts.items()}


def _languages(manifest: pd.DataFrame) -> Sequence[Sequence[str] | None]:
    return list(manifest[LANGUAGES]) if LANGUAGES in manifest else [None] * len(manifest)
