"""descriptions.jsonl: captions made from labels by templates or language models, one answer a line.

`cots data describe` appends to it, and a source adds its captions to training samples (docs/labels.md).
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cots.data.samples import is_utf8
from cots.errors import BadInput

PLACE = "{label}"  # of the label in a template or prompt
DESCRIPTIONS = (
    "descriptions/made.jsonl"  # in a subfolder, because a source takes JSONL in its folder for a caption table
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one template or model made of one label.

    Attributes:
        label: of images or videos.
        prompt: with `PLACE` for the label; of a template, the caption itself.
        model: name of the language model; None for a template.
        settings: of the model, such as its temperature and seed.
        captions: what was made; none if the model had nothing usable to say.
        when: date and time, UTC, ISO 8601.
    """

    label: str
    prompt: str
    model: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    captions: tuple[str, ...]
    when: str

    @property
    def question(self) -> str:
        """What was asked of whom, as a key: the same question is not asked twice."""
        return json.dumps([self.label, self.prompt, self.model, dict(self.settings)], sort_keys=True)


ANSWER = TypeAdapter(Answer)


def read_answers(path: Path) -> list[Answer]:
    """Read the list.

    Raises:
        BadInput: no such file, or it is not such a list.
    """
    try:
        lines = path.read_bytes().split(b"\n")  # other ends of lines may stand in a text
        return [_parse_line(line, number) for number, line in enumerate(lines, start=1) if line.strip()]
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is not a list of descriptions ({error}): write it with `cots data describe`, which also repairs a "
            "line that was cut off, or set source.descriptions to null"
        ) from None


def format_answer(answer: Answer) -> str:
    """The answer's line."""
    return json.dumps(asdict(answer), ensure_ascii=False) + "\n"


def captions_by_label(answers: Iterable[Answer]) -> dict[str, tuple[str, ...]]:
    """All different captions of each label, in the order in which they were made."""
    captions: dict[str, dict[str, None]] = {}
    for answer in answers:
        captions.setdefault(answer.label, {}).update(dict.fromkeys(answer.captions))
    return {label: tuple(texts) for label, texts in captions.items()}


def is_answer(line: bytes) -> bool:
    """Whether a line is whole."""
    try:
        _parse_line(line, 0)
    except ValueError:
        return False
    return True


def _parse_line(line: bytes, number: int) -> Answer:
    try:
        answer = ANSWER.validate_json(line)
    except ValidationError as error:
        [first, *_] = error.errors()
        raise ValueError(f"line {number}: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    if not is_utf8("".join(answer.captions)):
        raise ValueError(f"line {number}: a caption is not UTF-8")
    return answer
