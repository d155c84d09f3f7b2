"""Sections that stage `index` reads."""

from cots.config.evaluate import EvaluateSection
from cots.config.index import IndexSection


class IndexParams(EvaluateSection, IndexSection):
    """Sections that stage `index` reads."""
