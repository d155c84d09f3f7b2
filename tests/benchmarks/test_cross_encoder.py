"""The single-stream encoder: what changes a pair's logit and what must not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks._single_stream.cross_encoder import CONFIG, WEIGHTS, CrossEncoder, SingleStreamEncoder
from cots.errors import BadInput
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.vit import VitBackbone
from tests.conftest import COLOURS

TEXTS = [f"a {colour} square" for colour in COLOURS] + ["square", "a red red blue green square"]


def cross_encoder(folder: Path, pool: str = "class") -> CrossEncoder:
    """With the weights of two encoders and a head that distinguishes pairs."""
    torch.manual_seed(0)
    encoders = DualEncoder.load(folder)
    encoders.config["image"]["pool"] = pool
    model = CrossEncoder.of(encoders)
    torch.nn.init.normal_(model.joint.head.weight)
    model.joint.eval()
    return model


def pairs(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Noise images, token ids and attention masks; one text has the full length, one has a single token."""
    torch.manual_seed(1)
    frames, input_ids = torch.randn(count, 1, 3, 32, 32), torch.randint(5, 20, (count, 7))
    lengths = torch.arange(7, 7 - count, -1).clamp(min=1)
    return frames, input_ids, torch.arange(7) < lengths[:, None]


@pytest.mark.parametrize("pool", ["class", "mean"])
@pytest.mark.parametrize("fused", [True, False])
def test_padding_does_not_change_the_logit(tiny_model: Path, pool: str, fused: bool) -> None:
    joint = cross_encoder(tiny_model, pool).joint
    for block in joint.vision.vit.blocks:
        block.attn.fused_attn = fused
    frames, input_ids, attention_mask = pairs(9)
    logits = joint(frames, input_ids, attention_mask)
    other = torch.where(attention_mask, input_ids, 3)
    wider = torch.cat([other, torch.full((9, 5), 4)], dim=1)
    torch.testing.assert_close(
        joint(frames, wider, torch.cat([attention_mask, torch.zeros(9, 5).bool()], dim=1)), logits
    )
    for row, seen in enumerate(attention_mask):
        alone = joint(frames[row : row + 1], input_ids[row : row + 1, seen], seen[None, seen])
        torch.testing.assert_close(alone[0], logits[row])


def test_permuting_the_pairs_permutes_the_logits(tiny_model: Path) -> None:
    joint, batch = cross_encoder(tiny_model).joint, pairs(5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(joint(*(field[order] for field in batch)), joint(*batch)[order])


def test_a_logit_depends_on_the_image_on_the_tokens_and_on_their_order(tiny_model: Path) -> None:
    joint, (frames, input_ids, attention_mask) = cross_encoder(tiny_model).joint, pairs(2)
    logit = joint(frames, input_ids, attention_mask)[0]
    for changed in (
        (frames.flip(0), input_ids),
        (frames, input_ids.flip(0)),
        (frames, input_ids[:, [1, 0, 2, 3, 4, 5, 6]]),
    ):
        assert abs(joint(*changed, attention_mask)[0] - logit) > 1e-4


def test_every_frame_of_a_video_is_seen(tiny_model: Path) -> None:
    joint = cross_encoder(tiny_model).joint
    _, input_ids, attention_mask = pairs(2)
    videos = torch.randn(2, 3, 3, 32, 32, requires_grad=True)
    joint(videos, input_ids, attention_mask).sum().backward()
    assert videos.grad is not None
    assert (videos.grad.abs().amax(dim=(2, 3, 4)) > 0).all()


def test_gradient_reaches_both_embeddings(tiny_model: Path) -> None:
    joint = cross_encoder(tiny_model).joint
    joint(*pairs(3)).sum().backward()
    for part in (joint.vision.vit.patch_embed.proj.weight, joint.token_embeddings.word_embeddings.weight, joint.kinds):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0


def test_an_untrained_joint_encoder_calls_every_pair_right_with_probability_one_half(tiny_model: Path) -> None:
    joint = CrossEncoder.of(DualEncoder.load(tiny_model)).joint
    torch.testing.assert_close(joint(*pairs(4)).sigmoid(), torch.full((4,), 0.5))


def test_learning_leaves_the_two_encoders_that_it_started_from_alone(tiny_model: Path) -> None:
    encoders = DualEncoder.load(tiny_model)
    digest = encoders.digest
    with torch.no_grad():
        for parameter in CrossEncoder.of(encoders).joint.parameters():
            parameter.add_(1)
    assert encoders.digest == digest


def language(name: str, **options: int) -> HfTextBackbone:
    sizes = {"hidden_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    shapes = {"vocab_size": 40, "pad_token": 0, "options": sizes | options}
    return HfTextBackbone(name=name, pretrained=False, fused_attention=False, **shapes)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["roberta", "electra", "albert"])
def test_token_embeddings_of_any_width_are_taken(tiny_model: Path, name: str) -> None:
    vision = DualEncoder.load(tiny_model).image.backbone
    assert isinstance(vision, VitBackbone)
    joint = SingleStreamEncoder(
        vision, language(name, **{} if name == "roberta" else {"embedding_size": 8}), pool="class"
    )
    assert joint(*pairs(3)).shape == (3,)


def test_a_language_model_that_counts_positions_in_its_layers_is_refused(tiny_model: Path) -> None:
    vision = DualEncoder.load(tiny_model).image.backbone
    assert isinstance(vision, VitBackbone)
    with pytest.raises(BadInput, match="modernbert has no position embeddings"):
        SingleStreamEncoder(vision, language("modernbert"), pool="class")


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
def test_scores_are_the_logits_of_the_pairs_one_by_one(tiny_model: Path, batch_size: int) -> None:
    model = cross_encoder(tiny_model)
    images = [Image.new("RGB", (40, 32), colour) for colour in COLOURS]
    rows = np.array([(0, 0), (0, 6), (0, 7), (2, 1), (3, 3), (3, 4), (5, 0)])  # images 1 and 4 are in no pair
    scores = model.score(iter(images), TEXTS, rows, batch_size=batch_size)
    alone = [model.score([images[i]], [TEXTS[j]], np.zeros((1, 2), np.int64), batch_size=1)[0] for i, j in rows]
    np.testing.assert_allclose(scores, alone, atol=0.03)  # bfloat16, where the processor has it
    assert np.ptp(scores) > 0.2
    assert model.score(images, TEXTS, rows[:0], batch_size=batch_size).shape == (0,)


@pytest.mark.parametrize("pool", ["class", "mean"])
def test_a_loaded_cross_encoder_gives_the_same_scores(tiny_model: Path, tmp_path: Path, pool: str) -> None:
    model, rows = cross_encoder(tiny_model, pool), np.array([(0, 0), (0, 1), (1, 0)])
    images = [Image.new("RGB", (40, 32), colour) for colour in ("red", "blue")]
    model.save(tmp_path / "cross")
    assert {path.name for path in tmp_path.iterdir()} == {"cross"}
    again = CrossEncoder.load(tmp_path / "cross").score(images, TEXTS, rows, batch_size=2)
    np.testing.assert_array_equal(again, model.score(images, TEXTS, rows, batch_size=2))


def test_a_folder_that_is_no_cross_encoder_is_named(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"{tiny_model} is not a cross-encoder: no {WEIGHTS}, {CONFIG} in it"):
        CrossEncoder.load(tiny_model)
    folder = tmp_path / "cross"
    cross_encoder(tiny_model).save(folder)
    weights = load_file(folder / WEIGHTS)
    save_file({name: value for name, value in weights.items() if name != "kinds"}, folder / WEIGHTS)
    with pytest.raises(BadInput, match="is a damaged cross-encoder"):
        CrossEncoder.load(folder)
