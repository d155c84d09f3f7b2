"""Hooks of MkDocs (mkdocs.yml): pages from outside `docs/`, and one page for each package from its docstrings.

A link is written for the place of its file in the repository, so that it works there too; in the site the files of
`docs/` lie beside those of the root.
"""

import json
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
OUTSIDE = [
    "README.md",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "infra/README.md",
    "tests/README.md",
]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Name the decisions and the packages in the navigation."""
    decisions = [f"decisions/{path.name}" for path in sorted((ROOT / "docs/decisions").glob("*.md"))]
    packages = [{name: _reference_path(name)} for name in package_modules()]
    config.nav = _expand(config.nav, {"decisions/": decisions, "reference/": packages})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside `docs/` and those of the packages."""
    for path in OUTSIDE:
        files.append(File.generated(config, site_path(path), content=(ROOT / path).read_text(encoding="utf8")))
    for notebook in sorted((ROOT / "docs/notebooks").glob("*.ipynb")):
        path = f"notebooks/{notebook.stem}.md"
        files.append(File.generated(config, path, content=notebook_page(notebook)))
    for name, modules in package_modules().items():
        entries = "".join(f"\n::: {module}\n" for module in modules)
        files.append(File.generated(config, _reference_path(name), content=f"# {name}\n{entries}"))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links between files of the repository into links between pages of the site."""
    path = page.file.src_uri
    source = next((outside for outside in OUTSIDE if site_path(outside) == path), f"docs/{path}")

    def relink(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), link[0]))
        return posixpath.relpath(site_path(target), posixpath.dirname(path) or ".")

    return LINK.sub(relink, markdown)


def site_path(path: str) -> str:
    """Where a file of the repository lies in the site."""
    return "index.md" if path == "README.md" else path.removeprefix("docs/")


def package_modules() -> dict[str, list[str]]:
    """The modules of each package of `cots` that have something public, by the name of the package."""
    modules: dict[str, list[str]] = {}
    for path in sorted((ROOT / "cots").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.name.startswith("__") or not re.search(
            r"^(?:def|class) [a-zA-Z]", path.read_text("utf8"), re.MULTILINE
        ):
            continue
        modules.setdefault(".".join(parts[:2]) if len(parts) > 2 else parts[0], []).append(".".join(parts))
    return modules


def notebook_page(notebook: Path) -> str:
    """A notebook as Markdown: its code cells are blocks of code."""
    cells = json.loads(notebook.read_text(encoding="utf8"))["cells"]
    texts = [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
    blocks = [f"```python\n{text}\n```" if kind == "code" else text for kind, text in texts]
    source = f"The notebook is `docs/notebooks/{notebook.name}`; a test runs its cells."
    return "\n\n".join([blocks[0], source, *blocks[1:]])


def _reference_path(package: str) -> str:
    return f"reference/{package}.md"


def _expand(nav: Any, folders: dict[str, list[Any]]) -> Any:  # noqa: ANN401  a nested list, as YAML gives it
    if isinstance(nav, list):
        return [_expand(entry, folders) for entry in nav]
    if isinstance(nav, dict):
        return {title: _expand(entry, folders) for title, entry in nav.items()}
    return folders.get(nav, nav)
