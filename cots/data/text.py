"""Words to token ids: a WordPiece tokenizer, trained on the captions or taken from a pretrained model."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, BertTokenizerFast, PreTrainedTokenizerBase

from cots.errors import BadInput

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
INSIDE = "##"  # before what continues a word


class TokenBatch(NamedTuple):
    """A batch of token ids."""

    input_ids: NDArray[np.int64]  # (B, L), L the longest text of the batch
    attention_mask: NDArray[np.bool_]  # (B, L), False = padding
    maskable: NDArray[np.bool_]  # (B, L), False = padding or a special token


def train_tokenizer(captions: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerBase:
    """A lower-casing WordPiece tokenizer in BERT's form, trained on the captions; the same captions give the same one.

    Args:
        captions: the training captions.
        vocab_size: tokens at most, special ones included.
    """
    texts = sorted(captions)
    letters = sorted(token for token in vocabulary(texts, size=0, first=SPECIAL) if token.startswith(INSIDE))
    tokenizer = word_pieces(vocabulary(texts, size=vocab_size, first=SPECIAL + letters))
    tokenizer.add_special_tokens(SPECIAL)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    return BertTokenizerFast(tokenizer_object=tokenizer)


def vocabulary(captions: Sequence[str], *, size: int, first: Sequence[str]) -> dict[str, int]:
    """Tokens of the captions and their numbers.

    The library numbers a word's inner letters in an order that differs from call to call, and of two pairs that are
    equally frequent it joins the one with lower numbers: only where `first` has them all is the result always the same.

    Args:
        captions: in a fixed order.
        size: tokens at most; letters, inner letters and `first` are in it whatever it says.
        first: tokens that come first.
    """
    tokenizer = word_pieces({})
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(first), show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    found: dict[str, int] = tokenizer.get_vocab()
    return found


def word_pieces(tokens: dict[str, int]) -> Tokenizer:
    """A lower-casing tokenizer of these tokens, without special ones."""
    tokenizer = Tokenizer(models.WordPiece(tokens, unk_token="[UNK]", continuing_subword_prefix=INSIDE))  # noqa: S106
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(INSIDE)
    return tokenizer


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


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_tokens: int) -> TokenBatch:
    """Token ids of texts, cut to `max_tokens` and padded to the longest of them."""
    found = tokenizer(
        list(texts),
        truncation=True,
        max_length=max_tokens,
        return_attention_mask=False,
        return_special_tokens_mask=True,
        return_token_type_ids=False,
    )
    ids, attended = pad_token_ids(found["input_ids"], pad_token=tokenizer.pad_token_id)
    special, _ = pad_token_ids(found["special_tokens_mask"], pad_token=1)
    return TokenBatch(ids, attended, special == 0)
