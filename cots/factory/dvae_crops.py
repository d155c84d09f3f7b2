"""The dVAE's training crops from their configuration."""

from pathlib import Path

from cots.config.stages.train_dvae import TrainDvaeParams
from cots.data.manifest import read_pieces
from cots.data.random_crops import RandomCrops
from cots.data.shard_rows import SHARD_COLUMNS, find_shard_rows
from cots.decode_threads import num_decode_threads
from cots.devices import default_device
from cots.errors import BadInput
from cots.factory.dvae_size import dvae_image_size


def build_dvae_crops(manifest: Path, shards: Path, params: TrainDvaeParams) -> RandomCrops:
    """Crops of all training samples, of the same distribution as those that `tokenize` cuts.

    Raises:
        BadInput: there are fewer samples than crops in a batch.
    """
    rows = find_shard_rows(read_pieces(manifest, SHARD_COLUMNS), ("image", "video"))
    number, batch_size = sum(map(len, rows.values())), params.dvae.batch_size
    if number < batch_size:
        raise BadInput(f"{number} training samples in {manifest}: dvae.batch_size is {batch_size}")
    return RandomCrops(
        shards=tuple(shards / name for name in rows),
        shard_rows=tuple(rows.values()),
        batch_size=batch_size,
        size=dvae_image_size(params),
        scale=params.tokenize.scale,
        ratio=params.tokenize.ratio,
        seed=params.dvae.seed,
        threads=num_decode_threads(default_device()),
    )
