"""What ``vistk data check`` finds: the kinds of problems, how they are collected, how they are printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Level = Literal["error", "warning", "info"]

MAX_EXAMPLES = 3
"""Examples that are kept of each kind of problem."""

KINDS: Mapping[str, tuple[Level, str]] = {
    # Training or evaluation fails, or gives wrong numbers.
    "not-json": ("error", "files that are not json"),
    "structure": ("error", "fields that are missing or of another type"),
    "coco-video": ("error", "COCO video files, which 'vistk data convert coco-video' turns into YouTube-VIS"),
    "id-type": ("error", "ids that are not integers"),
    "duplicate-video-id": ("error", "video ids given again"),
    "duplicate-annotation-id": ("error", "annotation ids given again"),
    "duplicate-category-id": ("error", "category ids given again"),
    "unknown-video": ("error", "annotations of a video that is not in the file"),
    "unknown-category": ("error", "annotations of a category that is not in the file"),
    "length": ("error", "lists that do not have one entry per frame"),
    "crowd-value": ("error", "iscrowd that is neither 0 nor 1"),
    "area-value": ("error", "areas that are not finite numbers"),
    "occlusion-word": ("error", "occlusion in words that OVIS does not have"),
    "segmentation": ("error", "segmentations that are neither RLE nor polygons"),
    "rle-size": ("error", "RLEs of another size than their frame"),
    "rle-coverage": ("error", "RLEs whose runs do not cover their frame"),
    "polygon": ("error", "polygons that cannot be drawn"),
    "categories-differ": ("error", "categories that differ from the published table"),
    "backslash": ("error", "file names with backslashes, which are folders on Windows alone"),
    "image-folder": ("error", "splits whose folder of images was not found"),
    "image-missing": ("error", "images that do not exist"),
    "image-unreadable": ("error", "images that cannot be read"),
    "image-size": ("error", "images of another size than the json says"),
    "leak": ("error", "videos that are in a training split and in another one"),
    # Odd, but handled.
    "id-zero": (
        "warning",
        "annotation ids of 0: fine here, but the official evaluator never matches them",
    ),
    "annotation-size": ("warning", "annotations whose height, width or length is not their video's"),
    "box-value": (
        "warning",
        "boxes that are not four finite numbers per frame (they are not used)",
    ),
    "box-differs": ("warning", "boxes that do not enclose their mask (they are not used)"),
    "area-differs": ("warning", "stored areas that are not the mask's: ranges of AP go by the stored ones"),
    "no-mask": ("warning", "annotations without a mask in any frame"),
    "empty-mask": ("warning", "masks without a pixel where null was meant"),
    "polygon-outside": ("warning", "polygons that reach out of the frame: cut at its border"),
    "no-frames": ("warning", "videos without frames: not trained on"),
    "repeated-file": ("warning", "images that are named again"),
    "outside-folder": ("warning", "file names that lead out of the image folder"),
    "category-name": ("warning", "category names given again"),
    "category-near-miss": ("warning", "categories that are almost those of a published table"),
    "class-unused": ("warning", "categories without an instance: they can be neither learned nor scored"),
    "image-case": (
        "warning",
        "file names whose case is not that on disk: missing on other systems",
    ),
    "image-depth": ("warning", "images of more than 8 bits, which are clipped on reading"),
    "image-turned": ("warning", "images that ask to be turned on display (EXIF): they are read as stored"),
    "overlap": ("warning", "videos that are in several splits"),
    # Good to know.
    "hidden": ("info", "splits without annotations: they cannot be trained on or scored here"),
    "zero-video-or-category": ("info", "video or category ids of 0: fine here, background to some tools"),
    "crowd": ("info", "crowd annotations: not trained on, no false positives when matched"),
    "one-frame": ("info", "videos of one frame: nothing to track"),
    "long-video": ("info", "videos of more than 300 frames: inference holds the results of one in memory"),
    "no-annotations": (
        "info",
        "videos without annotations: not trained on, but scored",
    ),
    "image-mode": ("info", "images that are not RGB: converted on reading"),
    "extra-image": ("info", "images in the folder that the json does not name"),
    "same-folder": ("info", "video folders of one name in several splits, with different images"),
}
"""Level of each kind of problem and, in the plural, what it is."""


@dataclass(frozen=True)
class Problem:
    """One kind of problem in one split: how often, and the first cases."""

    kind: str  # a key of KINDS
    level: Level
    split: str
    count: int
    examples: tuple[str, ...]  # the first ones, at most MAX_EXAMPLES
    note: str = ""  # what all cases have in common, such as the largest difference

    @property
    def what(self) -> str:
        """The problem in words."""
        return KINDS[self.kind][1]


class Findings:
    """Collects the problems of one split; examples beyond the first ones are counted only."""

    def __init__(self, split: str) -> None:
        self.split = split
        self.notes: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, kind: str, text: str, *parts: Any) -> None:
        """One more case of ``kind``; ``text`` is formatted with ``parts`` only if it will be shown."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        examples = self._examples.setdefault(kind, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(text.format(*parts) if parts else text)

    def has(self, kind: str) -> bool:
        """Whether there is a case of ``kind``."""
        return kind in self._counts

    def problems(self) -> tuple[Problem, ...]:
        """In the order of ``KINDS``: errors, warnings, notes."""
        return tuple(
            Problem(kind, level, self.split, count, tuple(self._examples[kind]), self.notes.get(kind, ""))
            for kind, (level, _) in KINDS.items()
            if (count := self._counts.get(kind, 0))
        )


@dataclass(frozen=True)
class ClassCount:
    """How often a category is annotated."""

    id: int
    name: str
    instances: int
    videos: int


@dataclass(frozen=True)
class SplitReport:
    """What one json file holds."""

    name: str
    json_path: Path
    image_root: Path | None  # None where images were not looked at and no folder was given
    format: str  # "ytvis" or "coco"
    dataset: tuple[str, ...]  # published data sets with exactly these categories
    counts: Mapping[str, int]  # videos, frames, annotations, masks, null_frames, images_opened ..
    classes: tuple[ClassCount, ...]
    problems: tuple[Problem, ...]


@dataclass(frozen=True)
class CheckReport:
    """The outcome of a check; see :func:`vistk.data.checking.check.check`."""

    root: Path
    splits: tuple[SplitReport, ...]
    across: tuple[Problem, ...] = field(default=())  # problems between splits

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Of all splits in turn, then those between them."""
        return tuple(problem for split in self.splits for problem in split.problems) + self.across

    @property
    def ok(self) -> bool:
        """No errors; warnings are allowed."""
        return not any(problem.level == "error" for problem in self.problems)

    def as_dict(self) -> dict[str, Any]:
        """Everything, ready for json; paths are strings."""
        return {
            "root": str(self.root),
            "ok": self.ok,
            "verdict": self.verdict(),
            "splits": [
                {
                    "name": split.name,
                    "json": str(split.json_path),
                    "images": None if split.image_root is None else str(split.image_root),
                    "format": split.format,
                    "dataset": list(split.dataset),
                    "counts": dict(split.counts),
                    "classes": [asdict(entry) for entry in split.classes],
                }
                for split in self.splits
            ],
            "problems": [
                asdict(problem) | {"what": problem.what, "examples": list(problem.examples)}
                for problem in self.problems
            ],
        }

    def verdict(self) -> str:
        """The last line of the text."""
        errors, warnings = (
            sum(problem.count for problem in self.problems if problem.level == level)
            for level in ("error", "warning")
        )
        names = ", ".join(split.name for split in self.splits)
        found = f"{errors} error{'s' * (errors != 1)}, {warnings} warning{'s' * (warnings != 1)}"
        return f"{'usable' if self.ok else 'NOT usable'}: {found} ({names})"

    def to_text(self) -> str:
        """A paragraph per split, the problems by level, and a verdict in the last line."""
        lines: list[str] = []
        for split in self.splits:
            lines += [*_split_lines(split), *_problem_lines(split.problems), ""]
        if self.across:
            for pair in dict.fromkeys(problem.split for problem in self.across):
                lines += [f"{pair} together", *_problem_lines([p for p in self.across if p.split == pair])]
            lines.append("")
        return "\n".join([*lines, self.verdict()]) + "\n"


def _split_lines(split: SplitReport) -> list[str]:
    counts = split.counts
    unit = "videos" if split.format == "ytvis" else "images"
    where = f", images in {split.image_root}" if split.image_root else ""
    lines = [f"{split.name}: {split.json_path}{where}"]
    numbers = [f"{counts.get('videos', 0)} {unit}"]
    if split.format == "ytvis":
        numbers.append(f"{counts.get('frames', 0)} frames ({_span(counts)} a video)")
    if counts.get("annotations"):
        numbers += [f"{counts['annotations']} annotations", f"{counts['masks']} masks"]
        if split.format == "ytvis":
            numbers.append(f"{counts['null_frames']} null frames")
    if counts.get("images_opened"):
        numbers.append(f"{counts['images_opened']} images {'decoded' if counts['decoded'] else 'opened'}")
    known = f", those of {' and '.join(split.dataset)}" if split.dataset else ""
    numbers.append(f"{len(split.classes)} categories{known}")
    lines.append("  " + "; ".join(numbers))
    if counts.get("annotations"):
        used = [entry for entry in split.classes if entry.instances]
        used.sort(key=lambda entry: (-entry.instances, entry.id))
        text = ", ".join(f"{entry.name} {entry.instances}/{entry.videos}" for entry in used)
        lines.append(f"  instances/{unit} by category: {text or 'none'}")
    return lines


def _span(counts: Mapping[str, int]) -> str:
    low, high = counts.get("shortest", 0), counts.get("longest", 0)
    return str(low) if low == high else f"{low} to {high}"


def _problem_lines(problems: Sequence[Problem]) -> list[str]:
    lines = []
    for problem in problems:
        note = f"; {problem.note}" if problem.note else ""
        lines.append(f"  {problem.level:<7} {problem.count:>7}  {problem.kind}: {problem.what}{note}")
        lines += [f"{'':>19}{example}" for example in problem.examples]
    return lines
