"""The text backbone: a transformers encoder."""

import inspect
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import MODEL_FOR_MASKED_LM_MAPPING, MODEL_MAPPING, AutoConfig, AutoModel

from cots.errors import BadInput
from cots.models.backbone import TextBackbone
from cots.models.token_index import TokenIndex

BERT_LIKE = ("bert", "camembert", "electra", "roberta", "xlm-roberta")  # nothing follows their blocks
NOT_OPTIONS = ("model_type", "dtype", "transformers_version", "architectures")  # what config.json has besides
REASON_CHARS = 160  # of another library's message; some list every model they know


class HfTextBackbone(TextBackbone):
    """Token ids to token vectors; the first is the sentence's.

    Args:
        name: a transformers model type when trained from scratch, else a hub name or a local folder.
        pretrained: load the weights that `name` stands for, from safetensors alone and as float32.
        vocab_size: of the tokenizer; a pretrained model must know at least as many tokens.
        pad_token: the tokenizer's id of padding; some models count positions by it.
        options: further settings of the model's configuration (hidden_size, num_hidden_layers, ...).
        fused_attention: use scaled_dot_product_attention where the model has it.

    Attributes:
        width: of a token (W).
        name, options: what builds the same layers again where neither hub nor folder is at hand.

    Raises:
        BadInput: transformers cannot build or load it, it is no text encoder, it lacks some of its weights, or it
            knows fewer tokens than the tokenizer makes.
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
        fitting = {} if pretrained else {"vocab_size": vocab_size, "pad_token_id": pad_token}
        config = load_config(name, pretrained, fitting | options)
        self.encoder = build_hf_encoder(name, config, pretrained=pretrained, fused_attention=fused_attention)
        if config.vocab_size < vocab_size:
            raise BadInput(f"model.text: {name} knows {config.vocab_size} tokens, the tokenizer makes {vocab_size}")
        layers = getattr(config, "layer_types", None) or ()
        self._expands_mask = config._attn_implementation == "sdpa" and "sliding_attention" not in layers
        self.name, self.options = name, options
        if pretrained:
            settings = config.to_diff_dict() | {"vocab_size": config.vocab_size, "pad_token_id": config.pad_token_id}
            self.name = config.model_type
            self.options = {k: v for k, v in settings.items() if k not in NOT_OPTIONS and has_setting(config, k)}
        self.width = config.hidden_size

    @property
    def max_tokens(self) -> int | None:
        """How many tokens have a position embedding; None where positions have no end."""
        table = getattr(getattr(self.encoder, "embeddings", None), "position_embeddings", None)
        if not isinstance(table, nn.Embedding):
            return None
        unused = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from behind padding's
        return table.num_embeddings - unused

    @property
    def blocks(self) -> list[nn.Module]:
        """The transformer's blocks, first to last.

        Raises:
            BadInput: the model has no single list of them; ALBERT runs one block many times.
        """
        return list(self.encoder.get_submodule(self._blocks_path()))

    @property
    def final_layers(self) -> list[nn.Module]:
        """What follows the blocks, the last norm where there is one; tables that every block reads are none of it."""
        found: list[nn.Module] = []
        holder: nn.Module = self.encoder
        for name in self._blocks_path().split("."):
            names = [child for child, _ in holder.named_children()]
            later = [holder.get_submodule(child) for child in names[names.index(name) + 1 :]]
            if not any(isinstance(module, nn.Embedding) for module in later):
                found += later
            holder = holder.get_submodule(name)
        return found

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: (B, L) token ids.
            attended: (B, L) bool, False = padding.

        Returns:
            (B, L, W).
        """
        # ready-made, or transformers would ask an accelerator whether anything is padded, and wait for it
        mask = (
            attention_mask[:, None, None].expand(-1, 1, input_ids.shape[1], -1)
            if self._expands_mask
            else attention_mask.long()
        )
        encoded: Tensor = self.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return encoded

    def encode_at(self, input_ids: Tensor, attention_mask: Tensor, positions: TokenIndex) -> Tensor:
        """Encode some tokens of texts, each of which attends to all tokens of its text.

        The last block's feed-forward layers see these tokens alone in models of BERT's kind, unless blocks are compiled
        or run again for their gradients.

        Args:
            ids: (B, L) token ids.
            attended: (B, L) bool, False = padding.
            asked: which A of the tokens.

        Returns:
            (A, W), in row order: those of `forward`.
        """
        config = self.encoder.config
        last = self.blocks[-1] if config.model_type in BERT_LIKE and not config.chunk_size_feed_forward else None
        if last is None or last._compiled_call_impl is not None or self.encoder.is_activation_checkpointing:
            return positions.select(self(input_ids, attention_mask))
        with feed_forward_at(last, positions):
            chosen: Tensor = self(input_ids, attention_mask)
        return chosen

    def set_grad_checkpointing(self) -> None:
        """Keep no activations inside the blocks: they are computed again when gradients are.

        Raises:
            BadInput: transformers offers none for this model.
        """
        if not self.encoder.supports_gradient_checkpointing:
            raise BadInput(f"model.text: {self.name} has no gradient checkpointing in transformers: switch it off")
        self.encoder.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})

    def _blocks_path(self) -> str:
        depth = getattr(self.encoder.config, "num_hidden_layers", 0)
        lists = [name for name, module in self.encoder.named_modules() if isinstance(module, nn.ModuleList)]
        fitting = [name for name in lists if len(self.encoder.get_submodule(name)) == depth]
        outermost = [name for name in fitting if not any(name.startswith(f"{other}.") for other in fitting)]
        if len(outermost) != 1:
            reason = f"has {len(outermost)} lists of {depth} blocks, not one"
            raise BadInput(f"model.text: {self.name} {reason}: train all of it, with one learning rate")
        return str(outermost[0])


@contextmanager
def feed_forward_at(block: Any, positions: TokenIndex) -> Iterator[None]:  # noqa: ANN401  transformers' blocks have no common type
    """Let a block of BERT's kind put some tokens alone through its feed-forward layers, for the time being.

    Args:
        block: gives (A, W) inside, in place of (B, L, W).
        asked: which A of the tokens.
    """
    feed_forward = block.feed_forward_chunk
    block.feed_forward_chunk = lambda tokens: feed_forward(positions.select(tokens))
    try:
        yield
    finally:
        del block.feed_forward_chunk


def load_config(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401  of any model type
    """The configuration that a name and options stand for.

    Raises:
        BadInput: there is none, it is not a text encoder's, or an option is unknown to it.
    """
    defaults = auto_config(name, pretrained, {})
    kind = defaults.model_type
    if not is_bidirectional(defaults) or options.get("is_decoder"):
        raise BadInput(
            f"model.text: {name} ({kind}) is no text encoder: give one that reads both ways, such as bert, roberta, "
            "distilbert, mpnet, electra, deberta-v2 or modernbert"
        )
    unknown = sorted(key for key in options if not has_setting(defaults, key))
    if unknown:
        raise BadInput(f"model.text.options: {kind} has no {', '.join(unknown)}")
    return auto_config(name, pretrained, options)


def auto_config(name: str, pretrained: bool, options: dict[str, Any]) -> Any:  # noqa: ANN401
    """What transformers makes of a name: a hub name or folder if pretrained, else a model type.

    Raises:
        BadInput: it makes nothing of it.
    """
    try:
        if pretrained:
            return AutoConfig.from_pretrained(name, trust_remote_code=False, **options)
        return AutoConfig.for_model(name, **options)
    except Exception as error:  # a configuration class raises what it likes
        raise BadInput(f"model.text: transformers cannot configure {name}: {summarize_error(error)}") from None


def has_setting(config: Any, setting: str) -> bool:  # noqa: ANN401  of any model type
    """Whether a model reads this setting: its configuration class has it, or, as with DeBERTa, only its code."""
    if hasattr(type(config)(), setting):
        return True
    code = sys.modules[MODEL_MAPPING[type(config)].__module__]
    return f'"{setting}"' in inspect.getsource(code)


def is_bidirectional(config: Any) -> bool:  # noqa: ANN401  of any model type
    """Whether it is a text encoder's: trained on hidden words, with neither a decoder nor another modality."""
    if type(config) not in MODEL_FOR_MASKED_LM_MAPPING or type(config) not in MODEL_MAPPING:
        return False
    if config.is_encoder_decoder or getattr(config, "is_decoder", False):
        return False
    forward = getattr(MODEL_MAPPING[type(config)], "forward", None)  # a type with several base models has none
    accepted = inspect.signature(forward).parameters.keys() if forward else ()
    return {"input_ids", "attention_mask"} <= set(accepted) and "pixel_values" not in accepted


def build_hf_encoder(name: str, config: Any, *, pretrained: bool, fused_attention: bool) -> Any:  # noqa: ANN401  untyped
    """The model of a configuration, without a pooling layer, in float32.

    Raises:
        BadInput: it cannot be built or loaded, or some of its weights are not where `name` says.
    """
    kind = MODEL_MAPPING[type(config)]
    settings: dict[str, Any] = {"dtype": torch.float32}
    settings["attn_implementation"] = "sdpa" if fused_attention and kind._supports_sdpa else "eager"
    if "add_pooling_layer" in inspect.signature(kind.__init__).parameters:
        settings["add_pooling_layer"] = False
    try:
        if not pretrained:
            return AutoModel.from_config(config, **settings)
        encoder, loading = AutoModel.from_pretrained(
            name, config=config, use_safetensors=True, output_loading_info=True, **settings
        )
    except (AssertionError, KeyError, OSError, RuntimeError, SafetensorError, TypeError, ValueError) as error:
        raise BadInput(f"model.text: transformers cannot build {name}: {summarize_error(error)}") from None
    if missing := sorted(loading["missing_keys"]):
        raise BadInput(f"model.text: {name} lacks {len(missing)} weights of a {kind.__name__}, such as {missing[0]}")
    return encoder


def summarize_error(error: Exception) -> str:
    """The start of another library's message."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:REASON_CHARS]}"
