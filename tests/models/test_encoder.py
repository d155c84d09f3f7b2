"""Both encoders: which parts learn, and gradients with recomputed activations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cots.errors import BadInput
from cots.models.encoder import TEXTS_AT_ONCE, Encoder, ImageEncoder, TextEncoder
from cots.models.momentum import MomentumEncoder
from cots.models.token_index import TokenIndex
from tests.backbones import language, vision

DEPTH = 3


def image_encoder(**options: Any) -> ImageEncoder:
    torch.manual_seed(0)
    backbone = vision(size=32, **{"embed_dim": 32, "depth": DEPTH, "num_heads": 2} | options)
    return ImageEncoder(backbone, dim=8, pool="class")


def text_encoder(name: str = "bert", dropout: float = 0.0) -> TextEncoder:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": DEPTH, "num_attention_heads": 2}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    backbone = language(vocab=50, name=name, **sizes | ({} if name == "modernbert" else rates))
    return TextEncoder(backbone, dim=8, pool="mean")


def encode_and_sum(encoder: Encoder) -> Tensor:
    """Sum over all outputs of an encoder for a batch, including a masked pass."""
    generator = torch.Generator().manual_seed(5)
    dtype = next(encoder.parameters()).dtype
    if isinstance(encoder, ImageEncoder):
        frames = torch.randn(2, 1, 3, 32, 32, generator=generator, dtype=dtype)
        mask = torch.rand(2, 16, generator=generator) < 0.4
        feature, (tokens, view) = encoder.forward_clean_and_masked(frames, mask, embed_masked=True)
    else:
        assert isinstance(encoder, TextEncoder)
        ids, attention_mask = (
            torch.randint(5, 50, (2, 6), generator=generator),
            torch.arange(6) < torch.tensor([[6], [4]]),
        )
        feature, (tokens, view) = (
            encoder(ids, attention_mask),
            encoder.forward_masked(ids, attention_mask, TokenIndex.from_mask(attention_mask), embed_masked=True),
        )
    assert view is not None
    return (tokens**3).mean() + feature[:, 0].sum() + (view**3).mean()


def trained_parameters(encoder: Encoder) -> set[str]:
    encoder.zero_grad(set_to_none=True)
    encode_and_sum(encoder).backward()  # type: ignore[no-untyped-call]
    return {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}


ENCODERS: list[Callable[[], Encoder]] = [image_encoder, text_encoder, lambda: text_encoder("megatron-bert")]
both = pytest.mark.parametrize("make", ENCODERS, ids=["image", "text", "text with a final norm"])


def inside(names: set[str], modules: list[nn.Module], encoder: Encoder) -> set[str]:
    """The parameter names that belong to the modules."""
    ids = {id(parameter) for module in modules for parameter in module.parameters()}
    return {name for name, parameter in encoder.named_parameters() if name in names and id(parameter) in ids}


@both
@pytest.mark.parametrize("n", [0, 1, 2, DEPTH, DEPTH + 4])
def test_gradients_reach_the_last_blocks_final_norm_and_projection_alone(make: Callable[[], Encoder], n: int) -> None:
    encoder = make()
    everything = {name for name, _ in encoder.named_parameters()}
    blocks = encoder.backbone.blocks
    encoder.freeze_except_last(n)
    expected = inside(
        everything, [*blocks[DEPTH - min(n, DEPTH) :], *encoder.backbone.final_layers, encoder.projection], encoder
    )
    assert trained_parameters(encoder) == expected
    assert {name for name, parameter in encoder.named_parameters() if parameter.requires_grad} == expected
    assert inside(everything, [encoder.projection], encoder) <= expected
    assert len(inside(expected, blocks, encoder)) == min(n, DEPTH) * len(inside(everything, blocks[:1], encoder))


@both
def test_without_freezing_every_weight_learns(make: Callable[[], Encoder]) -> None:
    encoder = make()
    assert trained_parameters(encoder) == {name for name, _ in encoder.named_parameters()}


@both
def test_a_choice_can_be_widened_and_narrowed_again(make: Callable[[], Encoder]) -> None:
    encoder, fresh = make(), make()
    for n in (1, 3, 2):
        encoder.freeze_except_last(n)
    fresh.freeze_except_last(2)
    assert trained_parameters(encoder) == trained_parameters(fresh)
    assert [m.training for m in encoder.modules()] == [m.training for m in fresh.modules()]


NOISY: list[Callable[[], Encoder]] = [
    lambda: image_encoder(pos_drop_rate=0.5, proj_drop_rate=0.5, attn_drop_rate=0.5),
    lambda: text_encoder(dropout=0.5),
]


@pytest.mark.parametrize("make", NOISY, ids=["image", "text"])
def test_frozen_parts_have_no_dropout_in_training_and_the_others_have(make: Callable[[], Encoder]) -> None:
    encoder = make().train()
    encoder.freeze_except_last(0)
    assert torch.equal(encode_and_sum(encoder), encode_and_sum(encoder.train()))
    encoder.freeze_except_last(1)
    assert not torch.equal(encode_and_sum(encoder), encode_and_sum(encoder))
    assert encoder.training
    assert [block.training for block in encoder.backbone.blocks] == [False, False, True]
    assert torch.equal(encode_and_sum(encoder.eval()), encode_and_sum(encoder.eval()))
    assert not any(block.training for block in encoder.backbone.blocks)


def test_a_text_model_without_a_list_of_blocks_cannot_be_frozen_in_part() -> None:
    with pytest.raises(BadInput, match="train all of it"):
        text_encoder("albert").freeze_except_last(1)


def test_the_momentum_encoder_of_a_frozen_encoder_never_trains_and_keeps_frozen_weights() -> None:
    encoder = image_encoder()
    encoder.freeze_except_last(1)
    slow = MomentumEncoder(encoder).train()
    assert not any(part.training for part in slow.modules())
    before = {name: value.clone() for name, value in slow.module.named_parameters()}
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter.add_(1.0)
    slow.update(encoder, 0.9)
    moved = {name for name, value in slow.module.named_parameters() if not torch.equal(value, before[name])}
    assert moved == {name for name, parameter in encoder.named_parameters() if parameter.requires_grad}


# --- gradient checkpointing


def gradients(encoder: Encoder) -> dict[str, Tensor]:
    trained_parameters(encoder)
    return {name: parameter.grad for name, parameter in encoder.named_parameters() if parameter.grad is not None}


CHECKPOINTED = [*ENCODERS, lambda: text_encoder("modernbert"), lambda: image_encoder(dynamic_img_size=True)]


@pytest.mark.parametrize("make", CHECKPOINTED)
@pytest.mark.parametrize("n", [None, 2])
def test_checkpointed_gradients_equal_kept_ones_in_double_precision(make: Callable[[], Encoder], n: int | None) -> None:
    plain, saving = make().double().train(), make().double().train()
    saving.set_grad_checkpointing()
    if n is not None:
        plain.freeze_except_last(n)
        saving.freeze_except_last(n)
    mine, theirs = gradients(saving), gradients(plain)
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-12, atol=1e-14)


@both
def test_checkpointed_blocks_run_a_second_time_for_the_gradient_if_they_learn(make: Callable[[], Encoder]) -> None:
    encoder, runs = make().train(), [0] * DEPTH
    encoder.set_grad_checkpointing()
    encoder.freeze_except_last(2)
    for number, block in enumerate(encoder.backbone.blocks):
        inner = next(module for module in block.modules() if isinstance(module, nn.Linear))

        def count(*_: Any, number: int = number) -> None:
            runs[number] += 1

        inner.register_forward_hook(count)
    total = encode_and_sum(encoder)
    forward = runs[0]
    total.backward()  # type: ignore[no-untyped-call]
    assert runs == [forward, 2 * forward, 2 * forward]


@pytest.mark.parametrize("make", NOISY, ids=["image", "text"])
def test_the_second_run_draws_the_same_dropout(make: Callable[[], Encoder]) -> None:
    plain, saving = make().double().train(), make().double().train()
    saving.set_grad_checkpointing()
    torch.manual_seed(9)
    theirs = gradients(plain)
    torch.manual_seed(9)
    mine = gradients(saving)
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-12, atol=1e-14)


def test_a_text_model_that_transformers_cannot_checkpoint_is_refused() -> None:
    with pytest.raises(BadInput, match="mpnet has no gradient checkpointing"):
        text_encoder("mpnet").set_grad_checkpointing()


@pytest.mark.parametrize("count", [TEXTS_AT_ONCE, TEXTS_AT_ONCE + 1, 3 * TEXTS_AT_ONCE - 5])
def test_many_texts_are_trained_on_by_length_with_the_embeddings_and_gradients_of_one_pass(count: int) -> None:
    generator, encoder = torch.Generator().manual_seed(1), text_encoder().double()
    lengths = torch.randint(1, 20, (count, 1), generator=generator)
    ids, attention_mask = torch.randint(5, 50, (count, 20), generator=generator), torch.arange(20) < lengths
    widths: list[int] = []
    encoder.backbone.register_forward_hook(lambda _, inputs, __: widths.append(inputs[0].shape[1]))
    at_once = encoder.eval()(ids, attention_mask)  # without dropout, the same function
    (at_once[:, 0] ** 3).sum().backward()
    expected = {name: p.grad for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad(set_to_none=True)
    sorted_by_length = encoder.train()(ids, attention_mask)
    (sorted_by_length[:, 0] ** 3).sum().backward()
    torch.testing.assert_close(sorted_by_length, at_once, rtol=1e-9, atol=1e-12)
    for name, p in encoder.named_parameters():
        if name in expected:
            torch.testing.assert_close(p.grad, expected[name], rtol=1e-8, atol=1e-12, msg=name)
    assert len(widths) == 1 + -(-count // TEXTS_AT_ONCE)
    assert count < 2 * TEXTS_AT_ONCE or widths[1] < 12  # the first part has the shortest texts
