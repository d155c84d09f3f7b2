from pathlib import Path

import pytest

from cots.import_closure import data_files, import_closure


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = {
        "pack/__init__.py": "",
        "pack/start.py": (
            "import json\nfrom typing import TYPE_CHECKING\nfrom pack.hands_on import Thing\n"
            "if TYPE_CHECKING:\n    from pack.types_only import T\nelse:\n    from pack.otherwise import T\n"
            "def later() -> None:\n    import pack.inner.lazy\n"
        ),
        "pack/types_only.py": "",
        "pack/otherwise.py": "",
        "pack/hands_on/__init__.py": "from pack.hands_on.thing import Thing\nfrom pack.hands_on.other import Other\n",
        "pack/hands_on/thing.py": 'TEMPLATE = "page.j2"\n',
        "pack/hands_on/other.py": "",
        "pack/hands_on/templates/page.j2": '{% include "style.css" %}',
        "pack/hands_on/templates/style.css": "",
        "pack/hands_on/templates/unused.css": "",
        "pack/inner/__init__.py": "from pack import around\n",
        "pack/inner/lazy.py": "",
        "pack/around.py": "",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_in_functions_and_packages_around_count_and_those_for_types_do_not(root: Path) -> None:
    hands_on = {"pack.hands_on", "pack.hands_on.thing", "pack.hands_on.other"}
    inner = {"pack.inner", "pack.inner.lazy", "pack.around"}
    assert set(import_closure(["pack.start"], root)) == {"pack", "pack.start", "pack.otherwise", *hands_on, *inner}


def test_through_a_package_that_is_left_out_a_name_leads_to_the_module_that_it_comes_from(root: Path) -> None:
    closure = import_closure(["pack.start"], root, leave_out={"pack.hands_on", "pack.inner"})
    assert set(closure) == {"pack", "pack.start", "pack.otherwise", "pack.hands_on.thing", "pack.inner.lazy"}


def test_templates_count_where_a_module_or_a_counted_template_names_them(root: Path) -> None:
    folder = root / "pack/hands_on"
    assert data_files([folder / "thing.py"]) == {folder / "templates/page.j2", folder / "templates/style.css"}
    assert data_files([folder / "other.py"]) == set()
