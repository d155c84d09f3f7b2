"""The architecture of OpenAI's discrete VAE, whose codes the paper's token level predicts; weights are imported."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUPS = 4  # the resolution is halved between them: three times, 8 in all
SHORTLIST = 4  # codes; against float32 over all codes, 2 gave another code at 0.3 % of 1,568 positions, 4 at none
MARGIN = 0.1  # pixels are mapped to [0.1, 0.9], where the logit is finite


class Bottleneck(nn.Module):
    """Four convolutions through a quarter of the channels, added with a small gain.

        shortcut(x) + gain * path(x)

    Args:
        before: channels in; after: channels out, a multiple of 4.
        kernels: sides of the four convolutions, odd.
        gain: weight of the path.
    """

    def __init__(self, before: int, after: int, *, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        self.gain = gain
        self.shortcut = nn.Conv2d(before, after, 1) if before != after else nn.Identity()
        widths = pairwise((before, after // 4, after // 4, after // 4, after))
        path: OrderedDict[str, nn.Module] = OrderedDict()
        for number, ((channels_in, channels_out), kernel) in enumerate(zip(widths, kernels, strict=True), start=1):
            path[f"relu_{number}"] = nn.ReLU(inplace=number > 1)  # the shortcut needs the first one's input
            path[f"conv_{number}"] = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
        self.path = nn.Sequential(path)

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) to (B, after, H, W)."""
        return torch.add(self.shortcut(x), self.path(x), alpha=self.gain)


def bottlenecks(
    first: nn.Module, last: nn.Module, *, widths: Sequence[int], kernels: Sequence[int], blocks: int, resize: nn.Module
) -> nn.Sequential:
    """A convolution, four groups of bottlenecks with a change of resolution between them, a convolution.

    Args:
        first: to `widths[0]` channels; last: from `widths[-1]` channels.
        widths: channels before the first group and after each of the four.
        kernels: of each bottleneck; blocks: bottlenecks per group.
        resize: after every group except the last; without weights.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(input=first)
    for number, (before, after) in enumerate(pairwise(widths), start=1):
        group: OrderedDict[str, nn.Module] = OrderedDict()
        for block in range(blocks):
            entering = after if block else before
            group[f"block_{block + 1}"] = Bottleneck(entering, after, kernels=kernels, gain=1 / (GROUPS * blocks) ** 2)
        if number < GROUPS:
            group["resize"] = resize
        layers[f"group_{number}"] = nn.Sequential(group)
    return nn.Sequential(layers | OrderedDict(relu=nn.ReLU(), output=last))


class OpenAiDvae(nn.Module):
    """Encoder to code logits, decoder from codes to logit-Laplace parameters; one code per 8 x 8 pixels.

    Args:
        num_codes: codebook size (V), at least 4; 8,192 as published.
        hidden: channels at full resolution, a multiple of 4, 256 as published; twice as many at each lower one.
        start: channels of a code's embedding in the decoder, 128 as published.
        blocks: bottlenecks in each of the four groups, 2 as published.

    Source: DALL-E, arXiv:2102.12092, appendix A.
    """

    def __init__(self, *, num_codes: int, hidden: int, start: int, blocks: int) -> None:
        super().__init__()
        self.num_codes = num_codes
        self.settings = {"num_codes": num_codes, "hidden": hidden, "start": start, "blocks": blocks}
        rising = [hidden * 2**level for level in range(GROUPS)]
        self.encoder = bottlenecks(
            nn.Conv2d(3, hidden, 7, padding=3),
            nn.Conv2d(rising[-1], num_codes, 1),
            widths=[hidden, *rising],
            kernels=(3, 3, 3, 1),
            blocks=blocks,
            resize=nn.MaxPool2d(2),
        )
        self.decoder = bottlenecks(
            nn.Conv2d(num_codes, start, 1),
            nn.Conv2d(hidden, 6, 1),
            widths=[start, *reversed(rising)],
            kernels=(1, 3, 3, 3),
            blocks=blocks,
            resize=nn.Upsample(scale_factor=2),
        )

    def encode(self, pixels: Tensor) -> Tensor:
        """Codes of images: (B, 3, H, W) in [0, 1], H and W multiples of 8, to (B, H / 8, W / 8) integers.

        The encoder's last convolution, 1 x 1, is a matrix product. Under autocast its rounding often makes the highest
        of 8,192 logits equal, so float32 decides among the highest few. Computing all of them in float32 would cost a
        third of the whole encoder.
        """
        features = self.encoder[:-1]((1 - 2 * MARGIN) * pixels + MARGIN).movedim(1, -1)  # (B, h, w, 8 hidden)
        weight, bias = self.encoder.get_parameter("output.weight").flatten(1), self.encoder.get_parameter("output.bias")
        shortlist = F.linear(features, weight, bias).topk(SHORTLIST).indices  # (B, h, w, SHORTLIST)
        logits = (features.float().unsqueeze(-2) * weight[shortlist]).sum(dim=-1) + bias[shortlist]
        return shortlist.gather(-1, logits.argmax(dim=-1, keepdim=True)).squeeze(-1)

    def logit_laplace(self, codes: Tensor) -> Tensor:
        """Mean (3 channels) and log-scale (3) of each pixel's logit: (B, h, w) codes to (B, 6, 8 h, 8 w).

        The decoder's first convolution on one-hot codes selects a column of its weights, so it is a lookup here: with
        8,192 codes the one-hot image would be the largest tensor of all.
        """
        table = self.decoder.get_parameter("input.weight").flatten(1).T  # (V, start)
        embedded = F.embedding(codes, table) + self.decoder.get_parameter("input.bias")  # (B, h, w, start)
        stats: Tensor = self.decoder[1:](embedded.movedim(-1, 1))
        return stats.float()

    def decode(self, codes: Tensor) -> Tensor:
        """The mean image of codes: (B, h, w) to (B, 3, 8 h, 8 w) in [0, 1]."""
        mapped = self.logit_laplace(codes)[:, :3].sigmoid()
        return ((mapped - MARGIN) / (1 - 2 * MARGIN)).clamp(0, 1)
