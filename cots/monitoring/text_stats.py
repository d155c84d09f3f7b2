"""What texts look like, as a table that expectations can be held against."""

import re
from collections.abc import Iterable, Sequence

import pandas as pd
from transformers import PreTrainedTokenizerBase

WORD = re.compile(r"\w+")


class Vocabulary:
    """The words that a text stream has learnt.

    Args:
        tokenizer: of the text stream; a word in which it knows no piece is unknown, whatever was said in training.
        captions: that it was trained on.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, captions: Iterable[str]) -> None:
        seen = sorted({word for caption in captions for word in words_of(caption)})
        self.words = frozenset(seen) - _without_token(tokenizer, seen)

    def unknown(self, text: str) -> float:
        """Share of a text's words, each counted as often as it occurs; 0 where there is no word."""
        words = words_of(text)
        return sum(word not in self.words for word in words) / max(len(words), 1)


def words_of(text: str) -> list[str]:
    """Runs of letters and digits in lower case."""
    return WORD.findall(text.casefold())


def text_stats(texts: Sequence[str], vocabulary: Vocabulary) -> pd.DataFrame:
    """One row a text: its number of `words` and `characters`, its share of `unknown` words, and whether it is `blank`.

    Args:
        texts: at least one.
        vocabulary: of the model that is to understand them.
    """
    return pd.DataFrame(
        {
            "words": [len(words_of(text)) for text in texts],
            "characters": [len(text) for text in texts],
            "unknown": [vocabulary.unknown(text) for text in texts],
            "blank": [float(not text.strip()) for text in texts],
        }
    )


def _without_token(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> frozenset[str]:
    unknown = tokenizer.unk_token_id
    if unknown is None or not words:  # a tokenizer of bytes knows everything
        return frozenset()
    ids = tokenizer(words, add_special_tokens=False)["input_ids"]
    return frozenset(word for word, own in zip(words, ids, strict=True) if unknown in own)
