"""Words to token ids: a WordPiece tokenizer, trained on the captions or taken from a pretrained model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cots.errors import BadInput


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """A tokenizer from a local folder or by its hub name.

    Raises:
        BadInput: there is none, or it lacks a padding or mask token.
    """
    if isinstance(name, Path) and not name.is_dir():  # else it would be looked for on the hub
        raise BadInput(f"no tokenizer folder {name}: run `dvc repro tokenize`")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BadInput(f"no tokenizer in {name}: {str(error).splitlines()[0]}") from None
    if tokenizer.pad_token_id is None or tokenizer.mask_token_id is None:
        raise BadInput(f"tokenizer {name} has no padding or mask token: the token level needs both")
    return tokenizer


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
    """Token ids of at least one text, special ones included, cut to `max_tokens` and not padded."""
    found: list[list[int]] = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return found


def pad_token_ids(texts: Sequence[Sequence[int]], *, pad_token: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Token ids behind each other as one array.

    Args:
        texts: B of them, at least one; L the longest.
        pad_token: stands behind the shorter ones.

    Returns:
        ids (B, L), and attended (B, L), False = padding.
    """
    lengths = np.array([len(text) for text in texts])
    attended = np.arange(lengths.max()) < lengths[:, None]
    ids = np.full(attended.shape, pad_token, np.int64)
    ids[attended] = np.concatenate(texts)
    return ids, attended
