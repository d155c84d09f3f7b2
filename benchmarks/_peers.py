"""Training steps of other libraries, at the towers of one of our models and on its batch.

Each is written as its library's users write it: bf16 autocast, the library's own attention, fused AdamW, texts padded
to the model's length.
"""

import copy
import itertools
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    ViTConfig,
)

from benchmarks._rounds import Call
from cots.devices import autocast, default_device
from cots.models.dual_encoder import DualEncoder
from cots.models.hf_text import HfTextBackbone
from cots.models.vit import VitBackbone
from cots.objectives.protocol import Batch

TAU = 0.07


def padded(batch: Batch, length: int) -> tuple[Tensor, Tensor]:
    """Ids and attention mask (B, length)."""
    more = (0, length - batch.input_ids.shape[1])
    return F.pad(batch.input_ids, more), F.pad(batch.attention_mask, more)


def shapes(model: DualEncoder) -> tuple[Any, Any]:
    """Our vision transformer, and the configuration of our text encoder."""
    image, text = model.image.backbone, model.text.backbone
    assert isinstance(image, VitBackbone)
    assert isinstance(text, HfTextBackbone)
    return image.vit, text.encoder.config


def step_of(module: nn.Module, loss: Call) -> Call:
    """Forward, backward and fused AdamW."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)

    def step() -> None:
        with autocast(default_device()):
            total: Any = loss()
        total.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def open_clip_model(model: DualEncoder) -> open_clip.CLIP:
    """open_clip's CLIP with towers of the same depths and widths, and its own vocabulary."""
    vit, bert = shapes(model)
    width = vit.embed_dim
    image = CLIPVisionCfg(
        layers=len(vit.blocks),
        width=width,
        head_width=width // vit.blocks[0].attn.num_heads,
        patch_size=vit.patch_embed.patch_size[0],
        image_size=model.config["image"]["size"],
    )
    text = CLIPTextCfg(
        context_length=model.config["text"]["max_tokens"],
        width=bert.hidden_size,
        heads=bert.num_attention_heads,
        layers=bert.num_hidden_layers,
    )
    return open_clip.CLIP(model.dim, image, text).to(default_device())


def open_clip_step(model: DualEncoder, batch: Batch) -> Call:
    """open_clip's CLIP."""
    clip, loss = open_clip_model(model).train(), open_clip.ClipLoss()
    ids, _ = padded(batch, clip.context_length)
    return step_of(clip, lambda: loss(*clip(batch.frames[:, 0], ids)))


def dual_encoder_step(model: DualEncoder, batch: Batch) -> Call:
    """The dual encoder of transformers: a ViT and a BERT with CLIP's loss."""
    vit, bert = shapes(model)
    image = ViTConfig(
        hidden_size=vit.embed_dim,
        num_hidden_layers=len(vit.blocks),
        num_attention_heads=vit.blocks[0].attn.num_heads,
        intermediate_size=4 * vit.embed_dim,
        image_size=model.config["image"]["size"],
        patch_size=vit.patch_embed.patch_size[0],
    )
    config = VisionTextDualEncoderConfig.from_vision_text_configs(image, bert, projection_dim=model.dim)
    dual = VisionTextDualEncoderModel(config).to(default_device()).train()
    ids, attended = padded(batch, model.config["text"]["max_tokens"])
    return step_of(
        dual,
        lambda: (
            dual(input_ids=ids, attention_mask=attended.long(), pixel_values=batch.frames[:, 0], return_loss=True).loss
        ),
    )


def albef_step(model: DualEncoder, batch: Batch) -> Call:
    """ALBEF without distillation: contrast with momentum and a queue, matching with hard negatives, masked words.

    Half of the text encoder's layers read the text, the other half attend to the picture (arXiv:2107.07651).
    """
    albef = Albef(model).to(default_device()).train()
    return step_of(albef, lambda: albef(batch))


class Albef(nn.Module):
    """Streams, fusion and the three losses of ALBEF at the towers of one of our models."""

    def __init__(self, model: DualEncoder, queue: int = 65_536) -> None:
        super().__init__()
        _, bert = shapes(model)
        half = copy.deepcopy(bert)
        half.num_hidden_layers = bert.num_hidden_layers // 2
        self.image = copy.deepcopy(model.image)
        self.text = BertModel(half, add_pooling_layer=False)
        crossing = BertConfig(**{**half.to_dict(), "is_decoder": True, "add_cross_attention": True})
        self.fusion = BertModel(crossing, add_pooling_layer=False)
        self.project = nn.Linear(bert.hidden_size, model.dim)
        self.matching, self.words = nn.Linear(bert.hidden_size, 2), nn.Linear(bert.hidden_size, bert.vocab_size)
        self.slow = copy.deepcopy(nn.ModuleList([self.image, self.text, self.project])).requires_grad_(False)
        self.queue: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue, model.dim), dim=1))
        self.length = model.config["text"]["max_tokens"]

    def forward(self, batch: Batch) -> Tensor:
        """The sum of the three losses; momentum copies move."""
        ids, attended = padded(batch, self.length)
        frames, backbone = batch.frames.flatten(0, 1), self.image.backbone
        tokens = torch.cat([backbone(piece) for piece in torch.split(frames, backbone.micro_batch_size(frames))])
        image, own = self.image.project(self.image.pool_tokens(tokens)), tokens[:, backbone.num_prefix_tokens :]
        text = self.text(ids, attended).last_hidden_state
        read = F.normalize(self.project(text[:, 0]), dim=1)
        contrast = self.contrast(image, read, batch, ids, attended)
        rows = torch.arange(len(ids), device=ids.device).roll(1)
        matches = [
            self.fused(text, attended, own),
            self.fused(text, attended, own[rows]),
            self.fused(text[rows], attended[rows], own),
        ]
        right = torch.arange(3 * len(ids), device=ids.device) < len(ids)
        match = F.cross_entropy(self.matching(torch.cat([fused[:, 0] for fused in matches])), right.long())
        corrupted, masked = padded(
            batch._replace(input_ids=batch.mlm_input_ids, attention_mask=batch.mlm_mask), self.length
        )
        hidden = self.fused(self.text(corrupted, attended).last_hidden_state, attended, own)[masked]
        return contrast + match + F.cross_entropy(self.words(hidden), ids[masked])

    def fused(self, text: Tensor, attended: Tensor, patches: Tensor) -> Tensor:
        """(B, L, W): words that have attended to patches."""
        tokens: Tensor = self.fusion(
            inputs_embeds=text, attention_mask=attended, encoder_hidden_states=patches, use_cache=False
        ).last_hidden_state
        return tokens

    def contrast(self, image: Tensor, text: Tensor, batch: Batch, ids: Tensor, attended: Tensor) -> Tensor:
        """InfoNCE against the momentum features of the batch and the queue, both ways."""
        with torch.no_grad():
            fast = [self.image, self.text, self.project]
            slow = itertools.chain.from_iterable(part.parameters() for part in self.slow)
            torch._foreach_lerp_(list(slow), [p for part in fast for p in part.parameters()], 0.005)
            seen, encode, project = self.slow
            keys = (
                seen(batch.frames),
                F.normalize(project(encode(ids, attended).last_hidden_state[:, 0]), dim=1),
            )
        own = torch.arange(len(ids), device=ids.device)
        losses = [
            F.cross_entropy(query @ torch.cat([key, self.queue]).T / TAU, own)
            for query, key in ((image, keys[1]), (text, keys[0]))
        ]
        return sum(losses, torch.zeros((), device=ids.device))
