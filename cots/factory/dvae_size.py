"""The size of the crops that the dVAE tokenizes."""

from cots.config.stages.tokenize import TokenizeParams
from cots.config.stages.train_dvae import TrainDvaeParams
from cots.models.dvae.vae import DOWNSAMPLING


def dvae_image_size(params: TokenizeParams | TrainDvaeParams) -> int:
    """Pixels along a side of the dVAE's crops: one visual token for each patch of the image encoder."""
    return params.model.image.grid * DOWNSAMPLING
