"""Exports both encoders as ONNX files, which run without this project and without torch."""

import importlib.util
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from cots.errors import BadInput
from cots.files import atomic_folder
from cots.models.dual_encoder import DualEncoder
from cots.models.encoder import ImageEncoder, TextEncoder
from cots.models.model_folder import CONFIG, TOKENIZER

IMAGE_ONNX, TEXT_ONNX = "image.onnx", "text.onnx"
REQUIRED_PACKAGES = ("onnx", "onnxscript")  # torch.onnx writes files with them
EXAMPLES = 2  # rows of the traced batch; torch would take a dimension of 1 for a constant
EXAMPLE_TOKENS = 5


class ImageTower(nn.Module):
    """Images to unit vectors in a single batch, because its size is not known when the graph is traced."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode normalized images (B, 3, H, W) to (B, D)."""
        return self.encoder.project(self.encoder.pool_tokens(self.encoder.backbone(pixel_values)))


class TextTower(nn.Module):
    """Token ids to unit vectors, with an integer attention mask, as tokenizers return it."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Encode (B, L) token ids to (B, D)."""
        embeddings: Tensor = self.encoder(input_ids, attention_mask.bool())
        return embeddings


def export_onnx(model: DualEncoder, folder: Path) -> None:
    """Write both encoders as ONNX files, beside configuration (image size, mean, std) and tokenizer.

    `image.onnx`: `pixel_values` (B, 3, H, W), float32, to `image_embeds` (B, D). `text.onnx`: `input_ids` and
    `attention_mask` (B, L), int64, to `text_embeds` (B, D). Rows are unit vectors. B is any number, and so is L up to
    `max_tokens`; models that read padding, such as SigLIP, need L = `max_tokens`.

    Args:
        model: freshly loaded, because `for_inference` rounds the weights.
        folder: the output folder; it is replaced if it exists.

    Raises:
        BadInput: the extra `onnx` is not installed, or torch cannot write such a model.
    """
    if missing := [name for name in REQUIRED_PACKAGES if importlib.util.find_spec(name) is None]:
        raise BadInput(f"ONNX needs {' and '.join(missing)}: `pip install cots[onnx]`")
    model.to(torch.device("cpu"))
    size, length = model.config["image"]["size"], model.text_length
    tokens = torch.ones(EXAMPLES, length or EXAMPLE_TOKENS, dtype=torch.int64)
    batch = Dim("batch", min=1)
    rows = {0: batch}
    text_axes = rows if length else rows | {1: Dim("tokens", min=1, max=model.config["text"]["max_tokens"])}
    with atomic_folder(folder) as partial:
        _export(
            ImageTower(model.image),
            {"pixel_values": torch.zeros(EXAMPLES, 3, size, size)},
            {"pixel_values": rows},
            partial / IMAGE_ONNX,
            output="image_embeds",
        )
        _export(
            TextTower(model.text),
            {
                "input_ids": tokens,
                "attention_mask": tokens.clone(),
            },  # torch would merge inputs that are the same tensor
            {"input_ids": text_axes, "attention_mask": text_axes},
            partial / TEXT_ONNX,
            output="text_embeds",
        )
        (partial / CONFIG).write_text(json.dumps(model.config, indent=1, sort_keys=True), encoding="utf8")
        model.tokenizer.save_pretrained(partial / TOKENIZER)


def _export(
    tower: nn.Module, inputs: dict[str, Tensor], axes: dict[str, dict[int, Dim]], file: Path, *, output: str
) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch warns about how it traces
        program = torch.export.export(tower.eval(), (), inputs, dynamic_shapes=axes)
        torch.onnx.export(program, f=file, output_names=[output], external_data=False, verbose=False)
