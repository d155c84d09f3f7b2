"""The report of a flow run: a Markdown artifact in Prefect and the message of its final state."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from prefect.artifacts import create_markdown_artifact
from prefect.exceptions import PrefectException

from cots.flows.alerts import REFUSED, report_event
from cots.flows.commands import CommandResult
from cots.flows.markdown import table
from cots.flows.parent_run import end_open_runs, format_run_link
from cots.markdown import escape_markdown
from cots.registry.client import INDEX
from cots.registry.registry import Registry
from cots.registry.versions import VersionInfo, are_comparable, find_champion, select_tags

DECISION = "gate.reasons"  # tag that the gate sets on a version


@dataclass
class RetrainReport:
    """What a flow run has done so far.

    Attributes:
        before: versions registered when the run began.
        after: versions registered after publishing.
        stale: stages that were out of date when the run began.
        steps: names and results of the commands, in order.
        error: why the run ended early; empty if it did not.
    """

    before: Sequence[VersionInfo]
    after: Sequence[VersionInfo] = ()
    stale: Sequence[str] = ()
    steps: list[tuple[str, CommandResult]] = field(default_factory=list)
    error: str = ""

    def add(self, step: str, result: CommandResult) -> None:
        """Record the result of a step."""
        self.steps.append((step, result))

    def add_publish(self, result: CommandResult) -> None:
        """Record the result of publishing and the versions that exist now."""
        self.add("publish", result)
        self.after = Registry().list_versions()
        if (new := self.new_version) and new.tags.get("gate.promote") == "false":
            report_event(REFUSED, f"{INDEX} version {new.version}: {new.tags[DECISION]}")

    @property
    def new_version(self) -> VersionInfo | None:
        """The version that the gate decided on during this run."""
        decided = {info.version for info in self.before if DECISION in info.tags}
        return next((info for info in self.after if DECISION in info.tags and info.version not in decided), None)

    @property
    def outcome(self) -> str:
        """One line: the error, or the last line that the last step printed."""
        if self.error:
            return self.error
        prefix = "" if self.stale else "no stage was stale: "
        return prefix + (self.steps[-1][1].output or ("done",))[-1]

    def to_markdown(self) -> str:
        """Render the report as Markdown."""
        stale = ", ".join(self.stale) or "nothing"
        rows = [(name, _summarize_output(result.output), f"{result.seconds:.1f}") for name, result in self.steps]
        parts = [
            escape_markdown(self.outcome),
            f"**Stale stages at the start:** {stale}",
            table(("step", "result", "seconds"), rows),
        ]
        return "\n\n".join([*parts, *self._version_section()]) + "\n"

    def _version_section(self) -> list[str]:
        """Decision and metrics of the new version, compared with the champion before it."""
        new = self.new_version
        if new is None:
            return []
        decision = f"**{INDEX} version {new.version}:** {escape_markdown(new.tags[DECISION])}"
        return [decision, _format_metrics(new, find_champion(self.before)), "**MLflow runs**", _format_runs(new.tags)]


@contextmanager
def report_run(key: str) -> Iterator[RetrainReport]:
    """Create an artifact when the run ends, successfully or not; `key` is its key in Prefect."""
    end_open_runs()
    report = RetrainReport(Registry().list_versions())
    try:
        yield report
    except BaseException as error:
        report.error = f"{type(error).__name__}: {error}"
        with suppress(PrefectException, OSError):  # must not hide the error itself
            create_markdown_artifact(report.to_markdown(), key)
        raise
    create_markdown_artifact(report.to_markdown(), key)


def _summarize_output(lines: Sequence[str]) -> str:
    """`ran` or `restored` (from DVC's run cache) for a stage; otherwise the last line of output."""
    text = "\n".join(lines)
    if "Running stage" in text:
        return "ran"
    return "restored" if "is cached - skipping run" in text else escape_markdown(lines[-1] if lines else "")


def _format_metrics(new: VersionInfo, champion: VersionInfo | None) -> str:
    names = sorted(name for name in new.tags if name.startswith("metrics.") and not name.startswith("metrics.chance."))
    before = champion.tags if champion and are_comparable(champion.tags, new.tags) else {}
    reference = "no champion"
    if champion:
        reference = f"version {champion.version}" + ("" if before else ", on other test queries")
    header = ("metric", "this version", reference, "difference")
    return table(header, [_compare_metric(name, new.tags, before) for name in names])


def _compare_metric(name: str, new: Mapping[str, str], before: Mapping[str, str]) -> tuple[str, ...]:
    title, value = name.removeprefix("metrics."), new[name]
    if name not in before:
        return title, value, "-", "-"
    try:
        return title, value, before[name], f"{float(value) - float(before[name]):+.3f}"
    except ValueError:  # the metric is not a number
        return title, value, before[name], "-"


def _format_runs(tags: Mapping[str, str]) -> str:
    return "\n".join(f"- {name}: {format_run_link(run)}" for name, run in select_tags(tags, "run.").items()) or "- none"
