"""Languages of captions as BCP 47 tags, one for each caption."""

import math
import re
from collections.abc import Iterable

TAG = re.compile(r"[a-z]{2,3}(-[a-z0-9]{1,8})*", re.IGNORECASE)


def parse_language(text: str) -> str:
    """A BCP 47 tag in its usual spelling, such as `en`, `pt-BR` or `zh-Hans`; an empty text stays empty.

    Raises:
        ValueError: it is none.

    Source: RFC 5646, section 2.1.1 on upper and lower case; as elsewhere, `_` is taken for `-`.
    """
    tag = text.strip().replace("_", "-")
    if tag and not TAG.fullmatch(tag):
        raise ValueError(
            f"{text[:40]!r} is no BCP 47 tag such as en or zh-Hans; source.language_column: null makes it metadata"
        )
    language, *subtags = tag.lower().split("-")
    cases = {2: str.upper, 4: str.title}
    return "-".join([language, *(cases.get(len(subtag), str)(subtag) for subtag in subtags)])


def parse_languages(value: object, *, num_captions: int) -> tuple[str, ...]:
    """The languages of a sample's captions; `()` if none is known.

    Args:
        value: a tag for all captions, or a list with one for each; None and empty texts are unknown languages.
        num_captions: how many captions there are.

    Raises:
        ValueError: a tag is none, or there is another number of them.
    """
    values = list(value) if isinstance(value, list | tuple) else [value] * num_captions
    if len(values) != num_captions and any(values):
        raise ValueError(f"{len(values)} languages for {num_captions} captions")
    tags = tuple(parse_language("" if _is_missing(tag) else str(tag)) for tag in values)
    return tags if any(tags) else ()


def mostly_tags(values: Iterable[object]) -> bool:
    """Whether at least half of the values of a column that name a language are tags.

    Args:
        values: as in `parse_languages`.
    """
    flat = [tag for value in values for tag in (value if isinstance(value, list | tuple) else [value])]
    named = [str(tag).strip().replace("_", "-") for tag in flat if not _is_missing(tag) and str(tag).strip()]
    return 2 * sum(bool(TAG.fullmatch(tag)) for tag in named) >= len(named)


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))
