"""Weights of a pickled torch module, read without unpickling: no class is looked up and nothing is called.

`torch.save(module)` writes a program that builds the module's objects. `torch.load(weights_only=True)` refuses it, and
for the format before torch 1.6 no list of safe classes changes that. Here each instruction makes a plain value or an
inert `Node`; a name that is not among NAMES and MODULES, or an instruction without a step, refuses the file.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from cots.errors import BadInput

MAX_BYTES = 2**30  # of a file, unpacked, and of the weights in it; the published ones take 0.2 GB
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
}
PARAMETER = "torch._utils._rebuild_parameter"
TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
NAMES = {*DTYPES, *TENSORS, PARAMETER, "torch.device", "torch.float32", "torch.float16"} | {
    "collections.OrderedDict",
    "functools.partial",
    "__builtin__.set",
    "builtins.set",
}
MODULES = ("dall_e.", "torch.nn.modules.")  # whose every name may occur
LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how a file of torch before 1.6 begins


class Refused(Exception):
    """The file is not a pickled module of known parts; the message says why, for the end of a sentence."""


@dataclass
class Node:
    """What the program would have made: a name, or the result of calling one."""

    name: str
    args: Any = None
    state: Any = None


class Machine:
    """The instructions of a pickle on a stack of plain values; one method an instruction, named as pickletools does."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.dtypes: dict[str, torch.dtype] = {}  # of the storages, by key

    def run(self, file: IO[bytes]) -> Any:  # noqa: ANN401 - a pickle holds anything
        """The value that the program at the file's position leaves; the file then stands behind it."""
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
                raise Refused(f"it has the instruction {opcode.name}")
        raise Refused("it ends early")

    def _global(self, argument: str) -> None:
        name = argument.replace(" ", ".")
        if name not in NAMES and not name.startswith(MODULES):
            raise Refused(f"it names {name[:80]!r}")
        self.stack.append(Node(name))

    def _call(self, _: object) -> None:
        args, called = self.stack.pop(), self.stack.pop()
        if called.name == "collections.OrderedDict":
            self.stack.append(dict(*args))
        else:
            self.stack.append(Node(called.name, args))

    def _build(self, _: object) -> None:
        state = self.stack.pop()
        if isinstance(self.stack[-1], Node):  # a dictionary's own attributes hold no weights
            self.stack[-1].state = state

    def _persistent(self, _: object) -> None:
        kind, *rest = self.stack.pop()
        if kind == "module":  # a class with its source code
            self.stack.append(rest[0])
            return
        scalar, key, _, _, *view = rest
        if any(view):
            raise Refused("its storages are views of others")
        self.dtypes[key] = DTYPES[scalar.name]
        self.stack.append(Node("storage", key))

    def _mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def _tuple(self, _: object) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    def _appends(self, _: object) -> None:
        items = self._since_mark()
        self.stack[-1].extend(items)

    def _append(self, _: object) -> None:
        item = self.stack.pop()
        self.stack[-1].append(item)

    def _setitems(self, _: object) -> None:
        items = self._since_mark()
        self.stack[-1].update(zip(items[::2], items[1::2], strict=True))

    def _setitem(self, _: object) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.stack[-1][key] = value

    def _last(self, count: int) -> None:
        self.stack[-count:] = [tuple(self.stack[-count:])]

    def _put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def _get(self, place: int) -> None:
        self.stack.append(self.memo[place])


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
STEPS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, version: None,
    "GLOBAL": Machine._global,
    "REDUCE": Machine._call,
    "NEWOBJ": Machine._call,
    "BUILD": Machine._build,
    "BINPERSID": Machine._persistent,
    "MARK": Machine._mark,
    "TUPLE": Machine._tuple,
    "TUPLE1": lambda machine, _: machine._last(1),
    "TUPLE2": lambda machine, _: machine._last(2),
    "TUPLE3": lambda machine, _: machine._last(3),
    "APPEND": Machine._append,
    "APPENDS": Machine._appends,
    "SETITEM": Machine._setitem,
    "SETITEMS": Machine._setitems,
    "BINPUT": Machine._put,
    "LONG_BINPUT": Machine._put,
    "BINGET": Machine._get,
    "LONG_BINGET": Machine._get,
}


class Opened(NamedTuple):
    """A file of `torch.save`."""

    module: Node
    storages: Callable[[str], Tensor]  # by key, flat


def read_pickled(path: Path) -> dict[str, Tensor]:
    """Weights of a pickled module by the names that its `state_dict` would have.

    Args:
        path: written by `torch.save(module, path)`, in the zip format or in that before torch 1.6.

    Raises:
        BadInput: the file is something else, damaged, too large, or names other things than layers of DALL-E.
    """
    try:
        with path.open("rb") as file:
            opened = _zipped(file) if zipfile.is_zipfile(file) else _legacy(file)
            weights = dict(_weights(opened.module, opened.storages, prefix="", seen=set()))
        if 4 * sum(weight.numel() for weight in weights.values()) > MAX_BYTES:
            raise Refused(f"its weights take more than {MAX_BYTES} bytes")
    except Refused as error:
        raise BadInput(f"{path} is refused as a pickled dVAE: {error}") from None
    except Exception as error:  # a foreign program can be wrong in any way; none of it has run
        raise BadInput(f"{path} is not a pickled dVAE, or damaged: {type(error).__name__} while reading it") from None
    return weights


def _zipped(file: IO[bytes]) -> Opened:
    archive = zipfile.ZipFile(file)
    if sum(entry.file_size for entry in archive.infolist()) > MAX_BYTES:
        raise Refused(f"unpacked it takes more than {MAX_BYTES} bytes")
    (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = program.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise Refused("it was written by a big-endian machine")
    machine = Machine()
    module = machine.run(io.BytesIO(archive.read(program)))
    return Opened(module, lambda key: _flat(archive.read(f"{folder}data/{key}"), machine.dtypes[key]))


def _legacy(file: IO[bytes]) -> Opened:
    file.seek(0)
    if (Machine().run(file), Machine().run(file)) != LEGACY:
        raise Refused("torch.save has not written it")
    if not Machine().run(file)["little_endian"]:
        raise Refused("it was written by a big-endian machine")
    machine = Machine()
    module = machine.run(file)
    storages: dict[str, Tensor] = {}
    for key in Machine().run(file):
        size = int.from_bytes(file.read(8), "little") * machine.dtypes[key].itemsize
        if size > MAX_BYTES:
            raise Refused(f"a storage takes more than {MAX_BYTES} bytes")
        data = file.read(size)
        if len(data) < size:
            raise Refused("it ends early")
        storages[key] = _flat(data, machine.dtypes[key])
    return Opened(module, storages.__getitem__)


def _flat(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _weights(
    module: Node, storages: Callable[[str], Tensor], *, prefix: str, seen: set[int]
) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:
        raise Refused("a module occurs twice in it")
    seen.add(id(module))
    for name, value in module.state["_parameters"].items():
        if value is not None:
            yield prefix + name, _tensor(value, storages)
    for name, child in module.state["_modules"].items():
        yield from _weights(child, storages, prefix=f"{prefix}{name}.", seen=seen)


def _tensor(node: Node, storages: Callable[[str], Tensor]) -> Tensor:
    tensor = node.args[0] if node.name == PARAMETER else node
    if tensor.name not in TENSORS:
        raise Refused(f"one of its weights is a {tensor.name}")
    storage, offset, size, stride, *_ = tensor.args
    return storages(storage.args).as_strided(size, stride, offset)  # which checks the bounds
