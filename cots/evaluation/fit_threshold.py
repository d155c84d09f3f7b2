"""The score below which nothing in a gallery fits a text: between the scores of captions and of nonsense."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CAPTIONS_BELOW = 0.08  # fraction of captions that nothing seems to fit; the goal is one in ten of unseen captions
MIN_CAPTIONS = 50  # with fewer, such a fraction cannot be estimated
MIN_NONSENSE_BELOW = 0.5  # with less, scores do not separate nonsense from captions
NONSENSE = (  # texts that describe nothing visible: noise, abstract words, office, code, science, law
    "asdf jkl qwerty",
    "xxxxxx yyyyy zzzzz",
    "the quarterly tax return is due",
    "import numpy as np",
    "lorem ipsum dolor sit amet",
    "colourless green ideas sleep furiously",
    "blorp snarf quux",
    "how do I reset my password",
    "42 17 99 1234567",
    "the price of copper futures fell",
    "wqpo vnmz",
    "select * from users where id = 1",
    "he said that she thought they knew",
    "photosynthesis and the krebs cycle",
    "meeting moved to thursday at noon",
    "!!!! ???? ....",
    "terms and conditions apply",
    "the constitutional amendment was ratified",
    "brillig slithy toves",
    "error 404 not found",
    "interest rates and inflation",
    "a b c d e f g",
    "mitochondrial dna haplogroup",
    "please find the invoice attached",
    "why is why because therefore",
    "gfhgfh trtr ioio",
    "quantum chromodynamics lagrangian",
    "subscribe to our newsletter",
    "thursday wednesday tomorrow yesterday",
    "the meaning of the word perhaps",
    "if and only if epsilon is positive",
    "dividend yield of the fund",
    "kjhsdf 8723 lkj",
    "abstract algebra homework",
    "vote by mail deadline",
    "the sonnet's iambic pentameter",
    "gluten free keto macros",
    "encryption key rotation policy",
    "supreme court ruling on patents",
    "continuous integration failed",
)


def fit_threshold(captions: NDArray[np.float32], nonsense: NDArray[np.float32]) -> dict[str, Any] | None:
    """Fit the lowest score at which the best result of a text is taken to fit it.

    It lies just above all nonsense, but not above the quantile `MAX_CAPTIONS_BELOW` of the captions.

    Args:
        captions: (C,) score of the best result of each held-out caption.
        nonsense: (N,) score of the best result of each text of `NONSENSE`.

    Returns:
        `min_score`, and the fractions of `captions` and `nonsense` below it; None if the captions are too few, or their
        scores are not separated from those of nonsense.
    """
    if len(captions) < MIN_CAPTIONS:
        return None
    above_nonsense = np.nextafter(nonsense.max(), np.float32(np.inf))
    min_score = float(min(np.quantile(captions, MAX_CAPTIONS_BELOW), above_nonsense))
    below = {"captions": float((captions < min_score).mean()), "nonsense": float((nonsense < min_score).mean())}
    return {"min_score": min_score, **below} if below["nonsense"] >= MIN_NONSENSE_BELOW else None
