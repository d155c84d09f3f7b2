"""Training steps of other libraries, with encoders of the same size as one of our models and on its batch.

Each is written as users of its library write it: bf16 autocast, the library's own attention, fused AdamW, texts padded
to the model's maximum length.
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


def pad(batch: Batch, length: int) -> tuple[Tensor, Tensor]:
    """Token ids and attention mask, (B, length) each."""
    more = (0, length - batch.input_ids.shape[1])
    return F.pad(batch.input_ids, more), F.pad(batch.attention_mask, more)


def shapes(model: DualEncoder) -> tuple[Any, Any]:
    """Our vision transformer, and the configuration of our text encoder."""
    image, text = model.image.backbone, model.text.backbone
    assert isinstance(image, VitBackbone)
    assert isinstance(text, HfTextBackbone)
    return image.vit, text.encoder.config


def make_step(module: nn.Module, compute_loss: Call) -> Call:
    """A step: forward pass, backward pass and fused AdamW."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=1e-4, fused=True)

    def step() -> None:
        with autocast(default_device()):
            loss: Any = compute_loss()
        loss.backward()
        nn.utils.clip_grad_norm_(trainable, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def open_clip_model(model: DualEncoder) -> open_clip.CLIP:
    """open_clip's CLIP with encoders of the same depth and width, and its own vocabulary."""
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
    """A step of open_clip's CLIP."""
    clip, loss = open_clip_model(model).train(), open_clip.ClipLoss()
    input_ids, _ = pad(batch, clip.context_length)
    return make_step(clip, lambda: loss(*clip(batch.frames[:, 0], input_ids)))


def dual_encoder_step(model: DualEncoder, batch: Batch) -> Call:
    """A step of the dual encoder of transformers: a ViT and a BERT with CLIP's loss."""
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
    input_ids, attention_mask = pad(batch, model.config["text"]["max_tokens"])
    return make_step(
        dual,
        lambda: (
            dual(
                input_ids=input_ids,
                attention_mask=attention_mask.long(),
                pixel_values=batch.frames[:, 0],
                return_loss=True,
            ).loss
        ),
    )


def albef_step(model: DualEncoder, batch: Batch) -> Call:
    """A step of ALBEF without distillation: contrastive loss with momentum and a queue, ITM with hard negatives, MLM.

    Half of the text encoder's layers encode the text, the other half attend to the image too (arXiv:2107.07651).
    """
    albef = Albef(model).to(default_device()).train()
    return make_step(albef, lambda: albef(batch))


class Albef(nn.Module):
    """Encoders, fusion and the three losses of ALBEF, with encoders of the size of one of our models."""

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
        self.matching = nn.Linear(bert.hidden_size, 2)
        self.mlm_head = nn.Linear(bert.hidden_size, bert.vocab_size)
        self.momentum = copy.deepcopy(nn.ModuleList([self.image, self.text, self.project])).requires_grad_(False)
        self.queue: Tensor
        self.register_buffer("queue", F.normalize(torch.randn(queue, model.dim), dim=1))
        self.length = model.config["text"]["max_tokens"]

    def forward(self, batch: Batch) -> Tensor:
        """The sum of the three losses; updates the momentum encoders."""
        input_ids, attention_mask = pad(batch, self.length)
        frames, backbone = batch.frames.flatten(0, 1), self.image.backbone
        tokens = torch.cat([backbone(piece) for piece in torch.split(frames, backbone.micro_batch_size(frames))])
        image = self.image.project(self.image.pool_tokens(tokens))
        patches = tokens[:, backbone.num_prefix_tokens :]
        text = self.text(input_ids, attention_mask).last_hidden_state
        text_feature = F.normalize(self.project(text[:, 0]), dim=1)
        contrast = self.contrast(image, text_feature, batch, input_ids, attention_mask)
        rows = torch.arange(len(input_ids), device=input_ids.device).roll(1)
        matches = [
            self.fuse(text, attention_mask, patches),
            self.fuse(text, attention_mask, patches[rows]),
            self.fuse(text[rows], attention_mask[rows], patches),
        ]
        is_match = torch.arange(3 * len(input_ids), device=input_ids.device) < len(input_ids)
        match = F.cross_entropy(self.matching(torch.cat([fused[:, 0] for fused in matches])), is_match.long())
        corrupted, masked = pad(
            batch._replace(input_ids=batch.mlm_input_ids, attention_mask=batch.mlm_mask), self.length
        )
        masked_tokens = self.fuse(self.text(corrupted, attention_mask).last_hidden_state, attention_mask, patches)[
            masked
        ]
        return contrast + match + F.cross_entropy(self.mlm_head(masked_tokens), input_ids[masked])

    def fuse(self, text: Tensor, attention_mask: Tensor, patches: Tensor) -> Tensor:
        """(B, L, W): the text's tokens after cross-attention to the patches."""
        tokens: Tensor = self.fusion(
            inputs_embeds=text, attention_mask=attention_mask, encoder_hidden_states=patches, use_cache=False
        ).last_hidden_state
        return tokens

    def contrast(self, image: Tensor, text: Tensor, batch: Batch, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """InfoNCE in both directions, against the momentum features of the batch and the queue."""
        with torch.no_grad():
            online = [self.image, self.text, self.project]
            averages = itertools.chain.from_iterable(part.parameters() for part in self.momentum)
            torch._foreach_lerp_(list(averages), [p for part in online for p in part.parameters()], 0.005)
            image_m, text_m, project_m = self.momentum
            keys = (
                image_m(batch.frames),
                F.normalize(project_m(text_m(input_ids, attention_mask).last_hidden_state[:, 0]), dim=1),
            )
        targets = torch.arange(len(input_ids), device=input_ids.device)
        losses = [
            F.cross_entropy(query @ torch.cat([key, self.queue]).T / TAU, targets)
            for query, key in ((image, keys[1]), (text, keys[0]))
        ]
        return sum(losses, torch.zeros((), device=input_ids.device))
