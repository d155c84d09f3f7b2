"""Sections that stage `train_dvae` reads."""

from cots.config.dvae import DvaeSection
from cots.config.model import ModelSection
from cots.config.tokenize import TokenizeSection


class TrainDvaeParams(ModelSection, DvaeSection, TokenizeSection):
    """Sections that stage `train_dvae` reads."""
