"""Weights of a module that `torch.save` has pickled, in the zip format or in that before torch 1.6."""

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from cots.errors import BadInput
from cots.models.dvae.pickle_interpreter import PARAMETER, TENSORS, Node, PickleInterpreter, Refused

MAX_BYTES = 2**30  # of a file, unpacked, and of the weights in it; the published ones take 0.2 GB
LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # how a file of torch before 1.6 begins


class Opened(NamedTuple):
    """A file of `torch.save`."""

    module: Node
    storages: Callable[[str], Tensor]  # by key, flat; each once, so that none can fill the memory many times over


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
    machine = PickleInterpreter()
    module = machine.run(io.BytesIO(archive.read(program)))
    return Opened(module, lambda key: _flat(archive.read(f"{folder}data/{key}"), machine.dtypes.pop(key)))


def _legacy(file: IO[bytes]) -> Opened:
    file.seek(0)
    if (PickleInterpreter().run(file), PickleInterpreter().run(file)) != LEGACY:
        raise Refused("torch.save has not written it")
    if not PickleInterpreter().run(file)["little_endian"]:
        raise Refused("it was written by a big-endian machine")
    machine = PickleInterpreter()
    module = machine.run(file)
    storages: dict[str, Tensor] = {}
    for key in PickleInterpreter().run(file):
        size = int.from_bytes(file.read(8), "little") * machine.dtypes[key].itemsize
        if size > MAX_BYTES:
            raise Refused(f"a storage takes more than {MAX_BYTES} bytes")
        data = file.read(size)
        if len(data) < size:
            raise Refused("it ends early")
        storages[key] = _flat(data, machine.dtypes[key])
    return Opened(module, storages.pop)


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
