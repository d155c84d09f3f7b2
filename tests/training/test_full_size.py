"""The paper's model at its own size: ViT-B/16 at 224 pixels, BERT-base, 8,192 visual tokens; one real step."""

import math

import pytest
import torch
from torch import Tensor

from cots.curves import TOTAL_LOSS
from cots.losses.filter import AdaptiveMomentumFilter
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.heads import MaskedTokenHead
from cots.models.queue import PairQueue
from cots.models.temperature import Temperature
from cots.objectives.cots import CotsObjective, LossWeights
from cots.objectives.protocol import Batch
from cots.training.optim import build_param_groups
from cots.training.trainer import train_step
from tests.backbones import encoder, language, vision, vit

DIM, VOCAB, CODES, PAIRS, LENGTH = 256, 30_522, 8_192, 2, 24


def full_size_encoders() -> tuple[ImageEncoder, TextEncoder]:
    """ViT-B/16 and BERT-base with random weights, the last six blocks trainable, with gradient checkpointing."""
    image_backbone, text_backbone = vision(size=224, patch=16, name="vit_base_patch16_224"), language(vocab=VOCAB)
    image, text = ImageEncoder(image_backbone, dim=DIM, pool="class"), TextEncoder(text_backbone, dim=DIM, pool="class")
    for part in (image, text):
        part.freeze_except_last(6)
        part.set_grad_checkpointing()
    return image, text


def full_size_objective() -> CotsObjective:
    """The whole objective around them."""
    image, text = full_size_encoders()
    return CotsObjective(
        image=image,
        text=text,
        patch_head=MaskedTokenHead(width=image.backbone.width, dim=DIM, vocab_size=CODES),
        word_head=MaskedTokenHead(width=text.backbone.width, dim=DIM, vocab_size=VOCAB),
        queue=PairQueue(size=1024, dim=DIM, warmup_steps=0),
        noise_filter=AdaptiveMomentumFilter(warmup_steps=100, num_std=2.0, momentum=0.99),
        loss_weights=LossWeights(instance=1.0, token=1.0, task=1.0, masked_views=1.0),
        temperature=Temperature(init=0.07, learnable=True, min=0.01),
        in_batch_negatives="momentum",
        momentum=0.99,
    )


def random_batch() -> Batch:
    """Two pairs of noise, with 40 % of the patches and 15 % of the tokens masked."""
    ids = torch.randint(1000, VOCAB, (PAIRS, LENGTH))
    mlm_mask = torch.arange(LENGTH).expand(PAIRS, LENGTH) % 7 == 3
    return Batch(
        image_index=torch.arange(PAIRS),
        caption_index=torch.arange(PAIRS),
        frame_row=torch.arange(PAIRS),
        frames=torch.randn(PAIRS, 1, 3, 224, 224),
        input_ids=ids,
        attention_mask=torch.ones(PAIRS, LENGTH, dtype=torch.bool),
        bool_masked_pos=torch.rand(PAIRS, 196).argsort(dim=1) < 78,
        visual_tokens=torch.randint(0, CODES, (PAIRS, 196)),
        mlm_input_ids=ids.masked_fill(mlm_mask, 103),
        mlm_mask=mlm_mask,
    )


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_one_real_step_of_the_full_size_model_learns_in_its_last_six_blocks() -> None:
    torch.manual_seed(0)
    objective, batch = full_size_objective().train(), random_batch()
    groups = build_param_groups(objective, weight_decay=0.02, layer_decay=0.9)
    optimizer = torch.optim.AdamW(groups)
    fingers = {name: finger(value) for name, value in objective.named_parameters()}
    _, metrics = train_step(objective, optimizer, batch, learning_rate=1e-4, max_grad_norm=1.0, grad_accum_steps=2)
    moved = {name for name, value in objective.named_parameters() if finger(value) != fingers[name]}
    learning = {name for name, value in objective.named_parameters() if value.requires_grad}
    assert math.isfinite(metrics[TOTAL_LOSS])
    assert sum(p.numel() for p in vit(objective.image).parameters()) == 85_798_656  # ViT-B/16 at 224, timm
    assert sum(p.numel() for p in encoder(objective.text).parameters()) == 108_891_648  # BERT-base, no pooler
    assert {name for name in moved if "_m.module." not in name} == learning
    assert {name.replace("_m.module.", ".") for name in moved if "_m.module." in name} <= learning
    assert len({group["scale"] for group in groups}) == 1 + 6


def finger(values: Tensor) -> tuple[float, float]:
    """Two sums that change when values do, without a copy of them."""
    wide = values.detach().double()
    return float(wide.sum()), float((wide * wide).sum())
