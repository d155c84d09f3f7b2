"""A change of code makes stale exactly the stages whose output it can change."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from cots.import_closure import data_files, import_closure
from tools.stage_deps import Declared, has_code, load_stages, replace_code_deps, update_outdated
from tools.stale_table import find_downstream, list_code_files, readers_by_stage, stages_of_file

ROOT = Path(__file__).parents[2]
STAGES = load_stages(ROOT)
DECLARED = Declared.load(ROOT)

LOADED = """
import json, os, sys
import faiss, great_expectations, mlflow, timm, torch, torchvision, transformers
for module in sys.argv[1:]:
    sys.stdout.flush()
    if os.fork() == 0:
        __import__(module)
        files = [vars(m).get("__file__") for n, m in sys.modules.items() if n.split(".")[0] in ("cots", "pipelines")]
        print(json.dumps([module, files]), flush=True)
        os._exit(0)
    os.wait()
"""

EDITED = """
import json, sys
from pathlib import Path
from dvc.repo import Repo
def comment(file):
    path = Path(file)
    before = path.read_bytes()
    path.write_bytes(before + b"# a comment\\n")
    return before
stale = {}
with Repo() as repo:
    repo.reproduce()
    for file in sys.argv[1:]:
        before = comment(file)
        stale[file] = sorted(repo.status())
        Path(file).write_bytes(before)
    comment(sys.argv[-1])
    stale["run"] = sorted(stage.addressing for stage in repo.reproduce())
print(json.dumps(stale))
"""


def files_of(modules: dict[str, Path]) -> set[str]:
    return {str(file.relative_to(ROOT)) for file in modules.values() if has_code(file)}


def listed(name: str) -> set[str]:
    return {dep for dep in STAGES[name]["deps"] if dep.startswith(("cots/", "pipelines/"))}


def test_the_pipeline_and_the_table_are_what_the_tool_writes() -> None:
    assert list(update_outdated(ROOT, write=False)) == []


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph("cots", "pipelines", cache_dir=None, exclude_type_checking_imports=True)


@pytest.mark.parametrize("module", ["cots.cli", "cots.flows.retrain", *(f"cots.stages.{name}" for name in STAGES)])
def test_the_closure_is_that_which_grimp_finds(module: str, imports: grimp.ImportGraph) -> None:
    closure: set[str] = set()
    waiting = {module}
    while waiting:
        closure |= waiting
        packages = {name.rpartition(".")[0] for name in waiting} - {""}
        waiting = (
            set().union(packages, *(imports.find_modules_directly_imported_by(name) for name in waiting)) - closure
        )
    assert set(import_closure([module], ROOT)) == closure


@pytest.mark.parametrize("name", sorted(STAGES))
def test_a_stage_lists_the_code_that_it_imports_other_than_through_what_changes_no_output(
    name: str, imports: grimp.ImportGraph
) -> None:
    """Forgotten code is DVC's silent failure: the stage would not run again when that code changes."""
    left = set(DECLARED.no_output)
    module = f"cots.stages.{name}"
    reached, waiting = {module}, [module]
    while waiting:
        new = set(imports.find_modules_directly_imported_by(waiting.pop())) - left - reached
        reached |= new
        waiting += new
    shipped = files_of(import_closure(DECLARED.ships.get(name, ()), ROOT))
    python = {file for file in listed(name) if file.endswith(".py")}
    assert python == shipped | files_of(import_closure(reached, ROOT, leave_out=left))


@pytest.mark.slow
def test_a_stage_loads_no_code_but_what_it_lists_and_what_the_declared_modules_need() -> None:
    modules = [f"cots.stages.{name}" for name in STAGES]
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *modules], capture_output=True, text=True, cwd=ROOT, check=True
    )
    loaded = dict(json.loads(line) for line in done.stdout.splitlines())
    declared = files_of(import_closure(DECLARED.no_output, ROOT))
    assert set(loaded) == set(modules)
    for name in STAGES:
        files = {str(Path(file).relative_to(ROOT)) for file in loaded[f"cots.stages.{name}"] if has_code(Path(file))}
        assert f"cots/stages/{name}.py" in files
        assert files - listed(name) - declared == set(), name


def test_only_a_file_that_holds_nothing_of_its_own_is_declared_to_hand_names_on() -> None:
    text = (ROOT / "cots/config/__init__.py").read_text()
    body = re.sub(r'^""".*?"""', "", text, count=1, flags=re.DOTALL)
    assert re.sub(r"(from [\w.]+ import (\([^)]*\)|[^\n]*)|__all__ = \[[^]]*\])\n*", "", body).strip() == ""


def test_what_is_declared_exists() -> None:
    declared = [
        *DECLARED.no_output,
        *(module for some in DECLARED.ships.values() for module in some),
    ]
    assert [module for module in declared if not import_closure([module], ROOT)] == []
    assert set(DECLARED.ships) <= set(STAGES)


def test_every_file_that_is_no_python_belongs_to_a_module_that_names_it() -> None:
    modules = [path for package in ("cots", "pipelines") for path in (ROOT / package).rglob("*.py")]
    owned = {str(path.relative_to(ROOT)) for path in data_files(modules)}
    others = {file for file in list_code_files(ROOT) if not file.endswith(".py")}
    assert others - owned == {
        "cots/data/documents.yaml",  # sources, which params.yaml names
        "cots/data/scenes.yaml",
        "cots/py.typed",  # for type checkers
    }
    assert {"cots/report/templates/page.html.j2", "cots/report/templates/page.css"} <= listed("evaluate")


def stale(pattern: str) -> set[str]:
    """Stages that a change of any file of this pattern makes stale."""
    files = [file for file in list_code_files(ROOT) if re.fullmatch(pattern, file)]
    assert files, pattern
    return set().union(*(stages_of_file(file, STAGES) for file in files))


TRAINING = {"pretrain", "finetune"}


@pytest.mark.parametrize(
    "pattern",
    [
        r"cots/progress\.py|cots/launch\.py",
        r"cots/monitoring/.*|cots/data/dvc_history\.py",
        r"cots/registry/(gate|challenger|registry|alias_manager|promotions|publishing|client|catalog|versions|loading)\.py",
        r"cots/service/.*",
        r"cots/cli/.*|cots/refresh\.py|cots/tracking/(runs|store)\.py",
        r"pipelines/.*|cots/flows/.*",
        r"cots/evaluation/(comparison|paired)\.py",
    ],
)
def test_what_decides_serves_and_tells_makes_no_stage_stale(pattern: str) -> None:
    assert stale(pattern) == set()


def test_the_wording_of_errors_makes_stale_only_the_package_that_carries_it() -> None:
    assert stale(r"cots/errors\.py") == {"package"}


def test_the_packed_model_carries_what_answers_queries_and_the_report_is_of_evaluate_alone() -> None:
    assert stale(
        r"cots/search_engine/.*\.py|cots/registry/(cards|packaging|pyfunc_\w+)\.py|cots/registry/templates/.*"
    ) == {"package"}
    assert stale(r"cots/report/.*|cots/evaluation/explain\.py") == {"evaluate"}


def test_training_is_of_pretrain_and_finetune_alone() -> None:
    assert stale(r"cots/training/(trainer|fit|optim|pair_stats|fsdp|mfu)\.py") == TRAINING


@pytest.mark.parametrize(
    "pattern", [r"cots/losses/.*", r"cots/objectives/.*", r"cots/models/(queue|momentum|heads|temperature)\.py"]
)
def test_losses_objectives_and_queue_are_of_pretrain_and_finetune_alone(pattern: str) -> None:
    assert stale(pattern) == TRAINING


def test_the_parameters_of_gate_and_drift_make_no_stage_stale() -> None:
    assert stale(r"cots/config/(gate|drift|render|params)\.py") == set()
    assert stale(r"cots/config/index\.py") == {"validate", "index", "package"}


def test_stages_without_tensors_list_no_code_with_tensors(imports: grimp.ImportGraph) -> None:
    for name in ("prepare", "validate"):
        assert not {file for file in listed(name) if re.search(r"^import torch", (ROOT / file).read_text(), re.M)}, name


def tiny_pipeline(folder: Path) -> None:
    """The project's pipeline and code in `folder`, with commands that only write one line into each output."""
    text = (ROOT / "dvc.yaml").read_text()
    pipeline = yaml.safe_load(text)
    for name, entry in pipeline["stages"].items():
        stage = entry.get("do", entry)
        stage["cmd"] = [
            line
            for kind in ("outs", "metrics", "plots")
            for out in stage.get(kind, ())
            for path in [out if isinstance(out, str) else next(iter(out))]
            for line in (f"mkdir -p $(dirname {path})", f"echo {name} > {path}")
        ]
    (folder / "dvc.yaml").write_text(yaml.safe_dump(pipeline))
    for name in ("params.yaml", "withdrawn.csv", "suspects.csv", "verdicts.csv", "changes.jsonl"):
        shutil.copy(ROOT / name, folder / name)
    for package in ("cots", "pipelines"):
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))


@pytest.mark.slow
def test_dvc_finds_stale_what_the_table_says(tmp_path: Path) -> None:
    """A stage that ran again and made the same leaves those below it as they are."""
    tiny_pipeline(tmp_path)
    subprocess.run(["dvc", "init", "--quiet", "--no-scm"], cwd=tmp_path, check=True)
    files = ["cots/progress.py", "cots/errors.py", "cots/training/trainer.py", "cots/index/auto_index.py"]
    command = [sys.executable, "-c", EDITED, *files]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    results: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for file in files:
        assert {name.partition("@")[0] for name in results[file]} == stages_of_file(file, STAGES), file
    assert results["run"] == ["index"]
    assert find_downstream({"index"}, readers_by_stage(STAGES)) == {"package"}


def test_rewriting_keeps_comments_and_all_other_lines() -> None:
    text = (
        "# The pipeline.\nstages:\n  one:\n    cmd: python -m cots.stages.one\n    deps:\n      - data  # raw\n"
        "      - cots/old.py\n      - cots/losses\n    outs: [out]\n\n  two:\n    foreach: ${x}  # each\n    do:\n"
        "      cmd: x\n      deps:\n        - out\n      outs:\n        - cots/kept\n"
    )
    made = replace_code_deps(text, {"one": ["cots/a.py", "cots/b.py"], "two": ["cots/c.py"]})
    assert made == text.replace(
        "      - cots/old.py\n      - cots/losses\n", "      - cots/a.py\n      - cots/b.py\n"
    ).replace("        - out\n", "        - out\n        - cots/c.py\n")
