"""Which files of this project's packages a module needs, read from the sources without running them."""

import ast
from collections.abc import Collection, Iterable, Iterator
from itertools import accumulate
from pathlib import Path


def import_closure(modules: Iterable[str], root: Path, *, leave_out: Collection[str] = ()) -> dict[str, Path]:
    """The modules themselves, all that they import, and the packages around them, each with its file.

    Imports inside functions count, those under `TYPE_CHECKING` do not. Modules of other packages, which may lie in
    the same folder, are no part of it.

    Args:
        modules: dotted names.
        root: the folder in which the packages lie.
        leave_out: modules that are neither counted nor followed. Of a package that is left out, a name that it hands
            on is followed to the module that it comes from.
    """
    closure: dict[str, Path] = {}
    waiting = list(modules)
    packages = {name.partition(".")[0] for name in waiting}
    while waiting:
        name = waiting.pop()
        file = _module_file(name, root) if name.partition(".")[0] in packages else None
        if file is None or name in closure or name in leave_out:
            continue
        closure[name] = file
        waiting += accumulate(name.split("."), lambda package, part: f"{package}.{part}")
        for module, symbol in imported_names(file):
            waiting += [module, f"{module}.{symbol}"] if symbol else [module]
            if module in leave_out:
                waiting += _origins(module, symbol, root)
    return closure


def data_files(modules: Iterable[Path]) -> set[Path]:
    """Files that are no Python and that lie beside a module, or in a folder there, which names them in quotes.

    Templates that a counted file includes by name count as well.

    Args:
        modules: files of modules.
    """
    files: set[Path] = set()
    for module in modules:
        texts = [module.read_text(encoding="utf8")]
        beside = {path.name: path for path in _beside(module.parent)}
        while texts:
            text = texts.pop()
            named = {name for name in beside if f'"{name}"' in text}
            files |= {beside[name] for name in named}
            texts += [beside.pop(name).read_text(encoding="utf8") for name in named]
    return files


def imported_names(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of every `from module import name` in a file; of a plain `import module` the name is empty."""
    waiting: list[ast.AST] = [ast.parse(file.read_text(encoding="utf8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{file}: this project has no relative imports"
            yield from ((node.module, alias.name) for alias in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def _origins(package: str, symbol: str, root: Path) -> Iterator[str]:
    file = _module_file(package, root)
    if file is not None:
        yield from (module for module, name in imported_names(file) if name == symbol)


def _module_file(name: str, root: Path) -> Path | None:
    path = root.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _beside(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not (path / "__init__.py").exists() and path.name != "__pycache__":
            yield from (file for file in path.rglob("*") if file.is_file())
        elif path.is_file() and path.suffix not in (".py", ".pyc"):
            yield path
