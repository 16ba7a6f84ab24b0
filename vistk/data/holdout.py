"""A validation split of one's own, out of training videos, for data whose other ground truth is hidden.

The rule, in full, so that another project can arrive at the same videos:

1. The *name* of a video is the folder of its first frame (``0043f083b5`` of ``0043f083b5/00000.jpg``; the
   file name where there is no folder). Videos of one name go together and count as one; those without
   frames stay in training. The *classes* of a name are the category ids of its annotations without
   crowds; names that have none form one more class, which comes last.
2. Names are ordered by the sha256 digest of their UTF-8 bytes, as hexadecimal text.
3. Classes are gone through from the one with the fewest names to the one with the most, equal ones by
   rising category id. Of a class with ``n`` names, ``k = floor(share * n + 1/2)`` are held out, but at least
   1 and at most ``n - 1`` (none if ``n`` is 1). Held-out names of earlier classes count. Of its names
   that no earlier class has settled, by rising digest, names are held out until there are ``k``; a name
   is passed over if it is the last one in training of any of its classes. Then all names of the class
   are settled.
4. Once more in this order: of a class of two or more names none of which is held out, the first name by
   digest is moved over that is not the last one in training of any of its classes, if there is one.

So the split depends neither on ids nor on the order of the file, and more videos of some classes leave
those of others nearly as they are.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import VideoRecord

_WITHOUT_CLASS = None


@dataclass(frozen=True)
class ClassShare:
    """How the videos and instances of a category, crowds left out, came to lie on the two sides."""

    train_videos: int
    train_instances: int
    held_out_videos: int
    held_out_instances: int


def split_videos(source: YTVIS, share: float) -> tuple[YTVIS, YTVIS]:
    """Training and held-out videos of a data set, by the rule above; both in the order of the file.

    To score on the held-out ones, give them to :func:`vistk.evaluation.ground_truth.ground_truth_of`.

    Args:
        share: of the videos of each class that is held out, between 0 and 1.

    Raises:
        DataError: the file has no annotations, or no class that occurs in two videos.
    """
    if not 0 < share < 1:
        raise ValueError(f"share is {share}, expected a number between 0 and 1")
    if not source.has_annotations:
        raise DataError(f"{source.json_path} has no annotations, expected some to score held-out videos on")
    classes: dict[str, set[int | None]] = {}
    for video in source.videos:
        if len(video):
            found = {a.category_id for a in video.annotations if not a.iscrowd}
            classes.setdefault(video_name(video), set()).update(found)
    held_out = _held_out({name: found or {_WITHOUT_CLASS} for name, found in classes.items()}, share)
    if not held_out:
        raise DataError(
            f"{source.json_path} has no class that occurs in two of its {len(classes)} videos, so none of "
            "them can be held out"
        )
    sides: tuple[list[VideoRecord], list[VideoRecord]] = ([], [])
    for video in source.videos:
        sides[len(video) > 0 and video_name(video) in held_out].append(video)
    return replace(source, videos=tuple(sides[0])), replace(source, videos=tuple(sides[1]))


def video_name(video: VideoRecord) -> str:
    """What a video is called on disk: the folder of its first frame, or the frame where there is none."""
    path = PurePosixPath(video.file_names[0])
    return str(path) if path.parent == PurePosixPath(".") else str(path.parent)


def _held_out(classes: Mapping[str, set[int | None]], share: float) -> set[str]:
    """The names to hold out; steps 2 to 4 of the rule."""
    by_class: dict[int | None, list[str]] = {}
    for name in sorted(classes, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        for category in classes[name]:
            by_class.setdefault(category, []).append(name)
    order = sorted(
        by_class, key=lambda c: (c is _WITHOUT_CLASS, len(by_class[c]), -1 if c is _WITHOUT_CLASS else c)
    )
    held_out: set[str] = set()
    settled: set[str] = set()
    left = {category: len(names) for category, names in by_class.items()}  # not held out
    held = dict.fromkeys(by_class, 0)

    def can_go(name: str) -> bool:
        return all(left[category] > 1 for category in classes[name])

    def hold_out(name: str) -> None:
        held_out.add(name)
        for category in classes[name]:
            left[category] -= 1
            held[category] += 1

    for category in order:
        names = by_class[category]
        wanted = min(max(math.floor(share * len(names) + 0.5), 1), len(names) - 1)
        for name in names:
            if name not in settled and held[category] < wanted and can_go(name):
                hold_out(name)
        settled.update(names)
    for category in order:
        if not held[category] and len(by_class[category]) > 1:
            movable = next(filter(can_go, by_class[category]), None)
            if movable is not None:
                hold_out(movable)
    return held_out


def count_classes(train: YTVIS, held_out: YTVIS) -> Mapping[int, ClassShare]:
    """Videos and instances of every category on the two sides."""
    counts = []
    for side in (train, held_out):
        videos, instances = dict.fromkeys(side.categories, 0), dict.fromkeys(side.categories, 0)
        for video in side.videos:
            found = [a.category_id for a in video.annotations if not a.iscrowd]
            for category in found:
                instances[category] += 1
            for category in set(found):
                videos[category] += 1
        counts += [videos, instances]
    return {category: ClassShare(*(count[category] for count in counts)) for category in train.categories}


def describe(train: YTVIS, held_out: YTVIS, share: float) -> str:
    """The split in one line, for the card of a table, with a digest of the names held out."""
    counts = count_classes(train, held_out).values()
    there = [c for c in counts if c.train_videos + c.held_out_videos]
    both = sum(1 for c in there if c.held_out_videos)
    total = len(train.videos) + len(held_out.videos)
    return (
        f"local split: {share:g} of {total:,} training videos held out by name hash "
        f"({len(held_out.videos):,} videos, {both} of {len(there)} classes), digest {digest(held_out)}"
    )


def digest(held_out: YTVIS) -> str:
    """Twelve hexadecimal digits of the sha256 of the names, sorted, with a line feed between them."""
    names = sorted({video_name(video) for video in held_out.videos})
    return hashlib.sha256("\n".join(names).encode()).hexdigest()[:12]
