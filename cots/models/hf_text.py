"""The text backbone: a transformers encoder."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel

from cots.errors import BadInput
from cots.models.backbone import TextBackbone
from cots.models.hf_files import published_pool, quiet_transformers, summarize_error
from cots.models.token_index import TokenIndex

BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")  # model types with no layer after the blocks
TWO_TOWER = {"clip_text_model": "CLIPTextModel", "siglip_text_model": "SiglipTextModel"}  # of CLIP and SigLIP
NOT_OPTIONS = ("model_type", "dtype", "transformers_version", "architectures")  # the other entries of config.json


class HfTextBackbone(TextBackbone):
    """Token ids to token vectors; the first one stands for the whole text.

    Args:
        name: a transformers model type when trained from scratch, else a hub name or a local folder.
        pretrained: load the weights of `name`, only from safetensors, as float32.
        vocab_size: of the tokenizer; a pretrained model must have at least as many tokens.
        pad_token: the tokenizer's padding id; some models derive positions from it.
        options: further settings of the model's configuration (hidden_size, num_hidden_layers, ...).
        fused_attention: use scaled_dot_product_attention if the model supports it.

    Attributes:
        width: of a token (W).
        name, options: enough to build the same layers again without a hub or the original folder.

    Raises:
        BadInput: transformers cannot build or load it, it is not a text encoder, weights are missing, or its
            vocabulary is smaller than the tokenizer's.
    """

    def __init__(
        self,
        *,
        name: str,
        pretrained: bool,
        vocab_size: int,
        pad_token: int,
        options: dict[str, Any],
        fused_attention: bool,
    ) -> None:
        super().__init__()
        required = {} if pretrained else {"vocab_size": vocab_size, "pad_token_id": pad_token}
        with quiet_transformers():  # defaults of SigLIP's configuration contradict each other
            config = load_config(name, pretrained, required | options)
        self.encoder = build_hf_encoder(name, config, pretrained=pretrained, fused_attention=fused_attention)
        if config.vocab_size < vocab_size:
            raise BadInput(f"model.text: {name} knows {config.vocab_size} tokens, the tokenizer makes {vocab_size}")
        layers = getattr(config, "layer_types", None) or ()
        expands = config._attn_implementation == "sdpa" and "sliding_attention" not in layers
        self._expands_mask = expands and config.model_type not in TWO_TOWER
        self.name, self.options = name, options
        if pretrained:
            settings = config.to_diff_dict() | {"vocab_size": config.vocab_size, "pad_token_id": config.pad_token_id}
            self.name = config.model_type
            self.options = {k: v for k, v in settings.items() if k not in NOT_OPTIONS and has_setting(config, k)}
        self.width = config.hidden_size
        self._checkpoint = name if pretrained else None

    @property
    def checkpoint_settings(self) -> dict[str, Any]:
        """The way to pool: that of sentence-transformers, if the checkpoint says one, else the first token."""
        return {"pool": published_pool(self._checkpoint)} if self._checkpoint else {}

    @property
    def max_tokens(self) -> int | None:
        """Number of positions that have an embedding; None if positions are unlimited."""
        embeddings = getattr(self.encoder, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", getattr(embeddings, "position_embedding", None))
        if not isinstance(table, nn.Embedding):
            return None
        # RoBERTa's positions start after the padding id
        unused = 0 if table.padding_idx is None else table.padding_idx + 1
        return table.num_embeddings - unused

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, first to last.

        Raises:
            BadInput: the model has no single list of them; ALBERT applies one block repeatedly.
        """
        return list(self.encoder.get_submodule(self._blocks_path()))

    @property
    def final_layers(self) -> list[nn.Module]:
        """The modules after the blocks, such as a last norm; not the embeddings that every block reads."""
        final: list[nn.Module] = []
        holder: nn.Module = self.encoder
        for name in self._blocks_path().split("."):
            names = [child for child, _ in holder.named_children()]
            later = [holder.get_submodule(child) for child in names[names.index(name) + 1 :]]
            if not any(isinstance(module, nn.Embedding) for module in later):
                final += later
            holder = holder.get_submodule(name)
        return final

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) bool, False = padding.

        Returns:
            (B, L, W).
        """
        # a 4D mask, because from a 2D one transformers checks for padding, which is a host-device sync
        mask = (
            attention_mask[:, None, None].expand(-1, 1, input_ids.shape[1], -1)
            if self._expands_mask
            else attention_mask.long()
        )
        encoded: Tensor = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return encoded

    def encode_at(self, input_ids: Tensor, attention_mask: Tensor, positions: TokenIndex) -> Tensor:
        """The output of `forward` at some positions; these attend to all tokens of their text.

        In BERT-like models the last block's feed-forward layers process these tokens only, unless blocks are compiled
        or recomputed by gradient checkpointing.

        Args:
            input_ids: (B, L) token ids.
            attention_mask: (B, L) bool, False = padding.
            positions: of A tokens.

        Returns:
            (A, W), in row order.
        """
        config = self.encoder.config
        last = self.blocks[-1] if config.model_type in BERT_LIKE and not config.chunk_size_feed_forward else None
        if last is None or last._compiled_call_impl is not None or self.encoder.is_activation_checkpointing:
            return positions.select(self(input_ids, attention_mask))
        with feed_forward_at(last, positions):
            selected: Tensor = self(input_ids, attention_mask)
        return selected

    def set_grad_checkpointing(self) -> None:
        """Recompute activations inside the blocks in the backward pass instead of storing them.

        Raises:
            BadInput: transformers does not support it for this model.
        """
        if not self.encoder.supports_gradient_checkpointing:
            raise BadInput(f"model.text: {self.name} has no gradient checkpointing in transformers: switch it off")
        self.encoder.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def _blocks_path(self) -> str:
        depth = getattr(self.encoder.config, "num_hidden_layers", 0)
        lists = [name for name, module in self.encoder.named_modules() if isinstance(module, nn.ModuleList)]
        candidates = [name for name in lists if len(self.encoder.get_submodule(name)) == depth]
        outermost = [name for name in candidates if not any(name.startswith(f"{other}.") for other in candidates)]
        if len(outermost) != 1:
            reason = f"has {len(outermost)} lists of {depth} blocks, not one"
            raise BadInput(f"model.text: {self.name} {reason}: train all of it, with one learning rate")
        return str(outermost[0])


@contextmanager
def feed_forward_at(block: Any, positions: TokenIndex) -> Iterator[None]:  # noqa: ANN401  transformers' blocks have no common type
    """Within this context, a BERT-like block applies its feed-forward layers to some tokens only.

    Args:
        block: returns (A, W) instead of (B, L, W) meanwhile.
        positions: of the A tokens.
    """
    feed_forward = block.feed_forward_chunk
    block.feed_forward_chunk = lambda tokens: feed_forward(positions.select(tokens))
    try:
        yield
    finally:
        del block.feed_forward_chunk


def load_config(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401  of any model type
    """The transformers configuration of a name with options.

    Raises:
        BadInput: there is none, it is not that of a text encoder, or it does not know an option.
    """
    defaults = auto_config(name, pretrained, {})
    kind = defaults.model_type
    if kind not in TWO_TOWER and (not is_bidirectional(defaults) or options.get("is_decoder")):
        raise BadInput(
            f"model.text: {name} ({kind}) is no text encoder: give a bidirectional one, such as bert, roberta, "
            "distilbert, mpnet, electra, deberta-v2 or modernbert"
        )
    unknown = sorted(key for key in options if not has_setting(defaults, key))
    if unknown:
        raise BadInput(f"model.text.options: {kind} has no {', '.join(unknown)}")
    return auto_config(name, pretrained, options)


def auto_config(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """The transformers configuration of a hub name or folder if pretrained, else of a model type.

    Raises:
        BadInput: transformers has none.
    """
    try:
        if pretrained:
            return AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        return AutoConfig.for_model(name, **options)
    except Exception as error:  # configuration classes raise errors of any type
        raise BadInput(f"model.text: transformers cannot configure {name}: {summarize_error(error)}") from None


def has_setting(config: Any, setting: str) -> bool:  # noqa: ANN401  of any model type
    """Whether a model reads this setting: its configuration class has it or, as in DeBERTa, only its code."""
    if hasattr(type(config)(), setting):
        return True
    code = sys.modules[model_class(config).__module__]
    return f'"{setting}"' in inspect.getsource(code)


def model_class(config: Any) -> Any:  # noqa: ANN401  of any model type
    """The class of transformers for a configuration of a text encoder."""
    name = TWO_TOWER.get(config.model_type)
    return getattr(transformers, name) if name else MODEL_MAPPING[type(config)]


def is_bidirectional(config: Any) -> bool:  # noqa: ANN401  of any model type
    """Whether it is a text encoder: with a masked language model, without a decoder or another modality."""
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or type(config) not in MODEL_MAPPING:
        return False
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return False
    forward = getattr(MODEL_MAPPING[type(config)], "forward", None)  # None for a type with several base models
    accepted = inspect.signature(forward).parameters.keys() if forward else ()
    return {"input_ids", "attention_mask"} <= set(accepted) and "pixel_values" not in accepted


def build_hf_encoder(name: str, config: Any, *, pretrained: bool, fused_attention: bool) -> Any:  # noqa: ANN401  untyped
    """The model of a configuration in float32, without a pooling layer.

    Raises:
        BadInput: it cannot be built or loaded, or `name` lacks some of its weights.
    """
    kind = model_class(config)
    settings: dict[str, Any] = {"dtype": torch.float32}
    settings["attn_implementation"] = "sdpa" if fused_attention and kind._supports_sdpa else "eager"
    if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        settings["add_pooling_layer"] = False
    try:
        if config.model_type in TWO_TOWER:
            if pretrained:
                raise BadInput(f"model.text: {name} is the text tower of CLIP or SigLIP: give both as model.init_from")
            encoder = kind._from_config(config, **settings)
            encoder.head = nn.Identity()  # SigLIP's projection, which is this project's `projection`
            return encoder
        if not pretrained:
            return AutoModel.from_config(config, **settings)
        with quiet_transformers():
            encoder, loading = AutoModel.from_pretrained(
                name, config=config, use_safetensors=True, output_loading_info=True, **settings
            )
    except (AssertionError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise BadInput(f"model.text: transformers cannot build {name}: {summarize_error(error)}") from None
    if missing := sorted(loading["missing_keys"]):
        raise BadInput(f"model.text: {name} lacks {len(missing)} weights of a {kind.__name__}, such as {missing[0]}")
    return encoder
