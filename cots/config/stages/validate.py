"""Sections that stage `validate` reads."""

from cots.config.evaluate import EvaluateSection
from cots.config.index import IndexSection
from cots.config.prepare import PrepareSection
from cots.config.validate import ValidateSection


class ValidateParams(PrepareSection, ValidateSection, EvaluateSection, IndexSection):
    """Sections that stage `validate` reads."""
