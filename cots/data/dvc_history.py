"""Files that an earlier run of the pipeline made, as DVC's cache still holds them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


def past_versions(output: Path) -> Iterator[Path]:
    """Every version of a file that some run here made or read, each once; none where there is no DVC repository.

    Args:
        output: a file as `dvc.yaml` names it.

    Source: DVC's run cache (https://dvc.org/doc/user-guide/pipelines/run-cache), one record of hashes a run.
    """
    command = [sys.executable, "-m", "dvc", "cache", "dir"]
    cache = Path(subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or ".absent")  # noqa: S603
    entry = re.compile(rf"^- path: {re.escape(output.as_posix())}\n(?:  .*\n)*?  md5: ([0-9a-f]{{32}})$", re.MULTILINE)
    records = sorted(path for path in (cache / "runs").glob("*/*/*") if path.is_file())
    hashes = {found for record in records for found in entry.findall(record.read_text(encoding="utf8"))}
    for digest in sorted(hashes):
        path = cache / "files" / "md5" / digest[:2] / digest[2:]
        if path.is_file():
            yield path
