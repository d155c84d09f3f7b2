"""`params.yaml`: a stage reads its own sections of it, and no stage goes stale by what it does not read."""

import logging
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from cots.config.renamed import first_names_used, present_names
from cots.config_base import completed
from cots.errors import BadInput

log = logging.getLogger(__name__)


class Sections(BaseModel):
    """Some sections of a parameter file; the others are not looked at."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _under_present_names(cls, values: Any) -> Any:  # noqa: ANN401  YAML
        return completed(cls, present_names(values)) if isinstance(values, dict) else values

    @classmethod
    def load(cls, path: Path = Path("params.yaml")) -> Self:
        """Read and check these sections of a parameter file; a renamed key is read, with a warning.

        Raises:
            BadInput: no such file, not YAML, or wrong keys and values; all mistakes in one message.
        """
        values = read_yaml(path)
        params = cls.parse(values, path)
        own = {name: section for name, section in values.items() if name in section_names(cls)}
        for first, present in dict(first_names_used(own)).items():
            log.warning("%s: %s is now called %s (cots init --upgrade)", path, first, present)
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
    """Names of the sections as they stand in the file."""
    return [field.alias or name for name, field in sections.model_fields.items()]


def read_yaml(path: Path) -> Any:  # noqa: ANN401  YAML
    """What a parameter file holds, unchecked.

    Raises:
        BadInput: no such file, or not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf8"))
    except FileNotFoundError:
        raise BadInput(
            f"no parameter file {path}: run in the project's folder, or write one with `cots init`"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"cannot read {path}: {error}") from None
    except yaml.YAMLError as error:
        raise BadInput(f"{path} is not YAML: {' '.join(str(error).split())}") from None
