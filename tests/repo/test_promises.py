"""The repository keeps the promises of its own files."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cots import file_names
from cots.config.params import Params
from tools.params_reference import migration, reference

ROOT = Path(__file__).parents[2]
PIPELINE: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
STAGES = {name: stage.get("do", stage) for name, stage in PIPELINE.items()}


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / line for line in listed.stdout.splitlines()]


def test_every_stage_is_a_module_and_every_module_a_stage() -> None:
    modules = {path.stem for path in (ROOT / "cots/stages").glob("*.py")} - {"__init__"}
    assert set(STAGES) == modules


def test_the_drawing_of_the_architecture_is_that_of_its_source_and_has_every_stage() -> None:
    source, svg = ((ROOT / "docs/images/data-flow").with_suffix(suffix).read_text() for suffix in (".mmd", ".svg"))
    command, _, graph = source.split("\n", 2)
    drawn = set(re.findall(r"\w+", " ".join(re.findall(r">([^<>]+)<", re.sub(r"<style>.*?</style>", "", svg)))))
    labels = re.findall(r"[\[({]+([^\[\](){}]+)", graph)
    assert command.startswith("%% npx @mermaid-js/mermaid-cli")
    assert set(re.findall(r"\w+", " ".join(labels).replace("<br/>", " "))) | set(STAGES) <= drawn
    assert drawn <= set(re.findall(r"\w+", graph))


def test_a_stage_lists_the_parameter_sections_that_exist() -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for name, stage in STAGES.items():
        for key in stage["params"]:
            value = params
            for part in key.replace("${key}", "image-text").split("."):
                assert part in value, f"{name}: {key}"
                value = value[part]


def test_no_shell_reads_a_name_or_value_of_the_parameters() -> None:
    assert [name for name, stage in STAGES.items() if "${" in stage["cmd"]] == []


def test_commands_look_for_files_where_the_pipeline_puts_them() -> None:
    entries = [
        entry for stage in STAGES.values() for kind in ("outs", "metrics", "plots") for entry in stage.get(kind, [])
    ]
    written = {path for entry in entries for path in ([entry] if isinstance(entry, str) else entry)}
    read = {dep for stage in STAGES.values() for dep in stage["deps"]}
    names = ("MANIFEST_PATH", "SHARDS_PATH", "PRETRAIN_PAIRS_PATH", "METRICS_PATH", "REPORT_PATH")
    assert {str(getattr(file_names, name)) for name in names} <= written
    lists = (file_names.WITHDRAWN_PATH, file_names.SUSPECTS_PATH, file_names.VERDICTS_PATH, file_names.CHANGES_PATH)
    assert {*map(str, lists)} <= read


def test_metrics_and_plots_of_other_commits_can_be_compared() -> None:
    """DVC reads those of another commit or experiment in its cache, as reports/ is not in git."""
    entries = [entry for stage in STAGES.values() for kind in ("metrics", "plots") for entry in stage.get(kind, [])]
    options = [option for entry in entries if isinstance(entry, dict) for option in entry.values()]
    assert len(entries) > 3
    assert [option for option in options if option.get("cache") is False] == []


def test_the_committed_parameters_are_valid() -> None:
    Params.load(ROOT / "params.yaml")


def test_every_public_name_says_what_it_means() -> None:
    silent = []
    for path in sorted((ROOT / "cots").rglob("*.py")) + sorted((ROOT / "pipelines").rglob("*.py")):
        if not path.read_text().strip():
            continue
        tree = ast.parse(path.read_text())
        if ast.get_docstring(tree) is None:
            silent.append(f"{path.relative_to(ROOT)}: module")
        for node in tree.body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                silent.append(f"{path.relative_to(ROOT)}: {node.name}")
    assert silent == []


@pytest.mark.parametrize(
    ("file", "extras"),
    [
        ("requirements.lock", ("pipeline", "platform", "s3", "kubernetes")),
        ("requirements-dev.lock", ("pipeline", "platform", "s3", "kubernetes", "dev")),
    ],
)
def test_a_lock_pins_every_direct_dependency_and_names_no_host(file: str, extras: tuple[str, ...]) -> None:
    lock = (ROOT / file).read_text()
    assert "://" not in lock
    assert "--index" not in lock
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    for requirement in direct:
        name = re.split(r"[=<>\[ ]", requirement)[0].lower()
        assert name == "cots" or re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE), name


def test_who_runs_the_pipeline_gets_no_development_tools_and_both_locks_have_the_same_versions() -> None:
    user, developer = ((ROOT / file).read_text() for file in ("requirements.lock", "requirements-dev.lock"))
    pins = re.findall(r"^\S+==.*$", user, re.MULTILINE)
    assert set(pins) <= set(re.findall(r"^\S+==.*$", developer, re.MULTILINE))
    assert not re.search(r"^(pytest|ruff|mypy|pylint|playwright|moto)==", user, re.MULTILINE)


def test_make_and_ci_call_what_the_readme_says() -> None:
    ci = (ROOT / ".ci/run").read_text()
    readme = (ROOT / "README.md").read_text()
    for command in ("make check", "make test"):
        assert command in ci
        assert command in readme
    assert "make demo" in readme


def test_the_demo_checks_all_of_the_parameters_before_the_first_stage() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ndemo: setup\n")[2].partition("\n\n")[0]
    assert [line.strip() for line in recipe.splitlines()][:2] == ["cots doctor", "dvc repro"]


def test_modules_that_the_documents_run_do_something_when_run() -> None:
    """Without its last two lines a module ends in silence and with success."""
    documents = [path for path in tracked() if path.suffix == ".md" and path.is_file()]
    documents.remove(
        ROOT / "CONTRIBUTING.md"
    )  # names modules of its recipes, which test_contributing.py makes and runs
    text = "".join(path.read_text() for path in documents)
    named = set(re.findall(r"python -m ((?:cots|benchmarks|pipelines|tools)(?:\.\w+)+)", text))
    assert named
    for name in named:
        path = ROOT.joinpath(*name.split("."))
        file = path / "__main__.py" if path.is_dir() else path.with_suffix(".py")
        assert 'if __name__ == "__main__":' in file.read_text(), name


def test_no_file_is_a_drawer_for_everything() -> None:
    drawers = {"utils.py", "util.py", "common.py", "helpers.py", "misc.py"}
    assert [path for path in tracked() if path.name in drawers] == []


def test_the_reference_of_parameters_is_what_the_classes_say() -> None:
    assert (ROOT / "docs/params.md").read_text() == reference()
    note = (ROOT / "docs/migration-0.2.md").read_text()
    assert note == migration(note)


def test_the_reference_has_a_line_for_every_key_of_the_whole_file() -> None:
    documented = reference()
    assert [name for name in keys(Params().dump_all() | {"finetune": {}}) if f"| `{name}`" not in documented] == []


def keys(values: dict[str, Any]) -> Iterator[str]:
    """The keys of every section, nested ones by their path."""
    for section in values.values():
        yield from nested("", section)


def nested(prefix: str, values: dict[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield prefix + name
        if isinstance(value, dict) and name != "options":
            yield from nested(f"{prefix}{name}.", value)
