"""A WordPiece tokenizer, trained on the captions."""

from collections.abc import Iterable, Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CONTINUATION = "##"  # prefix of a token that continues a word
# Marks are accents in these scripts; in others, such as Thai, Hindi and Japanese, they are vowels or tell words apart.
ACCENTS = r"(?<=[\p{Latin}\p{Greek}\p{Cyrillic}\p{Arabic}\p{Hebrew}\p{Han}\p{Common}])\p{Mn}+"
MAX_WORD_CHARS = 100  # longer words are cut; WordPiece's own limit


def train_tokenizer(captions: Iterable[str], *, vocab_size: int) -> PreTrainedTokenizerBase:
    """Train a lower-casing WordPiece tokenizer in BERT's form; the same captions give the same tokenizer.

    Args:
        captions: the training captions.
        vocab_size: maximum number of tokens, special ones included.
    """
    texts = sorted(captions)
    letters = build_vocabulary(texts, size=0, first=SPECIAL_TOKENS)
    inner_letters = sorted(token for token in letters if token.startswith(CONTINUATION))
    tokenizer = build_tokenizer(build_vocabulary(texts, size=vocab_size, first=SPECIAL_TOKENS + inner_letters))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    ends = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # BERT's own class loads without cutting words


def build_vocabulary(captions: Sequence[str], *, size: int, first: Sequence[str]) -> dict[str, int]:
    """Find the tokens of the captions and number them.

    The library numbers a word's inner letters in an order that differs from call to call, and merges the one of two
    equally frequent pairs that has the lower numbers. The result is therefore repeatable only if `first` names all
    inner letters.

    Args:
        captions: in a fixed order.
        size: maximum number of tokens; all letters, inner letters and `first` are included even if they are more.
        first: tokens that get the first numbers.
    """
    tokenizer = build_tokenizer({})
    trainer = trainers.WordPieceTrainer(vocab_size=size, special_tokens=list(first), show_progress=False)
    tokenizer.train_from_iterator(captions, trainer)
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    return vocabulary


def build_tokenizer(vocabulary: dict[str, int]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer with this vocabulary, without special tokens."""
    tokenizer = Tokenizer(
        models.WordPiece(
            vocabulary,
            unk_token="[UNK]",  # noqa: S106
            continuing_subword_prefix=CONTINUATION,
            max_input_chars_per_word=MAX_WORD_CHARS,
        )
    )
    without_accents = normalizers.Sequence([normalizers.NFD(), normalizers.Replace(Regex(ACCENTS), "")])
    bert = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.normalizer = normalizers.Sequence([without_accents, bert])
    # Scripts without blanks make words of any length, which the model takes as one unknown token each.
    parts = pre_tokenizers.Split(Regex(f".{{1,{MAX_WORD_CHARS}}}"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), parts])
    tokenizer.decoder = decoders.WordPiece(CONTINUATION)
    return tokenizer
