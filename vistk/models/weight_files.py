"""Reading weights from any file that published models come in, without running what the file says.

PyTorch files and pickles are programs. Here they may build containers, numbers, tensors and numpy
arrays, and nothing else; the numpy classes that a pickle names are replaced by stand-ins that accept
plain numbers only.
"""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vistk.models.number_pickles import Array, stand_ins


class CheckpointError(ValueError):
    """Weights that cannot be read or do not fit; the message says what did not match."""


@dataclass(frozen=True)
class WeightFile:
    """The tensors of a file under the names that the file has.

    Attributes:
        state: tensors by name, on the CPU.
        format: of the file, in words.
        source: what was read, for messages.
        metadata: what else the file says: the header of safetensors, numbers and texts beside the
            weights of a training checkpoint.
    """

    state: dict[str, Tensor]
    format: str
    source: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def categories(self) -> dict[int, str] | None:
        """Name of every class by its id in the data set; None where the file does not say, as published."""
        named = self.metadata.get("categories")
        if not isinstance(named, dict) or not all(key.isdecimal() for key in named):
            return None
        return {int(key): str(name) for key, name in named.items()}


FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "weights.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""What is looked for in a folder: a Transformers model or a run."""

_STATE_KEYS = ("model", "state_dict")
_ZIP, _PICKLE = b"PK\x03\x04", b"\x80"
_TORCH_BEFORE_1_6 = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number, after the two bytes of PROTO
_BROKEN = (  # what unpicklers raise on bytes that are not what they seem
    pickle.UnpicklingError,
    AttributeError,
    EOFError,
    ImportError,
    IndexError,
    KeyError,
    MemoryError,
    OverflowError,
    RuntimeError,
    TypeError,
    ValueError,
)


def read_state(source: str | Path | Mapping[str, Any]) -> WeightFile:
    """Read weights.

    Args:
        source: a file of PyTorch (any version; a state dict, or one under ``model`` or ``state_dict``),
            a pickle with numpy arrays (Detectron2's model zoo), safetensors, an ``index.json`` of
            several files, a folder of a Transformers model or of a run; or a mapping in memory with
            tensors or arrays, plain or under ``model`` or ``state_dict``.

    Raises:
        CheckpointError: one sentence: the file is missing, broken, of another kind, holds no weights, or
            names a Python object that has no place in weights.
    """
    if isinstance(source, Mapping):
        return _found_in(source, "in memory", "the given state dict")
    path = Path(source)
    if path.is_dir():
        path = _file_of_folder(path)
    if not path.is_file():
        raise CheckpointError(f"weights {path}: no such file")
    with path.open("rb") as file:
        head = file.read(512)
    if path.name.endswith(".index.json"):
        return _read_shards(path)
    if head.startswith(_ZIP):
        return _read_torch(path, "PyTorch")
    # The first eight bytes of safetensors are a length; as such they may look like any other beginning.
    header = head[8:9] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size
    if header or (path.suffix == ".safetensors" and _not_weights(head) is None):
        state, metadata = read_safetensors(path)
        return WeightFile(state, "safetensors", str(path), metadata)
    if head.startswith(_PICKLE):
        old = head[2:].startswith(_TORCH_BEFORE_1_6)
        return _read_torch(path, "PyTorch before 1.6") if old else _read_pickle(path)
    raise CheckpointError(
        f"weights {path}: {_not_weights(head) or f'starts with {head[:8]!r}'}, "
        "expected a file of PyTorch, a pickle or safetensors"
    )


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of one safetensors file; metadata that is json is decoded.

    Raises:
        CheckpointError: the file is missing or is no complete safetensors file.
    """
    if not path.is_file():
        raise CheckpointError(f"weights {path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            metadata = {key: _decoded(value) for key, value in (file.metadata() or {}).items()}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"weights {path}: not a complete safetensors file ({error})") from error
    return state, metadata


def _decoded(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:  # others than this project write plain text
        return text


def _file_of_folder(folder: Path) -> Path:
    for name in FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"weights {folder}: a folder without weights, expected one of {', '.join(FOLDER_FILES)} in it"
    )


def _not_weights(head: bytes) -> str | None:
    """What a file is that is often taken for weights."""
    text = head.lstrip().lower()
    if not head:
        return "an empty file"
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, so the download has failed"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file that it stands for"
    return None


def files_of(path: str | Path) -> tuple[Path, ...]:
    """The files that :func:`read_state` reads: the one in a folder, the index and all that it names.

    Raises:
        CheckpointError: a folder without weights, or a broken index.
    """
    path = _file_of_folder(Path(path)) if Path(path).is_dir() else Path(path)
    if path.is_file() and path.name.endswith(".index.json"):
        return (path, *(path.parent / name for name in sorted(set(_weight_map(path).values()))))
    return (path,)


def _weight_map(path: Path) -> dict[str, str]:
    """The file of each entry, by an index of several files."""
    try:
        where = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        files = set(where.values())
        plain = all(Path(name).name == name != ".." and not name.endswith(".index.json") for name in files)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"weights {path}: not an index of weights with a 'weight_map'") from error
    if not plain:
        raise CheckpointError(f"weights {path}: names other things than files of weights beside it")
    return where


def _read_shards(path: Path) -> WeightFile:
    """All files that an index names, as one state."""
    where = _weight_map(path)
    files = sorted(set(where.values()))
    state: dict[str, Tensor] = {}
    metadata: dict[str, Any] = {}
    for name in files:
        part = read_state(path.parent / name)
        state |= part.state
        metadata |= part.metadata
    absent = sorted(set(where) - set(state))
    if absent:
        raise CheckpointError(
            f"weights {path}: {len(absent)} entries are not in its files, the first is {absent[0]}"
        )
    return WeightFile(state, f"{len(files)} files with an index", str(path), metadata)


def _read_torch(path: Path, kind: str) -> WeightFile:
    allowed: list[Any] = [(value, name) for name, value in stand_ins().items()]
    try:
        with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about kinds of files that are then refused
            # mapped: the optimiser's state of a training checkpoint is not read at all
            tree = torch.load(path, map_location="cpu", weights_only=True, mmap=kind == "PyTorch")
    except _BROKEN as error:
        refused = re.search(r"(?:GLOBAL|Unsupported class|unrecognized function) ([\w.]+)", str(error))
        if refused and "." in refused[1]:
            raise _refusal(path, refused[1]) from error
        if "TorchScript" in str(error):
            raise CheckpointError(f"weights {path}: a program of TorchScript, expected weights") from error
        raise CheckpointError(
            f"weights {path}: not a complete file of PyTorch weights{_cause(error)}"
        ) from error
    return _found_in(tree, kind, str(path))


def _read_pickle(path: Path) -> WeightFile:
    with path.open("rb") as file:
        unpickler = _NumbersOnly(file, path)
        try:
            tree = unpickler.load()
        except CheckpointError:
            raise
        except _BROKEN as error:
            raise CheckpointError(f"weights {path}: not a complete pickle{_cause(error)}") from error
    return _found_in(tree, "pickle", str(path))


def _refusal(path: Path, name: str) -> CheckpointError:
    return CheckpointError(
        f"weights {path}: names {name}, which is neither a number nor an array and could run code when "
        "loaded; only tensors, arrays and plain containers are read"
    )


def _cause(error: BaseException) -> str:
    """The message of an error on one line, in brackets; not PyTorch's advice to load the file unchecked."""
    text = str(error).strip()
    if text.startswith("Weights only load failed"):
        text = text.partition("WeightsUnpickler error:")[2].strip()
    line = next(iter(text.splitlines()), "")[:200].rstrip(". ")
    return f" ({line})" if line else ""


class _NumbersOnly(pickle.Unpickler):
    """Unpickles containers and arrays of numbers; refuses every other global by name."""

    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")  # arrays that Python 2 pickled
        self._path = path
        self._known = stand_ins() | {"collections.OrderedDict": OrderedDict}

    def find_class(self, module: str, name: str) -> Any:
        known = self._known.get(f"{module}.{name}")
        if known is None:
            raise _refusal(self._path, f"{module}.{name}")
        return known


def _found_in(tree: object, kind: str, source: str) -> WeightFile:
    """The state dict in what a file holds."""
    if not isinstance(tree, Mapping):
        raise CheckpointError(f"weights {source}: holds a {type(tree).__name__}, expected a state dict")
    key = next((key for key in _STATE_KEYS if isinstance(tree.get(key), Mapping)), None)
    found = tree if key is None else tree[key]
    state = {}
    for name, value in found.items():
        tensor = _tensor(value)
        if tensor is None or not isinstance(name, str):
            where = f"entry {name!r}" + ("" if key is None else f" of {key!r}")
            raise CheckpointError(
                f"weights {source}: {where} is a {type(value).__name__}, expected a state dict of tensors or "
                f"arrays, plain or under {' or '.join(map(repr, _STATE_KEYS))}"
            )
        state[name] = tensor
    if not state:
        raise CheckpointError(f"weights {source}: holds no weights")
    beside = {} if key is None else {k: v for k, v in tree.items() if k != key}
    plain = {str(k): v for k, v in beside.items() if isinstance(v, str | int | float | bool)}
    return WeightFile(state, kind, source, plain)


def _tensor(value: object) -> Tensor | None:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Array):
        value = value.values
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        native = value.astype(value.dtype.newbyteorder("="), copy=False)
        return torch.from_numpy(native if native.flags.writeable else native.copy())
    return None
