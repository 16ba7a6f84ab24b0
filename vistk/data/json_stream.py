"""A large json file read piece by piece: its text is never in memory as a whole.

The run lengths of a YouTube-VIS file are a hundred million numbers, gigabytes as Python integers; so a
hook makes something smaller of an object as soon as it has been read.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from vistk.ops.masks import to_rle

CHUNK = 1 << 20
"""Bytes read at a time."""

_SPACE = " \t\n\r"


def load_json(path: Path, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """What ``json.loads`` makes of a file.

    A top-level list, and the lists of a top-level object, are decoded entry by entry, everything else at
    once.

    Args:
        object_hook: as for ``json.loads``, but not called for the top-level object itself.

    Raises:
        ValueError: the file is not json (``json.JSONDecodeError``; its position is that in the file), not
            UTF-8, or nested too deeply to be read.
    """
    with path.open("rb") as file:
        reader = _Reader(file, json.JSONDecoder(object_hook=object_hook))
        try:
            return reader.document()
        except RecursionError as error:
            raise ValueError("its lists and objects are nested too deeply") from error


class _Reader:
    """A window of the text, moved on as it is decoded."""

    def __init__(self, file: BinaryIO, decoder: json.JSONDecoder) -> None:
        self._file, self._decoder = file, decoder
        self._utf8 = codecs.getincrementaldecoder("utf-8-sig")()
        self._begun = False
        self._text, self._at = "", 0
        self._passed = 0  # characters before the window
        self._size = 0  # of the last value

    def document(self) -> Any:
        start = self._peek()
        value: Any
        if start == "{":
            value = {}
            self._sequence("}", lambda: value.update([self._member()]))
        elif start == "[":
            value = self._list()
        else:
            value = self._value()
        if self._peek():
            raise self._error("Extra data")
        return value

    def _member(self) -> tuple[str, Any]:
        if self._peek() != '"':
            raise self._error("Expecting property name enclosed in double quotes")
        key = self._value()
        if self._peek() != ":":
            raise self._error("Expecting ':' delimiter")
        self._at += 1
        return key, self._list() if self._peek() == "[" else self._value()

    def _list(self) -> list[Any]:
        entries: list[Any] = []
        self._sequence("]", lambda: entries.append(self._value()))
        return entries

    def _sequence(self, closing: str, read_one: Callable[[], None]) -> None:
        """From an opening bracket to behind the closing one."""
        self._at += 1
        if self._peek() == closing:
            self._at += 1
            return
        while True:
            read_one()
            mark = self._peek()
            if mark not in (",", closing) or not mark:
                raise self._error("Expecting ',' delimiter")
            self._at += 1
            if mark == closing:
                return

    def _peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _value(self) -> Any:
        self._peek()
        if len(self._text) - self._at < self._size:  # likely to be cut off: a failure costs time
            self._more()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._more():  # cut off, perhaps
                    continue
                self._at = error.pos
                raise self._error(error.msg) from None
            if end + 2 >= len(self._text) and self._more():  # a number may go on, as in 1e+5
                continue
            self._size, self._at = end - self._at, end
            return value

    def _more(self) -> bool:
        """Drop what was decoded and read on; False, and all is as it was, at the end of the file."""
        # As much again as is waiting, so that one huge value is not tried again for every chunk.
        data = self._file.read(max(CHUNK, len(self._text) - self._at))
        pending, _ = self._utf8.getstate()
        # The decoder is slow; it is needed for the first part, which may begin with a byte order mark.
        plain = self._begun and not pending and data.isascii()
        added = data.decode("ascii") if plain and data else self._utf8.decode(data, final=not data)
        self._begun = True
        if not data:
            return False
        self._passed += self._at
        self._text, self._at = self._text[self._at :] + added, 0
        return True

    def _error(self, message: str) -> json.JSONDecodeError:
        """With the position in the file, as ``json.loads`` counts."""
        error = json.JSONDecodeError(message, self._text, min(self._at, len(self._text)))
        lines, column = self._end_of_passed()
        line, position = error.lineno + lines, error.pos + self._passed
        column = error.colno + (column if error.lineno == 1 else 0)
        error.args = (f"{message}: line {line} column {column} (char {position})",)
        error.lineno, error.colno, error.pos = line, column, position
        return error

    def _end_of_passed(self) -> tuple[int, int]:
        """Lines before the window, and characters of its first line that are before it."""
        self._file.seek(0)
        text = codecs.getreader("utf-8-sig")(self._file)
        lines, column, left = 0, 0, self._passed
        while left:
            part = text.read(chars=min(CHUNK, left))
            lines += part.count("\n")
            newline = part.rfind("\n")
            column = len(part) - newline - 1 if newline >= 0 else column + len(part)
            left -= len(part)
        return lines, column


def compressed(entry: dict[str, Any]) -> dict[str, Any]:
    """For ``object_hook``: uncompressed RLEs compressed as soon as they are read, a hundred times smaller.

    What is broken stays as it is, to be named when its place in the file is known.
    """
    if isinstance(entry.get("counts"), list) and "size" in entry:
        try:
            return to_rle(entry, *entry["size"])
        except (ValueError, TypeError, OverflowError):
            return entry
    return entry
