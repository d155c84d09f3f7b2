"""`make bench`: runs all benchmarks, or those named; `smoke` runs each at its smallest size, to test that it works.

A benchmark is a file of this folder with `main()`, which prints its table, and `smoke()`. A file without `smoke` takes
long or needs more than this folder, and runs only if it is named.
"""

import importlib
import sys
from pathlib import Path


def main() -> None:
    """Import benchmarks/<name>.py and call its `main` or `smoke`."""
    names = sorted(path.stem for path in Path(__file__).parent.glob("*.py") if not path.stem.startswith("_"))
    chosen = [name for name in sys.argv[1:] if name != "smoke"]
    if unknown := sorted(set(chosen) - set(names)):
        sys.exit(f"error: no benchmark {', '.join(unknown)}: there are {', '.join(names)}, and smoke for all of them")
    small = len(chosen) < len(sys.argv) - 1
    for name in chosen or names:
        module = importlib.import_module(f"benchmarks.{name}")
        if not small and (chosen or hasattr(module, "smoke")):
            print(f"\n# {name}", flush=True)
            module.main()
        elif small and hasattr(module, "smoke"):
            print(f"\n# {name}, smoke", flush=True)
            module.smoke()


if __name__ == "__main__":
    main()
