"""A source in parts: samples that one process reads together, without the others."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from operator import length_hint
from typing import NamedTuple, Protocol, runtime_checkable

from cots.batching import batched
from cots.data.samples import Sample
from cots.digests import bytes_digest

PART_SIZE = 500  # samples; 1 to 4 s of one core for images


class Part(NamedTuple):
    """Samples of a source that are read together, apart from all others.

    Attributes:
        name: what tells that another process sees the same part in this place.
        read: gives the samples, each time that it is called.
        state: what they depend on besides the source's keys, without reading them: equal states mean equal samples.
            None if the samples are at hand, so that each of them can tell.
    """

    name: str
    read: Callable[[], Iterator[Sample]]
    state: Callable[[], object] | None = None


class Source(Protocol):
    """What reads the samples of a data set."""

    def read(self) -> Iterator[Sample]:
        """All samples, in their order."""


@runtime_checkable
class PartedSource(Protocol):
    """A source whose samples are costly to list, because their contents come with them."""

    def parts(self) -> Iterator[Part]:
        """The parts, in the order in which `read` gives their samples; nothing of a part is read yet."""


def parts_of(source: Source) -> tuple[Iterator[Part], int | None]:
    """The parts of a source, and how many samples all of them have, if that is known.

    A source that does not cut itself is listed as a whole, and cut after every `PART_SIZE` samples.
    """
    if isinstance(source, PartedSource):
        return source.parts(), None
    samples = source.read()
    return map(_part_of, batched(samples, PART_SIZE)), length_hint(samples) or None


def _part_of(samples: Iterable[Sample]) -> Part:
    names = "\n".join(sample.id for sample in samples)
    return Part(bytes_digest(names.encode(errors="backslashreplace")), partial(iter, samples))
