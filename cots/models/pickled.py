"""Weights of a module that `torch.save` or `torch.jit.save` wrote, read without running any code of the file."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from cots.errors import BadInput
from cots.models.pickle_interpreter import PARAMETER, TENSORS, Node, PickleInterpreter, UnsafePickle

LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how a file of torch before 1.6 begins


class PickledFormat(NamedTuple):
    """What a file may hold.

    Attributes:
        kind: of the model, for messages.
        modules: prefixes of the names of its layers.
        max_bytes: limit of the unpacked file and of its weights as float32.
    """

    kind: str
    modules: tuple[str, ...]
    max_bytes: int


class PickledModule(NamedTuple):
    """A file of `torch.save`."""

    module: Node
    # By key, flat; each can be read once, so that none can fill the memory many times over.
    storages: Callable[[str], Tensor]


def read_pickled(path: Path, form: PickledFormat) -> dict[str, Tensor]:
    """Weights of a pickled module by the names that its `state_dict` would have; of TorchScript also its buffers.

    Args:
        path: written by `torch.save(module, path)`, in the zip format or in that before torch 1.6, or by
            `torch.jit.save`.
        form: what the file may hold.

    Raises:
        BadInput: the file is something else, damaged, too large, or refers to anything but the allowed layers.
    """
    try:
        with path.open("rb") as file:
            pickled = _read_zip(file, form) if zipfile.is_zipfile(file) else _read_legacy(file, form)
            weights = dict(_weights(pickled.module, pickled.storages, prefix="", seen=set()))
        if 4 * sum(weight.numel() for weight in weights.values()) > form.max_bytes:
            raise UnsafePickle(f"its weights take more than {form.max_bytes} bytes")
    except UnsafePickle as error:
        raise BadInput(f"{path} is refused as a pickled {form.kind}: {error}") from None
    except Exception as error:  # a foreign program can fail in any way; none of it was executed
        raise BadInput(
            f"{path} is not a pickled {form.kind}, or damaged: {type(error).__name__} while reading it"
        ) from None
    return weights


def _read_zip(file: IO[bytes], form: PickledFormat) -> PickledModule:
    archive = zipfile.ZipFile(file)
    if sum(entry.file_size for entry in archive.infolist()) > form.max_bytes:
        raise UnsafePickle(f"unpacked it takes more than {form.max_bytes} bytes")
    (program,) = (name for name in archive.namelist() if name.endswith("/data.pkl"))
    folder = program.removesuffix("data.pkl")
    if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
        raise UnsafePickle("it was written by a big-endian machine")
    interpreter = PickleInterpreter(form.modules)
    module = interpreter.run(io.BytesIO(archive.read(program)))
    return PickledModule(module, lambda key: _flat(archive.read(f"{folder}data/{key}"), interpreter.dtypes.pop(key)))


def _read_legacy(file: IO[bytes], form: PickledFormat) -> PickledModule:
    file.seek(0)
    if (PickleInterpreter().run(file), PickleInterpreter().run(file)) != LEGACY:
        raise UnsafePickle("it was not written by torch.save")
    if not PickleInterpreter().run(file)["little_endian"]:
        raise UnsafePickle("it was written by a big-endian machine")
    interpreter = PickleInterpreter(form.modules)
    module = interpreter.run(file)
    storages: dict[str, Tensor] = {}
    for key in PickleInterpreter().run(file):
        size = int.from_bytes(file.read(8), "little") * interpreter.dtypes[key].itemsize
        if size > form.max_bytes:
            raise UnsafePickle(f"a storage takes more than {form.max_bytes} bytes")
        data = file.read(size)
        if len(data) < size:
            raise UnsafePickle("it ends early")
        storages[key] = _flat(data, interpreter.dtypes[key])
    return PickledModule(module, storages.pop)


def _flat(data: bytes, dtype: torch.dtype) -> Tensor:
    return torch.frombuffer(bytearray(data), dtype=dtype)


def _weights(
    module: Node, storages: Callable[[str], Tensor], *, prefix: str, seen: set[int]
) -> Iterator[tuple[str, Tensor]]:
    if id(module) in seen:
        raise UnsafePickle("a module occurs twice in it")
    seen.add(id(module))
    state = module.state
    if "_modules" in state:
        tensors, children = state["_parameters"], state["_modules"]
    else:  # TorchScript keeps weights, buffers, layers and numbers in one mapping
        nodes = {name: value for name, value in state.items() if isinstance(value, Node)}
        tensors = {name: node for name, node in nodes.items() if node.name in TENSORS}
        children = {name: node for name, node in nodes.items() if name not in tensors}
    for name, value in tensors.items():
        if value is not None:
            yield prefix + name, _tensor(value, storages)
    for name, child in children.items():
        yield from _weights(child, storages, prefix=f"{prefix}{name}.", seen=seen)


def _tensor(node: Node, storages: Callable[[str], Tensor]) -> Tensor:
    tensor = node.args[0] if node.name == PARAMETER else node
    if tensor.name not in TENSORS:
        raise UnsafePickle(f"one of its weights is a {tensor.name}")
    storage, offset, size, stride, *_ = tensor.args
    return storages(storage.args).as_strided(size, stride, offset)  # which checks the bounds
