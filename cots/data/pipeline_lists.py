"""Whether a project's pipeline reads the lists of verdicts and changes: those of before release 0.3 do not."""

from pathlib import Path

from cots.errors import BadInput
from cots.file_names import CHANGES_PATH, VERDICTS_PATH
from cots.project_files import PIPELINE_FILE

ARGUMENTS = f"{VERDICTS_PATH} {CHANGES_PATH}"  # the last ones of stage `prepare`, which tells them apart by their order


def require_lists(project: Path) -> None:
    """Check that stage `prepare` of a project reads verdicts.csv and changes.jsonl.

    Raises:
        BadInput: it does not; the message says what to write.
    """
    try:
        pipeline = (project / PIPELINE_FILE).read_text(encoding="utf8")
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{project} has no {PIPELINE_FILE} that can be read ({error}): name a project's folder"
        ) from None
    if ARGUMENTS not in " ".join(pipeline.split()):  # the command may be folded anywhere
        raise BadInput(
            f"{PIPELINE_FILE} is of an earlier release: end `cmd` of stage prepare with `{ARGUMENTS}` and that of "
            f'validate with `{VERDICTS_PATH}`, see "A project of before 0.3" in docs/operate.md'
        )
