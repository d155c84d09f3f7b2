"""What an encoder asks of its backbone. A new kind is a subclass and a line in the tables of dual_encoder.py.

They are abstract modules, not `typing.Protocol`s, which could not say that a backbone is a module too.
"""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from cots.models.token_index import TokenIndex


class Backbone(nn.Module, ABC):
    """What both modalities' backbones are asked for.

    Attributes:
        width: of a token (W).
        name, options: what builds the same layers again where neither hub nor folder is at hand.
    """

    width: int
    name: str
    options: dict[str, Any]

    @property
    @abstractmethod
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, first to last: what freezing, layer decay, FSDP and torch.compile go by.

        Raises:
            BadInput: the model has no single list of them.
        """

    @property
    @abstractmethod
    def final(self) -> list[nn.Module]:
        """What follows the blocks; it learns whenever any block does."""

    @abstractmethod
    def set_grad_checkpointing(self) -> None:
        """Keep no activations inside the blocks: they are computed again when gradients are.

        Raises:
            BadInput: the backbone's library offers none for this model.
        """


class ImageBackbone(Backbone):
    """Pictures to tokens, of which patches may be hidden.

    The keywords that it is built from: name, pretrained, size, patch, stem, options, fused_attention.
    """

    @property
    @abstractmethod
    def num_prefix_tokens(self) -> int:
        """How many tokens stand before the patches: class and distillation token, registers."""

    @property
    @abstractmethod
    def has_class_token(self) -> bool:
        """Whether the first token is a class token."""

    @property
    @abstractmethod
    def attentions(self) -> list[Any]:
        """Each block's attention, first to last, with timm's `fused_attn` and `attn_drop`: attention maps read them."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode pictures (B, 3, H, W), normalised, to (B, prefix + N, W) tokens after the last norm."""

    @abstractmethod
    def forward_clean_and_masked(
        self, images: Tensor, masked: Tensor, *, asked: TokenIndex | None
    ) -> tuple[Tensor, Tensor]:
        """Encode pictures twice, as they are and with patches hidden.

        Args:
            images: (B, 3, H, W), normalised.
            masked: (B, N) bool over patches in row order, True = hidden.
            asked: which A of the (B, prefix + N) tokens are wanted of the masked pass; None for all.

        Returns:
            What `forward` returns; the same of the masked pass, or (A, W), its tokens in row order.
        """

    @abstractmethod
    def micro_batch_size(self, images: Tensor) -> int:
        """How many pictures are best encoded together, from 1."""

    @abstractmethod
    def resize(self, size: int) -> None:
        """Take pictures of another size, in pixels along a side, from now on.

        Raises:
            BadInput: not a multiple of the patch.
        """


class TextBackbone(Backbone):
    """Token ids to token vectors.

    The keywords that it is built from: name, pretrained, vocab_size, pad_token, options, fused_attention.
    """

    @property
    @abstractmethod
    def max_tokens(self) -> int | None:
        """How many tokens have a position embedding; None where positions have no end."""

    @abstractmethod
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts, (B, L) token ids and (B, L) bool, False = padding, to (B, L, W)."""

    @abstractmethod
    def encode_at(self, input_ids: Tensor, attention_mask: Tensor, positions: TokenIndex) -> Tensor:
        """What `forward` gives at some tokens: (A, W), in row order, of the A that are asked."""
