"""Asks templates or a language model for captions of labels, and appends each answer to a file."""

import os
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cots.data.descriptions import PLACE, Answer, format_answer, is_answer, read_answers
from cots.data.samples import is_utf8
from cots.files import locked
from cots.progress import Progress

LINE_START = b'{"label": "'  # of every line that is written here
SENTENCE = re.compile(r".*[.!?。！？…]", re.DOTALL)  # up to the last end of a sentence


class Maker(Protocol):
    """Makes captions of a label.

    Attributes:
        model: name of the language model; None for templates.
        settings: what else its answers depend on.
        parallel: how many labels it is asked for at a time.
    """

    model: str | None
    settings: Mapping[str, Any]
    parallel: int

    def __call__(self, label: str, prompt: str) -> Sequence[str]:
        """The captions as they come; `prompt` has `PLACE` for the label. The same question gets the same answer."""
        ...


class Templates:
    """The prompt itself, with the label in its place, is the caption."""

    model: str | None = None
    settings: Mapping[str, Any] = {}
    parallel = 1

    def __call__(self, label: str, prompt: str) -> Sequence[str]:
        """The only caption."""
        return [prompt.replace(PLACE, label)]


class Described(NamedTuple):
    """What was asked: numbers of answers that are new, that the file had before, and that are new and of no use."""

    new: int
    before: int
    unusable: int  # no caption is left of them: blank, too long or not UTF-8


def describe(
    path: Path, labels: Iterable[str], prompts: Sequence[str], maker: Maker, *, max_caption_chars: int
) -> Described:
    """Ask for every label with every prompt, and append the answers to a file, each as soon as it is there.

    What the file has already is not asked again, and a line that was cut off by a killed process is: a run that goes on
    writes what an undisturbed one would, but for the dates.

    Args:
        path: of the file, which need not exist yet. Another process that writes to it is waited for.
        labels: each once.
        prompts: with `PLACE` for the label.
        maker: is asked.
        max_caption_chars: longer answers of a model are shortened to whole sentences, or left out.

    Raises:
        BadInput: the file is not a list of descriptions.
        RunFailed: a model gave no answer; what was answered before stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    with locked(path):
        _repair_last_line(path)
        known = {answer.question for answer in read_answers(path)}
        questions = [_ask(label, prompt, maker) for label in labels for prompt in prompts]
        new = [question for question in questions if question.question not in known]
        unusable = 0
        with path.open("a", encoding="utf8") as file, Progress("describe", total=len(new), unit="answers") as progress:
            for question, texts in _answers(new, maker):
                captions = tuple(texts) if maker.model is None else clean_captions(texts, max_chars=max_caption_chars)
                unusable += not captions
                file.write(format_answer(_answer(question, captions)))
                file.flush()
                os.fsync(file.fileno())
                progress.advance()
    return Described(len(new), len(questions) - len(new), unusable)


def clean_captions(texts: Iterable[str], *, max_chars: int) -> tuple[str, ...]:
    """The different captions in a model's answers, each on one line, without a last sentence that was cut off.

    Args:
        texts: answers as they come.
        max_chars: of a caption. A longer one ends with a sentence before that, or is left out if there is none.
    """
    captions = (_clean(text, max_chars) for text in texts if is_utf8(text))
    return tuple(dict.fromkeys(caption for caption in captions if 0 < len(caption) <= max_chars))


def _clean(text: str, max_chars: int) -> str:
    line = " ".join(text.split()).strip('"“” ')
    sentences = SENTENCE.match(line[:max_chars])
    if sentences and 2 * len(sentences[0]) >= min(len(line), max_chars):  # less may end with an abbreviation
        return sentences[0]
    return line


def _ask(label: str, prompt: str, maker: Maker) -> Answer:
    return Answer(label=label, prompt=prompt, model=maker.model, settings=maker.settings, captions=(), when="")


def _answer(question: Answer, captions: tuple[str, ...]) -> Answer:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return replace(question, captions=captions, when=now)


def _answers(questions: Iterable[Answer], maker: Maker) -> Iterator[tuple[Answer, Sequence[str]]]:
    """Each question with its answer, in order; a few are asked at a time."""
    pending = deque[tuple[Answer, Future[Sequence[str]]]]()
    pool = ThreadPoolExecutor(maker.parallel)
    try:
        for question in questions:
            pending.append((question, pool.submit(maker, question.label, question.prompt)))
            if len(pending) > maker.parallel:
                first, answer = pending.popleft()
                yield first, answer.result()
        while pending:
            first, answer = pending.popleft()
            yield first, answer.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _repair_last_line(path: Path) -> None:
    """Remove a line whose rest a killed process never wrote, and end a whole one that an editor left without an end.

    Any other file stays as it is: reading it says what is wrong.
    """
    with path.open("r+b") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        last = content[start:]
        if is_answer(last):
            file.write(b"\n")
        elif content.startswith(LINE_START[:1]) and last.startswith(LINE_START[: len(last)]):
            file.truncate(start)
