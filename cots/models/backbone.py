"""Interfaces of the backbones. A new kind is a subclass and a line in the tables of dual_encoder.py.

They are abstract classes, because a `typing.Protocol` cannot require that a backbone is an `nn.Module`.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from cots.errors import BadInput
from cots.models.token_index import TokenIndex


class Backbone(nn.Module, ABC):
    """Interface common to the backbones of both modalities.

    Attributes:
        width: of a token (W).
        name, options: enough to build the same layers again without a hub or the original folder.
    """

    width: int
    name: str
    options: dict[str, Any]

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, first to last; freezing, layer decay, FSDP and torch.compile work by block.

        Raises:
            BadInput: the model has no single list of them.
        """

    @property
    @abstractmethod
    def final_layers(self) -> list[nn.Module]:
        """The modules after the blocks; trainable whenever any block is."""

    @property
    def checkpoint_settings(self) -> dict[str, Any]:
        """What the loaded checkpoint says for keys of the model's config that are null; empty without a checkpoint."""
        return {}

    @abstractmethod
    def set_grad_checkpointing(self) -> None:
        """Recompute activations inside the blocks in the backward pass instead of storing them.

        Raises:
            BadInput: the backbone's library does not support it for this model.
        """


class ImageBackbone(Backbone):
    """Images to tokens; patches can be masked.

    Constructor keywords: name, pretrained, size, patch, stem, options, fused_attention.
    """

    @property
    @abstractmethod
    def num_prefix_tokens(self) -> int:
        """Number of tokens before the patches: class and distillation token, registers."""

    @property
    @abstractmethod
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""

    @property
    @abstractmethod
    def attentions(self) -> list[Any]:
        """Each block's attention, first to last, with timm's `fused_attn` and `attn_drop`; attention maps need it."""

    @property
    def attention_pool(self) -> nn.Module | None:
        """Pools tokens (B, prefix + N, W) to (B, W) with learned attention; None if the model has no such layer."""
        return None

    def remove_attention_pool(self) -> None:
        """Remove the layer that pools with attention, if there is one."""
        return

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode normalized images (B, 3, H, W) to (B, prefix + N, W) tokens after the last norm."""

    def encode_lower(self, images: Tensor, num_blocks: int) -> Tensor:
        """Encode images (B, 3, H, W) to the tokens (B, prefix + N, W) after the first blocks, for `encode_upper`.

        Raises:
            BadInput: this kind of backbone cannot be cut between its blocks.
        """
        raise BadInput(f"cached_views: {type(self).__name__} cannot be cut between its blocks: set it to 0")

    def encode_upper(self, tokens: Tensor, num_blocks: int) -> Tensor:
        """The output of `forward` from that of `encode_lower`."""
        raise NotImplementedError

    @abstractmethod
    def forward_clean_and_masked(
        self, images: Tensor, bool_masked_pos: Tensor, *, positions: TokenIndex | None
    ) -> tuple[Tensor, Tensor]:
        """Encode images twice: unmasked, and with patches masked.

        Args:
            images: (B, 3, H, W), normalized.
            bool_masked_pos: (B, N) bool over patches in row order, True = masked.
            positions: A of the (B, prefix + N) tokens to return of the masked pass; None for all.

        Returns:
            The output of `forward`, and that of the masked pass: all tokens, or (A, W) in row order.
        """

    @abstractmethod
    def micro_batch_size(self, images: Tensor) -> int:
        """The fastest number of images, or of images' tokens, to encode at once, >= 1."""

    @abstractmethod
    def resize(self, size: int) -> None:
        """Change the size of the input images, in pixels along a side.

        Raises:
            BadInput: not a multiple of the patch.
        """


class TextBackbone(Backbone):
    """Token ids to token vectors.

    Constructor keywords: name, pretrained, vocab_size, pad_token, options, fused_attention.
    """

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """Number of positions that have an embedding; None if positions are unlimited."""

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts, (B, L) token ids and (B, L) bool (False = padding), to (B, L, W)."""

    @abstractmethod
    def encode_at(self, input_ids: Tensor, attention_mask: Tensor, positions: TokenIndex) -> Tensor:
        """The output of `forward` at A positions: (A, W), in row order."""
