"""Files of words and probabilities from which sources draw: YAML, validated."""

from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cots.errors import BadInput


class YamlPart(BaseModel):
    """A mapping of the file; unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True)


P = TypeVar("P", bound=YamlPart)


def load_yaml(whole: type[P], path: Path, noun: str) -> P:
    """Read and validate a file.

    Args:
        whole: what it holds.
        path: the file.
        noun: what messages call it.

    Raises:
        BadInput: no such file, not YAML, or wrong keys or values.
    """
    try:
        return whole.model_validate(yaml.safe_load(path.read_text(encoding="utf8")))
    except OSError as error:
        raise BadInput(f"cannot read {noun} {path}: {error.strerror}; set source.path") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadInput(f"{noun} {path} is not YAML: {' '.join(str(error).split())}") from None
    except ValidationError as error:
        mistakes = [f"{'.'.join(map(str, e['loc'])) or 'the file'}: {e['msg']}" for e in error.errors()]
        raise BadInput(f"{path}: {len(mistakes)} mistake(s): " + "; ".join(mistakes)) from None
