"""Sections that stage `finetune` reads."""

from cots.config.dvae import DvaeSection
from cots.config.training import FinetuneSection


class FinetuneParams(DvaeSection, FinetuneSection):
    """Sections that stage `finetune` reads."""
