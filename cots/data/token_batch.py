"""A batch of texts as token ids."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from cots.data.tokenizer import pad_token_ids


class TokenBatch(NamedTuple):
    """A batch of token ids; L is the length of the longest text."""

    input_ids: NDArray[np.int64]  # (B, L)
    attention_mask: NDArray[np.bool_]  # (B, L), False = padding
    maskable: NDArray[np.bool_]  # (B, L), False = padding or a special token


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int, length: int | None = None
) -> TokenBatch:
    """Tokenize texts, cut to `max_tokens` and padded to the longest of them, or to `length` as in `pad_token_ids`."""
    encoding = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_special_tokens_mask=True,
        return_token_type_ids=False,
    )
    input_ids, attention_mask = pad_token_ids(encoding["input_ids"], pad_token=tokenizer.pad_token_id, length=length)
    special, _ = pad_token_ids(encoding["special_tokens_mask"], pad_token=1, length=length)
    return TokenBatch(input_ids, attention_mask, special == 0)
