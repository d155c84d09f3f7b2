"""The text backbone: a transformers encoder."""

from torch import Tensor, nn
from transformers import AutoConfig, AutoModel


class TextBackbone(nn.Module):
    """Token ids to token vectors; the first is the sentence's.

    Args:
        name: a transformers model type when trained from scratch, else a hub name or a local folder.
        pretrained: load the weights that `name` stands for.
        vocab_size: of the tokenizer; ignored by nobody: a pretrained model must have at least as many.
        options: further settings of the model's configuration (hidden_size, num_hidden_layers, ...).
        attention: "eager" or "sdpa".

    Raises:
        ValueError: a pretrained vocabulary is smaller than the tokenizer's.
    """

    def __init__(
        self, *, name: str, pretrained: bool, vocab_size: int, options: dict[str, object], attention: str
    ) -> None:
        super().__init__()
        if pretrained:
            self.encoder = AutoModel.from_pretrained(
                name, add_pooling_layer=False, attn_implementation=attention, use_safetensors=True, **options
            )
        else:
            config = AutoConfig.for_model(name, vocab_size=vocab_size, **options)
            self.encoder = AutoModel.from_config(config, add_pooling_layer=False, attn_implementation=attention)
        if self.encoder.config.vocab_size < vocab_size:
            raise ValueError(f"{name} knows {self.encoder.config.vocab_size} tokens, the tokenizer makes {vocab_size}")
        self.width: int = self.encoder.config.hidden_size

    def forward(self, ids: Tensor, attended: Tensor) -> Tensor:
        """Encode texts.

        Args:
            ids: (B, L) token ids.
            attended: (B, L) bool, False = padding.

        Returns:
            (B, L, W).
        """
        encoded: Tensor = self.encoder(input_ids=ids, attention_mask=attended.long()).last_hidden_state
        return encoded
