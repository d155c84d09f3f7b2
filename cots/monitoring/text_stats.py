"""Statistics of texts, as a table that is checked against bounds."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd
from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\w+")


class Vocabulary:
    """The words that a text encoder was trained on.

    Args:
        tokenizer: of the text encoder; words that it maps to the unknown token are excluded.
        captions: that the encoder was trained on.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, captions: Iterable[str]) -> None:
        words = sorted({word for caption in captions for word in split_words(caption)})
        self.words = frozenset(words) - _unknown_to_tokenizer(tokenizer, words)

    def oov_rate(self, text: str) -> float:
        """Fraction of a text's words, repeated ones included, that are out of vocabulary; 0 if it has no words."""
        words = split_words(text)
        return sum(word not in self.words for word in words) / max(len(words), 1)


def split_words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return WORD.findall(text.casefold())


def text_stats(texts: Sequence[str], vocabulary: Vocabulary) -> pd.DataFrame:
    """One row per text: number of `words` and `characters`, fraction of `unknown` words, and whether it is `blank`.

    Args:
        texts: at least one.
        vocabulary: of the model.
    """
    return pd.DataFrame(
        {
            "words": [len(split_words(text)) for text in texts],
            "characters": [len(text) for text in texts],
            "unknown": [vocabulary.oov_rate(text) for text in texts],
            "blank": [float(not text.strip()) for text in texts],
        }
    )


def _unknown_to_tokenizer(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> frozenset[str]:
    unknown = tokenizer.unk_token_id
    if unknown is None or not words:  # a byte-level tokenizer knows all words
        return frozenset()
    input_ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    return frozenset(word for word, ids in zip(words, input_ids, strict=True) if unknown in ids)
