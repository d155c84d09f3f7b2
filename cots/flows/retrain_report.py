"""What a run leaves behind for people: one page in Prefect, and the line of its final state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from cots.flows.commands import CommandResult
from cots.flows.markdown import table
from cots.flows.parent_run import end_open_runs, run_page
from cots.registry.client import INDEX
from cots.registry.registry import Registry
from cots.registry.versions import VersionInfo, deployed, under

DECISION = "gate.reasons"  # the tag that the gate leaves on a version


@dataclass
class RetrainReport:
    """What is known of a run so far.

    Attributes:
        before: the versions that were registered when it began.
        after: those that were when it had published.
        stale: stages that were not up to date when it began.
        steps: what was called, in its order.
        error: why it ended early.
    """

    before: Sequence[VersionInfo]
    after: Sequence[VersionInfo] = ()
    stale: Sequence[str] = ()
    steps: list[tuple[str, CommandResult]] = field(default_factory=list)
    error: str = ""

    def add(self, step: str, ended: CommandResult) -> None:
        """Keep what a step took and said."""
        self.steps.append((step, ended))

    def conclude(self, said: CommandResult) -> None:
        """Keep what publishing said, and which versions there are now."""
        self.add("publish", said)
        self.after = Registry().versions()

    @property
    def outcome(self) -> str:
        """One line: the error, or what became of the package."""
        if self.error:
            return self.error
        prefix = "" if self.stale else "no stage was stale: "
        return prefix + (self.steps[-1][1].output or ("done",))[-1]

    def markdown(self) -> str:
        """The page."""
        stale = ", ".join(self.stale) or "nothing"
        rows = [(name, _did(ended.output), f"{ended.seconds:.1f}") for name, ended in self.steps]
        parts = [
            self.outcome,
            f"**Stale when it began:** {stale}",
            table(("step", "what it did", "seconds"), rows),
        ]
        return "\n\n".join([*parts, *self._version()]) + "\n"

    def _version(self) -> list[str]:
        """The new version against what was deployed before it."""
        decided = {one.version for one in self.before if DECISION in one.tags}
        new = next((one for one in self.after if DECISION in one.tags and one.version not in decided), None)
        if new is None:
            return []
        decision = f"**{INDEX} version {new.version}:** {new.tags[DECISION]}"
        return [decision, _metrics(new, deployed(self.before)), "**MLflow runs**", _runs(new.tags)]


@contextmanager
def report_run(key: str) -> Iterator[RetrainReport]:
    """Leave a page when the run ends, well or not; its key in Prefect is the flow's name."""
    end_open_runs()
    report = RetrainReport(Registry().versions())
    try:
        yield report
    except BaseException as error:
        report.error = f"{type(error).__name__}: {error}"
        with suppress(PrefectException, OSError):  # the error is what counts
            create_markdown_artifact(report.markdown(), key)
        raise
    create_markdown_artifact(report.markdown(), key)


def _did(said: Sequence[str]) -> str:
    """In DVC's words: a stage that ran, was restored from what was made before, or had not changed."""
    text = "\n".join(said)
    if "Running stage" in text:
        return "ran"
    return "restored" if "is cached - skipping run" in text else (said[-1] if said else "").replace("|", "\\|")


def _metrics(new: VersionInfo, champion: VersionInfo | None) -> str:
    names = sorted(name for name in new.tags if name.startswith("metrics.") and not name.startswith("metrics.chance."))
    before = champion.tags if champion else {}
    head = ("metric", "this version", f"version {champion.version}" if champion else "no champion", "difference")
    return table(head, [_compared(name, new.tags, before) for name in names])


def _compared(name: str, new: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    title, value = name.removeprefix("metrics."), new[name]
    if name not in before:
        return title, value, "-", "-"
    try:
        return title, value, before[name], f"{float(value) - float(before[name]):+.3f}"
    except ValueError:  # a figure that is no number
        return title, value, before[name], "-"


def _runs(tags: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {run_page(run)}" for name, run in under(tags, "run.").items()) or "- none"
