"""Earlier versions of a pipeline's files that are still in DVC's cache."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def past_versions(output: Path) -> Iterator[Path]:
    """Every cached version of a file that some run wrote or read, each once; none outside a DVC repository.

    Args:
        output: the file's path as in `dvc.yaml`.

    Source: DVC's run cache (https://dvc.org/doc/user-guide/pipelines/run-cache), one record of hashes per run.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    cache = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or ".absent")  # noqa: S603
    entry = re.compile(rf"^- path: {re.escape(output.as_posix())}\n(?:  .*\n)*?  md5: ([0-9a-f]{{32}})$", re.MULTILINE)
    records = sorted(path for path in (cache / "runs").glob("*/*/*") if path.is_file())
    hashes = {md5 for record in records for md5 in entry.findall(record.read_text(encoding="utf8"))}
    for md5 in sorted(hashes):
        path = cache / "files" / "md5" / md5[:2] / md5[2:]
        if path.is_file():
            yield path
