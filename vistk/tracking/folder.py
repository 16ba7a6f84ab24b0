"""The folder of ``vistk track``: what in it is ours, what stays as it is, and what a killed command left."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from vistk.files import write_text
from vistk.tracking.model import TrackingError
from vistk.tracking.outputs import FOLDERS, NAMES, RESULTS, UNFINISHED

ABOUT = "about.json"
STORE = ".segmented"
"""Folder of the queries of the frames so far; gone when all is done."""

_LEFT = re.compile(rf"({re.escape(UNFINISHED)}|\.{re.escape(ABOUT)}\.)[a-z0-9_]{{8}}(\.tmp)?")
"""Temporary names of a command that was killed."""


class About(NamedTuple):
    """``about.json``.

    ``files`` are all those in the folder that a command wrote: nothing else is ever replaced or removed.
    """

    asked: Mapping[str, Any]  # what the files depend on
    made: Mapping[str, Any] | None  # None while it is at work
    files: tuple[str, ...]  # by their paths in the folder
    replaces: Mapping[str, Any] | None = None  # asked and made before, as long as those files are there


class Folder:
    """What a command may do in its folder.

    Args:
        out: the folder, there or not.
        plan: all that the outputs depend on, in plain values.
    """

    def __init__(self, out: Path, plan: Mapping[str, Any]) -> None:
        self.out, self.plan = out, plan
        self._before: About | None = None

    def require_apart(self, inputs: Iterable[Path]) -> None:
        """Raise a TrackingError if one of the inputs is what the command would replace, or lies in it."""
        places = {(self.out / name).resolve(): name for name in (*NAMES, ABOUT, STORE)}
        for path in inputs:
            found = path.resolve()
            for place in (found, *found.parents):
                if place in places:
                    raise TrackingError(
                        f"{path} is a part of {self.out / places[place]}, which is what would be written; "
                        "give another folder"
                    )

    def make(self) -> None:
        """Raise a TrackingError if there cannot be such a folder."""
        if self.out.is_dir():
            return
        if self.out.exists() or self.out.is_symlink():
            what = "a link to nothing" if self.out.is_symlink() else "a file"
            raise TrackingError(f"{self.out} is {what}, expected a folder for the results")
        self.out.mkdir(parents=True)

    def is_done(self, overwrite: bool) -> bool:
        """Whether there is nothing left to do. The folder has to be locked from here on.

        Raises:
            TrackingError: the folder is somebody else's, or of another command that is not to be replaced.
        """
        before = self._before = self._read()
        if before is None:
            there = [name for name in (*NAMES, STORE) if _is_there(self.out / name)]
            if there:
                raise TrackingError(
                    f"{self.out} holds {there[0]}, and no {ABOUT} that says who wrote it; give another "
                    "folder, or move it away"
                )
            return False
        others = list(_differences(before.asked, self.plan))
        if others and not overwrite:
            raise TrackingError(
                f"{self.out / ABOUT} is of another command: {others[0]}; give another folder or say "
                "--overwrite"
            )
        if overwrite or before.made is None or not (self.out / RESULTS).exists():
            return False
        if "camera" in self.plan["input"]:
            raise TrackingError(f"{self.out} holds a recording; give another folder or say --overwrite")
        return True

    def require_ours(self, wanted: Iterable[str]) -> None:
        """Raise a TrackingError if one of the wanted files, or one in a wanted folder, is somebody else's."""
        ours = self._files
        for name in wanted:
            top = self.out / PurePosixPath(name).parts[0]
            is_folder = top.name in FOLDERS
            if is_folder and _is_there(top) and (top.is_symlink() or not top.is_dir()):
                raise TrackingError(f"{top} is no folder of an earlier command; move it away")
            path = self.out / name
            inside = sorted(path.iterdir()) if is_folder and path == top and path.is_dir() else [path]
            for one in inside:
                relative = one.relative_to(self.out).as_posix()
                if _is_there(one) and (relative not in ours or one.is_dir()):
                    raise TrackingError(f"{one} is in the way, and no command wrote it; move it away")

    def sweep(self) -> None:
        """Remove what a killed command left under temporary names."""
        for path in list(self.out.iterdir()):
            if _LEFT.fullmatch(path.name):
                _remove(path)

    def drop_other_frames(self) -> None:
        """Remove what was segmented of other frames, or by another network."""
        before = self._before
        if before is not None and any(before.asked[part] != self.plan[part] for part in ("input", "network")):
            self.drop_frames()

    def drop_frames(self) -> None:
        """Remove what was segmented."""
        _remove(self.out / STORE)

    def claim(self) -> None:
        """From here on the folder is that of this command; what is there stays until all is known."""
        before = self._before
        if before is not None and before.made is not None:
            replaces: Mapping[str, Any] | None = {"asked": before.asked, "made": before.made}
        else:
            replaces = None if before is None else before.replaces
        self._before = About(self.plan, None, () if before is None else before.files, replaces)
        self._write(self._before)

    def take(self, new: Path, files: Sequence[str]) -> None:
        """Move finished files into the folder, and remove those of earlier commands that are not among them.

        Args:
            new: a folder in the same file system.
            files: by their paths in it.
        """
        before = self._files
        # Killed in between, the same command knows all of them.
        self._write(About(self.plan, None, tuple(sorted({*before, *files}))))
        for name in files:
            (self.out / name).parent.mkdir(exist_ok=True)
            (new / name).replace(self.out / name)
        for name in sorted(before.difference(files)):
            if not (self.out / name).parent.is_symlink():
                (self.out / name).unlink(missing_ok=True)
        for name in FOLDERS:
            path = self.out / name
            if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        self._before = About(self.plan, None, tuple(files))

    def finish(self, made: Mapping[str, Any]) -> None:
        """All is there."""
        assert self._before is not None
        self._write(self._before._replace(made=made))

    @property
    def _files(self) -> frozenset[str]:
        return frozenset(() if self._before is None else self._before.files)

    def _read(self) -> About | None:
        path = self.out / ABOUT
        if not _is_there(path):
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            files = tuple(found["files"])
            about = About(found["asked"], found["made"], files, found.get("replaces"))
            known = all(isinstance(about.asked[part], dict) for part in ("input", "network", "shown"))
            if not known or not all(map(_may_be_ours, files)):
                raise ValueError(path.name)
        except (ValueError, KeyError, TypeError, AttributeError, IsADirectoryError) as error:
            raise TrackingError(
                f"{path} is damaged, or no file of ours; give another folder, or move it away"
            ) from error
        return about

    def _write(self, about: About) -> None:
        content = about._asdict()
        if about.replaces is None:
            del content["replaces"]
        write_text(self.out / ABOUT, json.dumps(content, indent=2) + "\n")


def _may_be_ours(name: Any) -> bool:
    """Whether a command may have written a file of that path."""
    parts = name.split("/")
    if len(parts) == 1:
        return name in NAMES and name not in FOLDERS
    return len(parts) == 2 and parts[0] in FOLDERS and parts[1] not in ("", ".", "..")


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    for part in here:
        for key in {**there[part], **here[part]}:
            old, new = there[part].get(key), here[part].get(key)
            if old != new:
                yield f"{part}: {key} is {old} there and {new} here"


def _is_there(path: Path) -> bool:
    return path.exists() or path.is_symlink()


def _remove(path: Path) -> None:
    """A file or a folder of ours; of a link the link alone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
