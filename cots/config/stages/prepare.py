"""Sections that stage `prepare` reads."""

from cots.config.prepare import PrepareSection
from cots.config.source import SourceSection


class PrepareParams(SourceSection, PrepareSection):
    """Sections that stage `prepare` reads."""
