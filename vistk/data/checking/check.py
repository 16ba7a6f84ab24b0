"""A data set checked from end to end before hours are spent on it: ``vistk data check``.

:meth:`vistk.data.ytvis.YTVIS.load` stops at the first fault. This goes on, counts every kind and keeps
the first examples of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from vistk.data.categories import TABLES
from vistk.data.checking.annotations import FORMATS, Checked, CheckedVideo, check_content
from vistk.data.checking.images import check_images, check_names, extra_images
from vistk.data.checking.report import CheckReport, Findings, Problem, SplitReport
from vistk.data.checking.sources import sources
from vistk.data.json_stream import compressed, load_json
from vistk.data.progress import bar
from vistk.data.ytvis import DataError


@dataclass
class _Split:
    """A split on its way to its report."""

    name: str
    json_path: Path
    image_root: Path | None
    form: str
    findings: Findings
    checked: Checked = field(default_factory=Checked)

    def report(self) -> SplitReport:
        return SplitReport(
            name=self.name,
            json_path=self.json_path,
            image_root=self.image_root,
            format=self.form,
            dataset=_datasets(self.checked.categories),
            counts=self.checked.counts,
            classes=tuple(self.checked.classes),
            problems=self.findings.problems(),
        )


def check(
    root: str | Path,
    splits: Sequence[str] = (),
    *,
    image_root: str | Path | None = None,
    images: Literal["all", "first", "none"] = "all",
    decode: bool = False,
    form: str | None = None,
    data: str | None = None,
    progress: bool = False,
) -> CheckReport:
    """Check splits of a data set.

    Args:
        root: the folder of a data set in any of the published layouts, or one json file.
        splits: which ones; none named = all that are found.
        image_root: the images of a json file; not for a folder.
        images: look at all images, at the first of each video, or at none.
        decode: decode the images; else only their headers are read.
        form: "ytvis" or "coco"; None = by the file's content.
        data: a key of ``TABLES`` whose categories the files are expected to have.
        progress: show bars.

    Raises:
        FileNotFoundError: there is nothing to check.
        DataError: the arguments do not go together.
    """
    root = Path(root)
    if form is not None and form not in FORMATS:
        raise DataError(f"format {form!r} is unknown, expected one of {', '.join(FORMATS)}")
    if data is not None and data not in TABLES:
        raise DataError(f"data set {data!r} has no table, expected one of {', '.join(TABLES)}")
    found = []
    folder = None if image_root is None else Path(image_root)
    for source in sources(root, splits, folder, images != "none", data or ""):
        split = _Split(
            source.name, source.json_path, source.image_root, form or "ytvis", Findings(source.name)
        )
        if source.no_images:
            split.findings.add("image-folder", "{}", source.no_images)
        if _check_json(split, form, progress):
            _check_categories(split.checked.categories, data, split.findings)
            check_names(split.checked.videos, split.findings)
            if images != "none":
                _check_images(split, images == "first", decode, progress)
        found.append(split)
    if images == "all":
        _check_extra(found)
    across = _check_overlap(found, images != "none")
    return CheckReport(root, tuple(split.report() for split in found), across)


def _check_json(split: _Split, form: str | None, progress: bool) -> bool:
    """Fill in ``split.checked``; False where nothing can be made of the file."""
    path, findings = split.json_path, split.findings
    try:
        content = load_json(path, compressed)
    except ValueError as error:  # JSONDecodeError, or bytes that are not UTF-8
        findings.add("not-json", "{}: {}", path, error)
        return False
    if not isinstance(content, dict):
        text = "{}: found a {}, expected an object with 'videos' or 'images'"
        findings.add("structure", text, path, type(content).__name__)
        return False
    if form is None and "images" in content and "videos" not in content:
        split.form = "coco"
    if split.form == "ytvis" and isinstance(content.get("images"), list) and _is_coco_video(content):
        findings.add("coco-video", "{}: its images and annotations are listed frame by frame", path)
        return False
    annotations = content.get("annotations")
    total = len(annotations) if isinstance(annotations, list) else 0
    with bar(total, f"{split.name}: annotations", "annotation", progress) as shown:
        split.checked = check_content(content, split.form, findings, shown)
    return True


def _is_coco_video(content: dict[str, Any]) -> bool:
    videos = content.get("videos")
    first = videos[0] if isinstance(videos, list) and videos else None
    return isinstance(first, dict) and "file_names" not in first


def _check_images(split: _Split, first_only: bool, decode: bool, progress: bool) -> None:
    if split.image_root is None:
        return
    videos = split.checked.videos
    total = sum(min(1, len(v.file_names)) if first_only else len(v.file_names) for v in videos)
    with bar(total, f"{split.name}: images", "image", progress) as shown:
        opened = check_images(
            videos, split.image_root, split.findings, shown, first_only=first_only, decode=decode
        )
    split.checked.counts |= {"images_opened": opened, "decoded": int(decode)}


def _check_extra(splits: Sequence[_Split]) -> None:
    """Images that no split names; reported with the first split of their folder."""
    users: dict[Path, list[_Split]] = {}
    for split in splits:
        if split.image_root is not None and split.checked.videos:
            users.setdefault(split.image_root.resolve(), []).append(split)
    for folder, sharing in users.items():
        named = (file for split in sharing for video in split.checked.videos for file in video.file_names)
        for path in extra_images(folder, named):
            sharing[0].findings.add("extra-image", "{}", folder / path)


def _plain(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def _datasets(categories: Mapping[int, str]) -> tuple[str, ...]:
    return tuple(name for name, table in TABLES.items() if table == categories)


def _check_categories(categories: Mapping[int, str], data: str | None, findings: Findings) -> None:
    """Against the table that is expected; or, if it is nearly one of the published ones, against that."""
    if data is not None:
        # As the loader has it, spelling does not make another data set.
        for text in _differences(categories, TABLES[data], plain=True):
            findings.add("categories-differ", "{}", f"{text} in {data}")
    if not categories or _datasets(categories) or findings.has("categories-differ"):
        return
    own = {_plain(name) for name in categories.values()}
    shared = {name: len(own & {_plain(n) for n in table.values()}) for name, table in TABLES.items()}
    best = max(shared, key=lambda name: shared[name] / max(len(TABLES[name]), len(own)))
    if shared[best] >= 0.8 * max(len(TABLES[best]), len(own)):
        findings.notes["category-near-miss"] = f"compared with {best}"
        for text in _differences(categories, TABLES[best]):
            findings.add("category-near-miss", "{}", f"{text} in {best}")


def _differences(found: Mapping[int, str], table: Mapping[int, str], plain: bool = False) -> list[str]:
    """Ids whose names differ, in words that end before "in <data set>"; ``plain``: by more than spelling."""
    return [
        f"category {identity} is {_named(found, identity)}, {_named(table, identity)}"
        for identity in sorted(found.keys() | table.keys())
        if found.get(identity) != table.get(identity)
        and not (plain and _plain(found.get(identity, "")) == _plain(table.get(identity, "")))
    ]


def _named(table: Mapping[int, str], identity: int) -> str:
    return repr(table[identity]) if identity in table else "absent"


def _check_overlap(splits: Sequence[_Split], look: bool) -> tuple[Problem, ...]:
    """Videos that two splits share, by the name of their folder and the bytes of their first frame."""
    problems: list[Problem] = []
    for one, other in combinations(splits, 2):
        findings = Findings(f"{one.name}, {other.name}")
        trained = one.name.startswith("train") != other.name.startswith("train")
        firsts = [
            {_source(video): video.file_names[0] for video in split.checked.videos if video.file_names}
            for split in (one, other)
        ]
        for key, name in firsts[0].items():
            if key not in firsts[1]:
                continue
            same = None
            if look and one.image_root is not None and other.image_root is not None:
                same = _same_bytes(one.image_root / name, other.image_root / firsts[1][key])
            if same is False:
                findings.add("same-folder", "{}", key)
            elif same and trained:
                findings.add("leak", "{}", key)
            else:
                findings.add("overlap", "{}{}", key, "" if same else " (by name; images not compared)")
        problems += findings.problems()
    return tuple(problems)


def _source(video: CheckedVideo) -> str:
    """The folder of a video, or the file of a still: what would be the same in another split."""
    name = PurePosixPath(video.file_names[0])
    folder = name.parent
    return str(name if len(video.file_names) == 1 or str(folder) == "." else folder)


def _same_bytes(a: Path, b: Path) -> bool | None:
    """None where they cannot be compared."""
    if not a.is_file() or not b.is_file():
        return None
    return a.samefile(b) or (a.stat().st_size == b.stat().st_size and a.read_bytes() == b.read_bytes())
