"""The dVAE's training crops from their configuration."""

from pathlib import Path

from cots.config.stages.train_dvae import TrainDvaeParams
from cots.data.manifest import read_split
from cots.data.random_crops import RandomCrops
from cots.decode_threads import num_decode_threads
from cots.devices import default_device
from cots.errors import BadInput
from cots.factory.dvae_size import dvae_image_size


def build_dvae_crops(manifest: Path, shards: Path, params: TrainDvaeParams) -> RandomCrops:
    """Crops of all training samples, of the same distribution as those that `tokenize` cuts."""
    train = read_split(manifest, "train", columns=["shard"])
    if len(train) < params.dvae.batch_size:
        raise BadInput(f"{len(train)} training samples in {manifest}: dvae.batch_size is {params.dvae.batch_size}")
    return RandomCrops(
        shards=tuple(shards / name for name in sorted(train["shard"].unique())),
        num_samples=len(train),
        batch_size=params.dvae.batch_size,
        size=dvae_image_size(params),
        scale=params.tokenize.scale,
        ratio=params.tokenize.ratio,
        seed=params.dvae.seed,
        threads=num_decode_threads(default_device()),
    )
