"""Files of tensors that say what they are, whole or not at all: what the cache of queries is made of."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vistk.models.checkpoints import write_safetensors

_CHECKSUM = "crc32"


class CacheError(ValueError):
    """A cache that cannot be used, or not grow; the message is one sentence for the user."""


class ShardError(CacheError):
    """A file of the cache that is damaged, or is not what its name says."""


def write_shard(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write a safetensors file, at once or not at all; an old one is replaced.

    Args:
        facts: what the tensors are, of plain values; kept in the header, with a checksum over both.

    Raises:
        OSError: the file cannot be written, e.g. on a full disk.
    """
    header = {name: json.dumps(value, sort_keys=True) for name, value in facts.items()}
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    write_safetensors(path, stored, header | {_CHECKSUM: _checksum(stored, header)})


def read_shard(path: Path, expected: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a shard. The tensors lie in the file until they are used: do not write to them.

    Args:
        expected: facts that the shard must have.

    Raises:
        FileNotFoundError: there is no such file.
        ShardError: the file is truncated or damaged, or says something else than expected of itself.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist")
    try:
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, ValueError, OSError) as error:
        raise ShardError(f"{path} is no complete file of queries ({_first_line(error)})") from error
    found = header.pop(_CHECKSUM, None)
    computed = _checksum(tensors, header)
    if found != computed:
        raise ShardError(f"{path} is damaged: its checksum is {computed}, expected {found}")
    facts = {name: json.loads(value) for name, value in header.items()}
    for name, value in expected.items():
        wanted = json.loads(json.dumps(value))  # tuples as the lists that they became
        if facts.get(name) != wanted:
            raise ShardError(f"{path}: {name} is {_short(facts.get(name))}, expected {_short(wanted)}")
    return tensors, facts


def _checksum(tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> str:
    """CRC-32 of names, types, shapes and bytes: against accidents, at the speed of reading."""
    total = zlib.crc32(json.dumps(dict(header), sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name]
        total = zlib.crc32(f"{name} {value.dtype} {tuple(value.shape)}".encode(), total)
        total = zlib.crc32(value.reshape(-1).view(torch.uint8).numpy().data, total)
    return f"{total:08x}"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}.. ({len(text)} characters)"


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
