"""What another process prints, passed on line by line."""

import os
import selectors
import subprocess
import sys
from collections.abc import Iterator


def whole_lines(process: subprocess.Popen[bytes]) -> Iterator[tuple[int, bytes]]:
    """Whole lines of a process until it closes its streams: the number of the stream, 1 or 2, and one or more lines.

    Args:
        process: with pipes for standard output and standard error.
    """
    rests = {1: b"", 2: b""}
    with selectors.DefaultSelector() as selector:
        for number, stream in ((1, process.stdout), (2, process.stderr)):
            assert stream
            selector.register(stream, selectors.EVENT_READ, number)
        while selector.get_map():
            for key, _ in selector.select():
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    selector.unregister(key.fileobj)
                lines, newline, rests[key.data] = (rests[key.data] + chunk).rpartition(b"\n")
                if newline:
                    yield key.data, lines + newline
    yield from ((number, rest + b"\n") for number, rest in rests.items() if rest)


def print_lines(number: int, lines: bytes) -> None:
    """Print lines to this process's standard output (1) or standard error (2)."""
    stream = {1: sys.stdout, 2: sys.stderr}[number]
    stream.buffer.write(lines)
    stream.flush()
