"""The tokenizer trained on captions: it is the same for the same captions, and encodes all of them."""

import random
from pathlib import Path

import pytest
from tokenizers.normalizers import BertNormalizer
from transformers import PreTrainedTokenizerBase

from cots.data.tokenizer import describe_unknown, load_tokenizer
from cots.data.wordpiece import CONTINUATION, SPECIAL_TOKENS, train_tokenizer
from tests.foreign import SENTENCES

DRAW = random.Random(0)
LETTERS = [CONTINUATION + letter for letter in "abcdefghij"]
# Hundreds of words that occur once, so nearly all pairs of letters are equally frequent
CAPTIONS = [" ".join("".join(DRAW.choices("abcdefghij", k=6)) for _ in range(8)) for _ in range(60)]


def sorted_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """All tokens, in order of their ids."""
    return sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__)


def test_the_same_captions_in_any_order_give_the_same_tokenizer_byte_for_byte(tmp_path: Path) -> None:
    first = train_tokenizer(CAPTIONS, vocab_size=200)
    first.save_pretrained(tmp_path / "first")
    for number in range(5):
        again = train_tokenizer(DRAW.sample(CAPTIONS, len(CAPTIONS)), vocab_size=200)
        assert sorted_tokens(again) == sorted_tokens(first)
        again.save_pretrained(tmp_path / str(number))
        for path in (tmp_path / "first").iterdir():
            assert (tmp_path / str(number) / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("vocab_size", [30, 200])
def test_letters_come_after_the_special_tokens_and_the_most_frequent_pairs_follow(vocab_size: int) -> None:
    tokens = sorted_tokens(train_tokenizer(CAPTIONS, vocab_size=vocab_size))
    assert tokens[:5] == SPECIAL_TOKENS
    assert tokens[5:15] == LETTERS
    assert tokens[15:25] == list("abcdefghij")
    assert len(tokens) == vocab_size
    assert all(len(token.removeprefix(CONTINUATION)) > 1 for token in tokens[25:])


@pytest.mark.parametrize(
    "letters", ["กขคงจฉชซ", "กขคง日本語", "🐶🐱🌲🚗", "abcdefgh"], ids=["thai", "mixed", "emoji", "latin"]
)
def test_a_caption_without_blanks_of_any_length_has_no_unknown_token(tmp_path: Path, letters: str) -> None:
    captions = ["".join(DRAW.choices(letters, k=length)) for length in (99, 100, 101, 250, 500) for _ in range(4)]
    train_tokenizer(captions, vocab_size=100).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    for caption in captions:
        ids = tokenizer(caption, add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids).replace(" ", "") == caption


def test_a_new_sentence_of_known_letters_has_no_unknown_token_in_any_script() -> None:
    tokenizer = train_tokenizer(SENTENCES.values(), vocab_size=400)
    for sentence in SENTENCES.values():
        middle = len(sentence) // 2
        ids = tokenizer(sentence[middle:] + " " + sentence[:middle], add_special_tokens=False)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert len(ids) > 1


@pytest.mark.parametrize(("one", "other"), [("かき", "がき"), ("มา", "ม้า"), ("कल", "कुल"), ("ボール", "ホール")])
def test_marks_that_tell_words_apart_are_kept(one: str, other: str) -> None:
    tokenizer = train_tokenizer([one, other], vocab_size=60)
    assert tokenizer.tokenize(one) != tokenizer.tokenize(other)


def test_accents_are_dropped_as_berts_normalizer_drops_them() -> None:
    ours, bert = train_tokenizer(["a"], vocab_size=60)._tokenizer.normalizer, BertNormalizer(lowercase=True)
    accented = "ÀÉÎÕÜ ÇŞİ ỆẬ ΆΈΉ ЁЙ Ångström Œuvre ❤️ #️⃣ كلبٌ آئ שָׁלוֹם 一只狗 개가"
    for text in (*accented.split(), accented, "A dog\u0301's\tball."):
        assert ours.normalize_str(text) == bert.normalize_str(text)


def test_special_tokens_are_known_as_such_and_decoding_gives_the_captions(tmp_path: Path) -> None:
    train_tokenizer(CAPTIONS, vocab_size=100).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    assert set(tokenizer.all_special_tokens) == set(SPECIAL_TOKENS)
    for caption in CAPTIONS:
        ids = tokenizer(caption)["input_ids"]
        assert tokenizer.unk_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == caption
    assert tokenizer.tokenize("##a A") == ["[UNK]", "[UNK]", "a", "a"]


def test_captions_that_a_tokenizer_cannot_represent_are_counted_with_a_way_out() -> None:
    tokenizer = train_tokenizer(["a cat on a mat", "a dog"], vocab_size=60)
    assert describe_unknown(tokenizer, [["a cat"], ["a dog", "on a mat"]], pretrained=True) is None
    assert describe_unknown(tokenizer, [["a cat"] * 199, ["a 猫"]], pretrained=True) is None  # one in two hundred
    line = describe_unknown(tokenizer, [["a cat", "a 猫"], ["猫 狗"], ["🐶"]], pretrained=True)
    assert line is not None
    assert line.startswith("3 of 4 captions have words that the tokenizer does not know ([UNK]), 2 nothing else: ")
    assert "`cots init ... --encoders siglip2-b16`" in line
    assert (Path(__file__).parents[2] / "presets/encoders/siglip2-b16.yaml").is_file()
    own = describe_unknown(tokenizer, [["a 猫"]], pretrained=False)
    assert own is not None
    assert own.endswith(
        ", 0 nothing else: they have letters that no training caption has, or more than model.text.vocab_size holds"
    )
