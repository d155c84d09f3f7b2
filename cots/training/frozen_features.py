"""Computes what the frozen image blocks give for the crop views of a run, before its first step."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from cots.batching import batched
from cots.data.crop_views import CropViews
from cots.data.frozen_features import FrozenFeatures
from cots.data.loader import TrainLoader
from cots.data.store import part_digest
from cots.devices import autocast
from cots.distributed import barrier, rank, world_size
from cots.errors import BadInput
from cots.files import atomic_file
from cots.fingerprint import fingerprint
from cots.models.encoder import ImageEncoder
from cots.models.model_folder import update_digest
from cots.models.pixels import normalize_pixels
from cots.progress import Progress

BATCH_SIZE = 128  # crops encoded together
PixelStats = tuple[tuple[float, ...], tuple[float, ...]]


def with_frozen_features(
    loader: TrainLoader, image: ImageEncoder, folder: Path, *, num_views: int, pixel_stats: PixelStats
) -> TrainLoader:
    """A loader that gives the tokens after the frozen image blocks in place of pixels; they are computed here, once.

    The tokens of each shard are a file, named by a digest of everything that they depend on: a later run with the same
    frozen blocks, views and shard finds it. Files that this run does not need are removed.

    Args:
        loader: the run's loader.
        image: image encoder with frozen blocks; it takes their output in place of pixels from now on.
        folder: where the files lie.
        num_views: number of crop views of each sample to use, at most as many as there are.
        pixel_stats: mean and standard deviation by channel.

    Raises:
        BadInput: the backbone cannot be split between its blocks, or its tokens are too large for half precision.
    """
    trained = [any(weight.requires_grad for weight in block.parameters()) for block in image.backbone.blocks]
    image.num_lower_blocks = [*trained, True].index(True)
    loader = replace(loader, num_views=min(num_views, loader.num_views))
    settings = [_digest_lower_weights(image), pixel_stats, loader.size, loader.num_views]
    files = [
        folder / f"{fingerprint(settings, part_digest(shard), part_digest(views))}.npy"
        for shard, views in zip(loader.shards, loader.views, strict=True)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    if rank() == 0:
        for file in {*folder.iterdir()} - {*files}:
            file.unlink()
    barrier()
    own_shards = [shard for shard, file in enumerate(files) if not file.exists()][rank() :: world_size()]
    if own_shards:
        with Progress("frozen features", total=len(own_shards), unit="shards") as progress:
            for shard in own_shards:
                with atomic_file(files[shard]) as partial:
                    _write_shard(partial, loader, image, shard, pixel_stats)
                progress.advance()
    barrier()
    return replace(loader, frozen_features=FrozenFeatures(files))


@torch.no_grad()
def _write_shard(path: Path, loader: TrainLoader, image: ImageEncoder, shard: int, pixel_stats: PixelStats) -> None:
    """Write (V, S, L, W): the tokens after the frozen blocks, for every view of every sample of a shard."""
    mean, std = pixel_stats
    device = image.projection.weight.device
    num_samples = len(CropViews.load(loader.views[shard]).frames)
    features = None
    for view in range(loader.num_views):
        for number, batch in enumerate(batched(loader.read_views(shard, view), BATCH_SIZE)):
            pixels = np.stack([loader.crop_frames(sample, [sample.frame])[0] for sample in batch])
            images = normalize_pixels(pixels, mean=mean, std=std, device=device)
            with autocast(device):
                chunks = torch.split(images, image.backbone.micro_batch_size(images))
                tokens = torch.cat([image.backbone.encode_lower(chunk, image.num_lower_blocks) for chunk in chunks])
            if not (tokens := tokens.half()).isfinite().all():
                raise BadInput(
                    "cached_views: the output of the frozen blocks is too large for half precision: set it to 0"
                )
            if features is None:
                shape = (loader.num_views, num_samples, *tokens.shape[1:])
                features = np.lib.format.open_memmap(path, mode="w+", dtype=np.float16, shape=shape)
            features[view, number * BATCH_SIZE : number * BATCH_SIZE + len(batch)] = tokens.cpu().numpy()


def _digest_lower_weights(image: ImageEncoder) -> str:
    """Digest of the frozen weights and of how they were built, without the mask token: no image is masked here."""
    backbone = image.backbone
    sha = hashlib.sha256(json.dumps([backbone.name, backbone.options, image.num_lower_blocks]).encode())
    for name, weight in backbone.named_parameters():
        if not weight.requires_grad and name != "mask_token":
            update_digest(sha, name, weight)
    return sha.hexdigest()
