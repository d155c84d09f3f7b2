"""The score below which nothing in a gallery fits a text: between those of captions and those of nonsense."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CAPTIONS_BELOW = 0.08  # fraction of captions that may be told that nothing fits; leaves a margin to one in ten
MIN_CAPTIONS = 50  # with fewer, such a fraction is not known
MIN_NONSENSE_BELOW = 0.5  # with less, the scores do not tell nonsense from captions
NONSENSE = (  # texts that describe nothing to be seen: noise, abstract words, office, code, science, law
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
    """The score that a text's best result has if something fits.

    It is as low as it can be with all nonsense below it, and at most the quantile `MAX_CAPTIONS_BELOW` of the captions.

    Args:
        captions: (C,) best score of each held-out caption.
        nonsense: (N,) best score of each text of `NONSENSE`.

    Returns:
        `min_score`, and the fractions of `captions` and `nonsense` below it; None if captions are too few or not told
        from nonsense.
    """
    if len(captions) < MIN_CAPTIONS:
        return None
    above_nonsense = np.nextafter(nonsense.max(), np.float32(np.inf))
    min_score = float(min(np.quantile(captions, MAX_CAPTIONS_BELOW), above_nonsense))
    below = {"captions": float((captions < min_score).mean()), "nonsense": float((nonsense < min_score).mean())}
    return {"min_score": min_score, **below} if below["nonsense"] >= MIN_NONSENSE_BELOW else None
