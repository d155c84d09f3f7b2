"""The text backbone: any encoder of transformers, from scratch or from a folder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from cots.errors import BadInput
from cots.models.encoder import TextEncoder
from cots.models.hf_files import published_pool
from cots.models.hf_text import BERT_LIKE, HfTextBackbone
from cots.models.token_index import TokenIndex
from tests.foreign import save_text

SIZES: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENCODERS = [
    "bert",
    "roberta",
    "distilbert",
    "mpnet",
    "electra",
    "deberta",
    "deberta-v2",
    "xlm-roberta",
    "camembert",
    "megatron-bert",
    "roberta-prelayernorm",
    "eurobert",
    "nomic_bert",
    "modernbert",
]


def backbone(name: str = "bert", **changes: Any) -> HfTextBackbone:
    settings: dict[str, Any] = {"pretrained": False, "vocab_size": 100, "pad_token": 0, "fused_attention": False}
    torch.manual_seed(0)
    return HfTextBackbone(name=name, **({"options": SIZES} | settings | changes)).eval()


def words() -> tuple[torch.Tensor, torch.Tensor]:
    """Two texts of seven tokens, the second one's last three are padding."""
    ids = torch.randint(5, 100, (2, 7), generator=torch.Generator().manual_seed(3))
    ids[1, 4:] = 0
    return ids, ids != 0


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", ENCODERS)
def test_padding_changes_no_vector_and_the_first_token_sees_the_last(name: str, fused: bool) -> None:
    model, (ids, attention_mask) = backbone(name, fused_attention=fused), words()
    tokens = model(ids, attention_mask)
    assert tokens.shape == (2, 7, model.width)
    torch.testing.assert_close(model(ids[1:, :4], attention_mask[1:, :4])[0], tokens[1, :4], atol=1e-5, rtol=1e-4)
    other = ids.clone()
    other[1, 3] = 99 if ids[1, 3] != 99 else 98
    assert not torch.allclose(model(other, attention_mask)[1, 0], tokens[1, 0])


@pytest.mark.parametrize("name", ["bert", "roberta", "nomic_bert", "modernbert"])
def test_a_ready_made_mask_says_what_transformers_makes_of_the_padding(name: str) -> None:
    model = backbone(name, fused_attention=True, options=SIZES | {"max_position_embeddings": 400})
    ids = torch.randint(5, 100, (2, 300), generator=torch.Generator().manual_seed(3))  # ModernBERT sees 64 to each side
    ids[1, 200:] = 0
    attention_mask = ids != 0
    expected = model.encoder(input_ids=ids, attention_mask=attention_mask.long()).last_hidden_state
    torch.testing.assert_close(model(ids, attention_mask)[attention_mask], expected[attention_mask])


@pytest.mark.parametrize("chosen", ["none", "some", "all"])
@pytest.mark.parametrize("name", ENCODERS)
def test_some_tokens_are_those_of_the_whole_pass_and_so_are_the_gradients(name: str, chosen: str) -> None:
    model, (ids, attention_mask) = backbone(name).double(), words()
    mask = {"none": attention_mask & False, "some": attention_mask & (ids % 3 == 0), "all": attention_mask}[chosen]
    assert chosen != "some" or 0 < mask.sum() < attention_mask.sum()
    weights = list(model.parameters())
    outputs, gradients = [], []
    for tokens in (model.encode_at(ids, attention_mask, TokenIndex.from_mask(mask)), model(ids, attention_mask)[mask]):
        outputs.append(tokens)
        gradients.append(torch.autograd.grad(tokens.sin().sum(), weights, materialize_grads=True))
    torch.testing.assert_close(*outputs)
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch.compile warns of itself
@pytest.mark.parametrize("form", ["plain", "checkpointed", "compiled"])
@pytest.mark.parametrize("name", BERT_LIKE)
def test_the_last_feed_forward_layers_process_the_selected_tokens_alone(name: str, form: str) -> None:
    model, (ids, attention_mask) = backbone(name, options=SIZES | NO_DROPOUT).train(), words()
    positions, shapes = TokenIndex.from_mask(ids == ids[0, 2]), []
    last: Any = model.blocks[-1]
    if form == "checkpointed":
        model.set_grad_checkpointing()
    if form == "compiled":
        last.compile(backend="eager")
    expected = model(ids, attention_mask)  # whose compiled form must not be taken for the other's
    with last.intermediate.register_forward_pre_hook(lambda _, inputs: shapes.append(inputs[0].shape[:-1])):
        tokens = model.encode_at(ids, attention_mask, positions)
    torch.testing.assert_close(tokens, positions.select(expected))
    tokens.sum().backward()  # type: ignore[no-untyped-call]
    if form == "plain":
        assert shapes == [positions.flat.shape]
    assert "feed_forward_chunk" not in vars(last)


def test_a_pass_that_fails_leaves_the_last_block_as_it_was() -> None:
    model, (ids, attention_mask) = backbone(), words()
    with pytest.raises(IndexError):
        model.encode_at(ids + 100, attention_mask, TokenIndex.from_mask(attention_mask))
    assert model(ids, attention_mask).shape == (2, 7, model.width)


@pytest.mark.parametrize("name", ENCODERS)
def test_blocks_are_listed_in_the_order_in_which_they_run(name: str) -> None:
    model, ran = backbone(name), []
    for block in model.blocks:
        block.register_forward_hook(lambda module, *_: ran.append(module))
    model(*words())
    assert ran == model.blocks
    assert len(ran) == 3


@pytest.mark.parametrize(("name", "final"), [("bert", 0), ("megatron-bert", 1), ("roberta-prelayernorm", 1)])
def test_the_last_norm_follows_the_blocks_where_there_is_one(name: str, final: int) -> None:
    assert [type(module).__name__ for module in backbone(name).final_layers] == ["LayerNorm"] * final


@pytest.mark.parametrize("name", ["deberta-v2", "mpnet"])
def test_a_table_of_relative_positions_that_every_block_reads_is_an_embedding(name: str) -> None:
    options = SIZES | ({"relative_attention": True, "norm_rel_ebd": "layer_norm"} if name == "deberta-v2" else {})
    model = backbone(name, options=options)
    tables = {n for n, _ in model.encoder.named_parameters() if "rel" in n and ".layer." not in n}
    below = {id(parameter) for parameter in TextEncoder(model, dim=8, pool="mean").layer_groups()[0]}
    assert tables
    assert all(id(parameter) in below for n, parameter in model.encoder.named_parameters() if n in tables)
    assert model.final_layers == []


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("gpt2", {}, r"gpt2 \(gpt2\) is no text encoder: give a bidirectional one"),
        ("llama", {}, "is no text encoder"),
        ("t5", {}, "is no text encoder"),
        ("bart", {}, "is no text encoder"),
        ("clip", {}, "is no text encoder"),
        ("altclip_text_model", {}, "is no text encoder"),
        ("bert", {"is_decoder": True}, "is no text encoder"),
        ("berd", {}, "transformers cannot configure berd"),
        ("bert", {"hidden_sze": 32}, "bert has no hidden_sze"),
        ("bert", {"hidden_size": 33}, "33"),
        ("bert", {"num_hidden_layers": "two"}, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        backbone(name, options=options)
    assert str(error.value).startswith("model.text")
    assert "\n" not in str(error.value)


def test_a_model_that_runs_one_block_many_times_can_be_used_but_has_no_blocks() -> None:
    model = backbone("albert")
    assert model(*words()).shape == (2, 7, 32)
    with pytest.raises(BadInput, match="albert has 0 lists of 3 blocks"):
        _ = model.blocks


def test_positions_are_counted_as_the_model_counts_them() -> None:
    assert backbone("bert", options=SIZES | {"max_position_embeddings": 20}).max_tokens == 20
    assert backbone("roberta", options=SIZES | {"max_position_embeddings": 20}, pad_token=1).max_tokens == 18
    assert backbone("eurobert").max_tokens is None
    model = backbone("roberta", options=SIZES | {"max_position_embeddings": 20}, pad_token=1)
    longest = torch.full((1, 18), 7)
    assert model(longest, longest != 1).shape == (1, 18, 32)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_weights_of_a_local_folder_are_taken_exactly(kind: str, tmp_path: Path) -> None:
    theirs = save_text(kind, tmp_path / "it").state_dict()
    model = backbone(str(tmp_path / "it"), pretrained=True, vocab_size=50, options={})
    mine = model.encoder.state_dict()
    assert mine.keys() == {name for name in theirs if not name.startswith("pooler.")}
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    assert model.name == kind


def test_half_precision_weights_are_taken_as_float32(tmp_path: Path) -> None:
    save_text("bert", tmp_path / "it").half().save_pretrained(tmp_path / "it")
    model = backbone(str(tmp_path / "it"), pretrained=True, vocab_size=50, options={})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_options_change_a_pretrained_configuration(tmp_path: Path) -> None:
    save_text("bert", tmp_path / "it")
    model = backbone(str(tmp_path / "it"), pretrained=True, vocab_size=50, options={"hidden_dropout_prob": 0.37})
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} >= {0.37}


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def incomplete(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def cut(folder: Path) -> None:
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])


def with_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config", "AutoModel": "mine.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "mine.py").write_text("raise SystemExit('this code was run')")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (pickled, "cannot build .*safetensors"),
        (incomplete, r"lacks 1 weights of a BertModel, such as encoder\.layer\.1\.output\.dense\.weight"),
        (cut, "cannot build"),
        (with_code, "cannot configure"),
    ],
)
def test_a_folder_is_not_used_if_pickled_incomplete_cut_or_with_code(damage: Any, message: str, tmp_path: Path) -> None:
    save_text("bert", tmp_path / "it")
    damage(tmp_path / "it")
    with pytest.raises(BadInput, match=message) as error:
        backbone(str(tmp_path / "it"), pretrained=True, vocab_size=50, options={})
    assert "\n" not in str(error.value)


def test_a_vocabulary_smaller_than_the_tokenizer_s_is_refused_with_both_numbers(tmp_path: Path) -> None:
    save_text("bert", tmp_path / "it")
    with pytest.raises(BadInput, match=r"knows \d+ tokens, the tokenizer makes 5000"):
        backbone(str(tmp_path / "it"), pretrained=True, vocab_size=5000, options={})


@pytest.mark.parametrize(
    ("content", "pool"),
    [
        ('{"pooling_mode_mean_tokens": true}', "mean"),
        ('{"pooling_mode_mean_tokens": false, "pooling_mode_cls_token": true}', "class"),
        ('{"pooling_mode": "mean"}', "mean"),
        ('{"pooling_mode_lasttoken": true}', "last"),
        (None, "class"),
    ],
)
def test_a_checkpoint_of_sentence_transformers_says_how_it_pools(
    content: str | None, pool: str, tmp_path: Path
) -> None:
    if content:
        (tmp_path / "1_Pooling").mkdir()
        (tmp_path / "1_Pooling/config.json").write_text(content)
    assert published_pool(str(tmp_path)) == pool


def test_a_damaged_file_of_pooling_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text("{")
    with pytest.raises(BadInput, match=r"model.text: .*1_Pooling/config.json is damaged"):
        published_pool(str(tmp_path))
