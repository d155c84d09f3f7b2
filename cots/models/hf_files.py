"""Loading with transformers: silence, what lies beside a checkpoint, and errors in one line."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging
from transformers.utils.hub import cached_file

from cots.errors import BadInput

REASON_CHARS = 160  # of another library's message, which may list every known model


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no report of loading within this context; missing weights are checked by the caller."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def published_pool(name: str) -> str:
    """How a checkpoint pools its tokens: as sentence-transformers' file beside it says, by default "class".

    Raises:
        BadInput: the file is damaged.
    """
    file = cached_file(
        name,
        "1_Pooling/config.json",
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    try:
        settings = json.loads(Path(file).read_text(encoding="utf8")) if file else {}
    except ValueError as error:
        raise BadInput(f"model.text: {file} is damaged: {error}") from None
    if settings.get("pooling_mode_mean_tokens") or settings.get("pooling_mode") == "mean":
        return "mean"
    return "last" if settings.get("pooling_mode_lasttoken") or settings.get("pooling_mode") == "lasttoken" else "class"


def summarize_error(error: Exception) -> str:
    """Type and first line of another library's error."""
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0][:REASON_CHARS]}"
