"""Stand-ins for what pickles of numpy arrays name: they accept plain numbers and can do nothing else.

A pickle is a program that calls what it names. These are called in place of numpy's own functions, which
were not written to be called by strangers.
"""

from __future__ import annotations

import codecs
import pickle
import re
from collections.abc import Callable
from typing import Any

import numpy as np


class NumberType:
    """Stands in for ``numpy.dtype``: a number type by name, and nothing with fields or objects."""

    def __init__(self, name: str, align: object = False, copy: object = True) -> None:
        if not re.fullmatch(r"[<>=|]?(b1|[iuf][1248])", name):
            raise pickle.UnpicklingError(f"arrays of type {name!r}")
        self.dtype = np.dtype(name)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise pickle.UnpicklingError("arrays of a structured type")
        self.dtype = self.dtype.newbyteorder(order)

    def numbers(self, data: bytes | bytearray | str) -> np.ndarray:
        """A flat array in native byte order, with memory of its own."""
        raw = data.encode("latin1") if isinstance(data, str) else bytes(data)
        return np.frombuffer(raw, self.dtype).astype(self.dtype.newbyteorder("="))


class Array:
    """Stands in for ``numpy.ndarray``."""

    def __init__(self, values: np.ndarray | None = None) -> None:
        self.values = np.empty(0) if values is None else values

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.values = _shaped(dtype.numbers(data), shape, "F" if fortran else "C")


def _shaped(flat: np.ndarray, shape: tuple[int, ...], order: Any) -> np.ndarray:
    return np.ascontiguousarray(flat.reshape(tuple(shape), order=order)).reshape(tuple(shape))


def stand_ins() -> dict[str, Callable[..., Any]]:
    """By the names that numpy 1 and 2 write. Functions are made anew each time, so that a file can spoil only
    its own."""

    def reconstruct(array: object, shape: object, typecode: object) -> Array:
        return Array()

    def from_buffer(data: bytes, dtype: NumberType, shape: tuple[int, ...], order: str) -> Array:
        return Array(_shaped(dtype.numbers(data), shape, order))

    def scalar(dtype: NumberType, data: bytes) -> int | float | bool:
        return dtype.numbers(data)[0].item()

    def no_bytes() -> bytes:  # how protocol 2 writes them; given anything, this fails
        return b""

    def encode(text: str, encoding: str) -> bytes:  # how protocol 2 writes bytes
        if encoding not in ("latin1", "latin-1"):
            raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
        return codecs.latin_1_encode(text)[0]

    known: dict[str, Callable[..., Any]] = {
        "_codecs.encode": encode,
        "numpy.ndarray": Array,
        "numpy.dtype": NumberType,
        "__builtin__.bytes": no_bytes,
        "builtins.bytes": no_bytes,
    }
    for core in ("numpy.core", "numpy._core"):
        known[f"{core}.multiarray._reconstruct"] = reconstruct
        known[f"{core}.multiarray.scalar"] = scalar
        known[f"{core}.numeric._frombuffer"] = from_buffer  # contiguous arrays in protocol 5
    return known
