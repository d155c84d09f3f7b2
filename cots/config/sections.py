"""Reads sections of `params.yaml`: a stage checks only its own, so that changes of others do not make it stale."""

import logging
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from yaml.constructor import ConstructorError

from cots.config.renamed import find_old_names, rename_keys
from cots.config_base import fill_defaults
from cots.errors import BadInput
from cots.project_files import PARAMS_FILE

MERGE = "tag:yaml.org,2002:merge"  # of the key <<, which takes the keys of other mappings
MAX_DEPTH = 100  # levels of mappings and lists in each other

log = logging.getLogger(__name__)


class Sections(BaseModel):
    """Some sections of a parameter file; others are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _rename_keys(cls, values: Any) -> Any:  # noqa: ANN401  YAML
        return fill_defaults(cls, rename_keys(values)) if isinstance(values, dict) else values

    @classmethod
    def load(cls, path: Path = PARAMS_FILE) -> Self:
        """Read and check these sections of a parameter file; old names of keys are accepted, with a warning each.

        Raises:
            BadInput: no such file, not YAML, or wrong keys and values; all mistakes in one message.
        """
        values = read_yaml(path)
        params = cls.parse(values, path)
        sections = {name: section for name, section in values.items() if name in section_names(cls)}
        for old, current in dict(find_old_names(sections)).items():
            log.warning("%s: %s is now called %s (cots init --upgrade)", path, old, current)
        return params

    @classmethod
    def parse(cls, values: object, path: Path) -> Self:
        """Check the plain values of a parameter file.

        Raises:
            BadInput: wrong keys and values; all mistakes in one message.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            mistakes = [f"{'.'.join(map(str, e['loc'])) or 'params'}: {e['msg']}" for e in error.errors()]
            raise BadInput(f"{path}: {len(mistakes)} mistake(s): " + "; ".join(mistakes)) from None


def section_names(sections: type[Sections]) -> list[str]:
    """Names of the sections in the file."""
    return [field.alias or name for name, field in sections.model_fields.items()]


def read_yaml(path: Path) -> Any:  # noqa: ANN401  YAML
    """Content of a parameter file, unchecked.

    Raises:
        BadInput: no such file, not YAML, a key that is there twice, or an alias that contains itself.
    """
    try:
        text = path.read_text(encoding="utf8")
        _require_shallow(text)
        return yaml.load(text, _Loader)  # noqa: S506  a safe one
    except FileNotFoundError:
        raise BadInput(
            f"no parameter file {path}: run in the project's folder, or write one with `cots init`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadInput(f"{path}{line}: {error.problem}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None


def _require_shallow(text: str) -> None:
    """LibYAML composes what is nested on the C stack, which no exception guards."""
    depth = 0
    for event in yaml.parse(text, yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise RecursionError(f"more than {MAX_DEPTH} levels")


class _Loader(yaml.CSafeLoader):
    """LibYAML's safe loader, eleven times as fast as the one in Python, that also refuses what no parameter file means.

    That is repeated keys and aliases of themselves.
    """

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.deep_construct = True  # of its two ways, the one that raises where an alias contains itself

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode) and key.tag != MERGE):
            if key.value in lines:
                problem = f"{key.value} is there a second time, first in line {lines[key.value]}"
                raise ConstructorError(None, None, problem, key.start_mark)
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)
