"""Sections that stage `pretrain` reads."""

from cots.config.dvae import DvaeSection
from cots.config.model import ModelSection
from cots.config.training import PretrainSection


class PretrainParams(ModelSection, DvaeSection, PretrainSection):
    """Sections that stage `pretrain` reads."""
