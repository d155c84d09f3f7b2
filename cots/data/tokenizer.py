"""Texts to token ids, by a tokenizer trained on the captions or that of a pretrained model."""

from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from cots.errors import BadInput

MAX_COUNTED = 10_000  # captions that `describe_unknown` tokenizes
MIN_UNKNOWN = 0.01  # fraction of them that it names; a rare sign in fewer is no reason for other encoders


def load_tokenizer(name: str | Path) -> PreTrainedTokenizerBase:
    """Load a tokenizer.

    Args:
        name: a folder, or a name on the Hugging Face hub.

    Raises:
        BadInput: there is none, or it lacks a padding token.
    """
    if isinstance(name, Path) and not name.is_dir():  # transformers would look for it on the hub
        raise BadInput(f"no tokenizer folder {name}: run `dvc repro tokenize`")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except (ImportError, OSError, ValueError) as error:
        raise BadInput(f"no tokenizer in {name}: {' '.join(str(error).split())[:200]}") from None
    if tokenizer.pad_token_id is None:
        raise BadInput(f"tokenizer {name} has no padding token: texts of several lengths need one")
    return tokenizer


def describe_unknown(
    tokenizer: PreTrainedTokenizerBase, captions: Iterable[Sequence[str]], *, pretrained: bool
) -> str | None:
    """One line on captions that a tokenizer cannot represent, with what to do; None if it represents (nearly) all.

    Such a caption is read with unknown tokens, which are all alike, in place of words in a script that the tokenizer
    does not know.

    Args:
        tokenizer: of the text encoder.
        captions: of each sample, at least one; `MAX_COUNTED` of them are looked at.
        pretrained: whether the tokenizer comes with a pretrained encoder; else it was trained on the training captions.
    """
    texts = list(chain.from_iterable(captions))
    texts = texts[:: 1 + (len(texts) - 1) // MAX_COUNTED]
    if tokenizer.unk_token_id is None:  # a byte-level tokenizer knows all texts
        return None
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    some = sum(tokenizer.unk_token_id in row for row in ids)
    if some <= MIN_UNKNOWN * len(texts):
        return None
    nothing_else = sum(set(row) == {tokenizer.unk_token_id} for row in ids)
    if pretrained:
        advice = (
            "take multilingual encoders (`cots init ... --encoders siglip2-b16`), or a tokenizer trained on these "
            "captions (`--encoders scratch`)"
        )
    else:
        advice = "they have letters that no training caption has, or more than model.text.vocab_size holds"
    return (
        f"{some} of {len(texts)} captions have words that the tokenizer does not know ({tokenizer.unk_token}), "
        f"{nothing_else} nothing else: {advice}"
    )


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> list[list[int]]:
    """Tokenize at least one text: ids with special tokens, cut to `max_tokens`, not padded."""
    ids: list[list[int]] = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_token_type_ids=False,
    )["input_ids"]
    return ids


def pad_token_ids(
    texts: Sequence[Sequence[int]], *, pad_token: int, length: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Pad token ids to an array.

    Args:
        texts: token ids of B texts, at least one; the longest has L.
        pad_token: fills the shorter rows.
        length: L for models that read padding like any other token, as SigLIP does; None otherwise.

    Returns:
        Input ids (B, L), and attention mask (B, L), False = padding that is not read.
    """
    lengths = np.array([len(text) for text in texts])
    filled = np.arange(length or lengths.max()) < lengths[:, None]
    input_ids = np.full(filled.shape, pad_token, np.int64)
    input_ids[filled] = np.concatenate(texts)
    return input_ids, filled if length is None else np.ones_like(filled)
