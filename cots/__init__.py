"""COTS: train, deploy and operate two-stream vision-language retrieval (arXiv:2204.07441).

The names of `__all__` are the Python interface (docs/python.md). Each is imported when it is first used, so that
`import cots` takes no time.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cots.api.finetune import finetune
    from cots.api.index import Index, load_index, search
    from cots.api.model import Model, from_pretrained, load
    from cots.errors import BadInput, CotsError, RunFailed
    from cots.service.client import Client

__all__ = [
    "BadInput",
    "Client",
    "CotsError",
    "Index",
    "Model",
    "RunFailed",
    "finetune",
    "from_pretrained",
    "load",
    "load_index",
    "search",
]

MODULES = {
    "BadInput": "cots.errors",
    "Client": "cots.service.client",
    "CotsError": "cots.errors",
    "Index": "cots.api.index",
    "Model": "cots.api.model",
    "RunFailed": "cots.errors",
    "finetune": "cots.api.finetune",
    "from_pretrained": "cots.api.model",
    "load": "cots.api.model",
    "load_index": "cots.api.index",
    "search": "cots.api.index",
}


def __getattr__(name: str) -> object:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *MODULES])
