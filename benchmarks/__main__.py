"""`make bench`: run every benchmark, or the one that is named."""

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Import benchmarks/<name>.py and call its `main`."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    asked = sys.argv[1:] or names
    unknown = sorted(set(asked) - set(names))
    if unknown:
        sys.exit(f"error: no benchmark {', '.join(unknown)}: there are {', '.join(names)}")
    for name in asked:
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
