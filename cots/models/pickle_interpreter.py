"""Safe interpreter of a pickled torch module: it imports no class and calls nothing.

`torch.save(module)` writes a program that builds the module's objects. `torch.load(weights_only=True)` refuses it, and
in the format before torch 1.6 even a list of safe globals does not help. Here each instruction makes a plain value or
an inert `Node`; a name outside NAMES and the allowed modules, or an unknown instruction, rejects the file.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any

import torch

DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
}
PARAMETER = "torch._utils._rebuild_parameter"
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
NAMES = {*DTYPES, *TENSORS, PARAMETER, "torch.device", "torch.float32", "torch.float16"} | {
    "collections.OrderedDict",
    "functools.partial",
    "__builtin__.set",
    "builtins.set",
}


class UnsafePickle(Exception):
    """The file is not a pickled module of known parts; the message is the end of a sentence that says why."""


@dataclass
class Node:
    """Stands for an object of the program: a global by its name, or the result of calling one."""

    name: str
    args: Any = None
    state: Any = None


class PickleInterpreter:
    """Runs a pickle's instructions on a stack of plain values; STEPS maps pickletools' opcode names to methods.

    Args:
        modules: prefixes of names that are allowed besides NAMES.
    """

    def __init__(self, modules: tuple[str, ...] = ()) -> None:
        self.modules = modules
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.dtypes: dict[str, torch.dtype] = {}  # of the storages, by key

    def run(self, file: IO[bytes]) -> Any:  # noqa: ANN401 - a pickle holds anything
        """The result of the program at the file's position; the position moves behind the program."""
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in LITERALS:
                self.stack.append(argument)
            elif opcode.name in CONSTANTS:
                self.stack.append(CONSTANTS[opcode.name]())
            elif opcode.name in STEPS:
                STEPS[opcode.name](self, argument)
            else:
                raise UnsafePickle(f"it has the instruction {opcode.name}")
        raise UnsafePickle("it ends early")

    def _global(self, argument: str) -> None:
        name = argument.replace(" ", ".")
        if name not in NAMES and not name.startswith(self.modules):
            raise UnsafePickle(f"it names {name[:80]!r}")
        self.stack.append(Node(name))

    def _call(self, _: object) -> None:
        args, function = self.stack.pop(), self.stack.pop()
        if function.name == "collections.OrderedDict":
            self.stack.append(dict(*args))
        else:
            self.stack.append(Node(function.name, args))

    def _build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Node):  # attributes of a dict hold no weights
            self.stack[-1].state = state

    def _persistent(self, _: object) -> None:
        kind, *rest = self.stack.pop()
        if kind == "module":  # a class with its source code
            self.stack.append(rest[0])
            return
        scalar, key, _, _, *view = rest
        if any(view):
            raise UnsafePickle("its storages are views of others")
        self.dtypes[key] = DTYPES[scalar.name]
        self.stack.append(Node("storage", key))

    def _mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _pop_to_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _tuple(self, _: object) -> None:
        items = self._pop_to_mark()
        self.stack.append(tuple(items))

    def _appends(self, _: object) -> None:
        items = self._pop_to_mark()
        self.stack[-1].extend(items)

    def _append(self, _: object) -> None:
        item = self.stack.pop()
        self.stack[-1].append(item)

    def _setitems(self, _: object) -> None:
        items = self._pop_to_mark()
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _tuple_of(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])


LITERALS = {"BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING", "BINSTRING"}
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
STEPS: dict[str, Callable[[PickleInterpreter, Any], None]] = {
    "PROTO": lambda interpreter, version: None,
    "GLOBAL": PickleInterpreter._global,
    "REDUCE": PickleInterpreter._call,
    "NEWOBJ": PickleInterpreter._call,
    "BUILD": PickleInterpreter._build,
    "BINPERSID": PickleInterpreter._persistent,
    "MARK": PickleInterpreter._mark,
    "TUPLE": PickleInterpreter._tuple,
    "TUPLE1": lambda interpreter, _: interpreter._tuple_of(1),
    "TUPLE2": lambda interpreter, _: interpreter._tuple_of(2),
    "TUPLE3": lambda interpreter, _: interpreter._tuple_of(3),
    "APPEND": PickleInterpreter._append,
    "APPENDS": PickleInterpreter._appends,
    "SETITEM": PickleInterpreter._setitem,
    "SETITEMS": PickleInterpreter._setitems,
    "BINPUT": PickleInterpreter._put,
    "LONG_BINPUT": PickleInterpreter._put,
    "BINGET": PickleInterpreter._get,
    "LONG_BINGET": PickleInterpreter._get,
}
