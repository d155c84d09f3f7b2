"""Sections that stage `tokenize` reads."""

from cots.config.model import ModelSection
from cots.config.tokenize import TokenizeSection


class TokenizeParams(ModelSection, TokenizeSection):
    """Sections that stage `tokenize` reads."""
