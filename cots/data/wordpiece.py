"""A WordPiece tokenizer, trained on the captions."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertTokenizerFast, PreTrainedTokenizerBase

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
INSIDE = "##"  # before what continues a word


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
