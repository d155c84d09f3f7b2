"""Small models in the folder formats of timm and transformers, in place of downloaded ones."""

from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import save_for_hf
from tokenizers import ByteLevelBPETokenizer, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import Unigram
from tokenizers.normalizers import NFKC
from tokenizers.processors import RobertaProcessing
from tokenizers.trainers import UnigramTrainer
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
    XLMRobertaTokenizerFast,
)

from cots.data.wordpiece import train_tokenizer

CAPTIONS = [f"a {colour} {shape} on the left" for colour in ("red", "green", "blue") for shape in ("ring", "square")]
SENTENCES = {
    "zh": "一只狗在草地上奔跑",
    "ja": "がっこうのネコがボールで遊ぶ",
    "th": "สุนัขสองตัวกำลังวิ่งอยู่บนชายหาด",
    "ar": "كلب يركض على الشاطئ",
    "he": "כלב רץ על החוף",
    "ko": "개가 해변에서 달리고 있다",
    "hi": "कुत्ता समुद्र तट पर दौड़ रहा है",
    "vi": "một con chó chạy",
}
MULTILINGUAL = ("xlm-roberta", "multilingual-minilm")  # the latter is BERT's model with the former's tokenizer
VIT = {"embed_dim": 32, "depth": 2, "num_heads": 2}


def save_vit(folder: Path, *, name: str = "vit_tiny_patch16_224", **options: Any) -> Any:
    """A timm model in the layout of its hub: config.json and model.safetensors."""
    torch.manual_seed(11)
    vit = timm.create_model(name, **{"img_size": 32, "patch_size": 8, "num_classes": 10, **VIT, **options})
    save_for_hf(vit, folder, safe_serialization=True)
    return vit


def save_text(kind: str, folder: Path) -> Any:
    """A transformers model with the tokenizer that belongs to it: bert, distilbert, roberta, or a multilingual one."""
    torch.manual_seed(12)
    tokenizer = (
        byte_pairs()
        if kind == "roberta"
        else unigrams()
        if kind in MULTILINGUAL
        else train_tokenizer(CAPTIONS, vocab_size=60)
    )
    size: dict[str, Any] = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    tall = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    encoder: PreTrainedModel
    if kind == "distilbert":
        encoder = DistilBertModel(DistilBertConfig(dim=32, n_layers=2, n_heads=2, hidden_dim=48, **size))
    elif kind == "roberta":
        encoder = RobertaModel(RobertaConfig(max_position_embeddings=40, type_vocab_size=1, **size, **tall))
    elif kind == "xlm-roberta":
        encoder = XLMRobertaModel(XLMRobertaConfig(max_position_embeddings=40, type_vocab_size=1, **size, **tall))
    else:
        encoder = BertModel(BertConfig(**size, **tall))
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return encoder.eval()


def unigrams() -> PreTrainedTokenizerBase:
    """XLM-RoBERTa's kind of tokenizer: SentencePiece's unigrams in many scripts, `<s>` and `</s>` around a text."""
    trained = Tokenizer(Unigram())
    trained.normalizer, trained.pre_tokenizer, trained.decoder = (
        NFKC(),
        pre_tokenizers.Metaspace(),
        decoders.Metaspace(),
    )
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    texts = [*CAPTIONS, *SENTENCES.values()]
    letters = {"unk_token": "<unk>", "initial_alphabet": sorted({*"".join(texts)})}
    trainer = UnigramTrainer(vocab_size=300, special_tokens=special, show_progress=False, **letters)
    trained.train_from_iterator(texts, trainer)
    trained.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer: PreTrainedTokenizerBase = XLMRobertaTokenizerFast(tokenizer_object=trained)
    return tokenizer


def byte_pairs() -> PreTrainedTokenizerBase:
    """RoBERTa's kind of tokenizer: byte-level pairs, `<s>` and `</s>` around a text."""
    trained = ByteLevelBPETokenizer(add_prefix_space=True)
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(CAPTIONS, vocab_size=300, special_tokens=special, show_progress=False)
    trained._tokenizer.post_processor = RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=True)
    tokenizer: PreTrainedTokenizerBase = RobertaTokenizerFast(tokenizer_object=trained._tokenizer)
    return tokenizer
