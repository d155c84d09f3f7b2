"""Stage `tokenize`: random crops of every training sample with their visual tokens, and the text tokenizer."""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cots.batching import batched
from cots.config.renamed import dump_for_fingerprint
from cots.config.stages.tokenize import TokenizeParams
from cots.config.tokenize import TokenizeConfig
from cots.data.crop_views import CropViews
from cots.data.manifest import read_split, sample_captions
from cots.data.random_crop import crop, draw_view
from cots.data.samples import StoredSample
from cots.data.shards import read_shard
from cots.data.store import finish_list, follow_store, has_part, keep_part
from cots.data.tokenizer import MAX_COUNTED, describe_unknown
from cots.data.wordpiece import train_tokenizer
from cots.devices import autocast, default_device
from cots.distributed import barrier, rank, world_size
from cots.errors import exit_on_error
from cots.factory.dvae_size import dvae_image_size
from cots.fingerprint import clear_unless_current, fingerprint
from cots.init_distributed import SHARDS_TIMEOUT, init_distributed
from cots.models.dvae.io import AnyDvae, load_dvae
from cots.models.dvae.pixels import to_pixels
from cots.progress import Progress


def stage(shards: Path, manifest: Path, dvae: Path, out: Path, tokenizer: Path, *, params: TokenizeParams) -> None:
    """Tokenize shard by shard, shards split over ranks; shards that an interrupted run finished are reused."""
    sizes = read_split(manifest, "train", columns=["shard"]).groupby("shard").size()
    if rank() == 0:
        sections = {"tokenize": params.tokenize, "model.image": params.model.image}
        values = [dump_for_fingerprint(section, name) for name, section in sections.items()]
        if params.model.text.pretrained:
            tokenizer.mkdir(parents=True, exist_ok=True)  # stays empty: the text encoder brings its own
        else:
            captions = read_split(manifest, "train", columns=["captions"])["captions"]
            trained = train_tokenizer(captions.explode(), vocab_size=params.model.text.vocab_size)
            trained.save_pretrained(tokenizer)
            if unknown := describe_unknown(trained, [sample_captions(manifest, MAX_COUNTED)], pretrained=False):
                print(f"tokenize: {unknown}", file=sys.stderr)
        clear_unless_current(fingerprint(values, dvae, manifest), out)
        follow_store(out, of=shards)
    barrier()
    model = load_dvae(dvae).to(default_device()).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    own_shards = list(sizes.items())[rank() :: world_size()]
    with Progress("tokenize", total=sum(size for _, size in own_shards), unit="samples") as progress:
        for name, size in own_shards:
            path = (out / str(name)).with_suffix(".safetensors")
            if not has_part(path):
                samples = read_shard(shards / str(name))
                tokenize_crops(samples, model, params.tokenize, size=dvae_image_size(params)).save(path)
                keep_part(path)
            progress.advance(size)
    barrier()
    if rank() == 0:
        finish_list(out)
    barrier()


def tokenize_crops(samples: Iterator[StoredSample], dvae: AnyDvae, section: TokenizeConfig, *, size: int) -> CropViews:
    """Draw crops of one shard's samples and tokenize them; a sample's crops depend only on the seed and its key."""
    frames: list[int] = []
    boxes: list[tuple[float, ...]] = []
    tokens: list[NDArray[np.uint16]] = []

    def crops() -> Iterator[NDArray[np.uint8]]:
        for sample in samples:
            rng = np.random.default_rng((section.seed, int(sample.key)))
            for _ in range(section.crops_per_image):
                number, frame, box = draw_view(rng, sample, scale=section.scale, ratio=section.ratio)
                frames.append(number)
                boxes.append(box)
                yield crop(frame, box, size)

    with torch.inference_mode(), autocast(default_device()):
        for batch in batched(crops(), section.batch_size):
            codes = dvae.encode(to_pixels(np.stack(batch), default_device()))
            tokens.extend(codes.flatten(1).cpu().numpy().astype(np.uint16))
    return CropViews(
        frames=np.array(frames, dtype=np.uint16).reshape(-1, section.crops_per_image),
        boxes=np.array(boxes, dtype=np.float32).reshape(-1, section.crops_per_image, 4),
        tokens=np.stack(tokens).reshape(len(tokens) // section.crops_per_image, section.crops_per_image, -1),
    )


if __name__ == "__main__":
    with exit_on_error(), init_distributed(timeout=SHARDS_TIMEOUT):
        stage(*map(Path, sys.argv[1:]), params=TokenizeParams.load())
