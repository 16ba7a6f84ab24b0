"""Queries of whole videos on disk: segment once, track many.

``<dir>/<key>/<part>/<video id>.safetensors``. The key stands for all that decides what the segmenter says of
a frame (:func:`identity_of`); ``about.json`` beside the parts spells it out. The parts are ``masks`` and, for
every describer, its logits and vectors: ``query`` for trackers with the ``describe`` of :class:`Tracker`,
else class and hash of the weights. So a tracker with other heads on the same segmenter adds its own part to
those that are there, and tracking reads the parts that it needs.

A file is whole or absent, and bears a checksum. What is missing or damaged is segmented again, or refused,
as the mode says; processes with videos of their own may write at the same time.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from vistk.engine.describers import Describers, describer_part, state_hash
from vistk.engine.finishing import FrameSize
from vistk.engine.recording import DTYPES, MASK_FORMS, Form, NotStoredError, Recording, record, replay
from vistk.engine.shards import CacheError, ShardError, read_shard, write_shard
from vistk.engine.windows import Segment, Window
from vistk.files import write_text
from vistk.schema import ConfigError
from vistk.structures import VideoRecord
from vistk.trackers.base import check_choice

FORMAT = 1  # another one where old shards would be misread
MODES = ("write", "read", "auto")
ABOUT, MASK_PART = "about.json", "masks"

NOT_INFERENCE = ("backbone_pretrained", "backbone_checkpointing")
"""Fields of a segmenter's configuration that say nothing about its results, given its weights."""


@dataclass
class CacheConfig:
    """Queries on disk, for ``cache=write``, ``cache=read`` and ``cache=auto``.

    ``write``: videos that are not there are segmented and stored; an error if they cannot be.
    ``read``: nothing is segmented; an error if a video is not there.
    ``auto``: as ``write``, but what cannot be stored is tracked all the same, and said.
    """

    dir: str = "cache"
    dtype: str = "float32"  # float32 | float16: of vectors and logits; float32 changes no result
    masks: str = "rle"  # rle | logits: finished at output size, or as they left the segmenter
    mask_features: bool = False  # store them too, for trackers that predict masks anew: MB a frame
    max_gb: float = 20.0  # of all files in dir

    def __post_init__(self) -> None:
        for name, value, choices in (("dtype", self.dtype, DTYPES), ("masks", self.masks, MASK_FORMS)):
            try:
                check_choice("cache", name, value, choices)
            except ValueError as error:
                raise ConfigError(str(error), f"cache.{name}") from error
        if not self.max_gb > 0:
            raise ConfigError(f"cache.max_gb is {self.max_gb}, expected more than 0", "cache.max_gb")


def identity_of(segmenter: nn.Module, config: CacheConfig, data: Mapping[str, Any]) -> dict[str, Any]:
    """All that stored queries depend on, but for the frames themselves and the heads; plain values by name.

    Args:
        data: what the frames are (the hash of an annotation file) and the size at which they are segmented.
    """
    settings = asdict(segmenter.config) if hasattr(segmenter, "config") else {}  # type: ignore[call-overload]
    precision = getattr(segmenter, "precision", None)
    identity = {
        "format": FORMAT,
        "weights of the segmenter": state_hash(segmenter),
        **{f"segmenter.{k}": v for k, v in settings.items() if k not in NOT_INFERENCE},
        "precision.pixel_decoder": None if precision is None else precision.pixel_decoder,
        **data,
        "cache.dtype": config.dtype,
        "cache.masks": config.masks,
    }
    return json.loads(json.dumps(identity))


class QueryCache:
    """The queries of the videos of one data set.

    Args:
        config: where, how and how much.
        mode: ``write``, ``read`` or ``auto``, see :class:`CacheConfig`.
        segmenter: with its final weights.
        trackers: by name; those whose queries are read or written.
        videos: all that will be asked for, by this process or another one.
        data: see :func:`identity_of`.
        say: prints a sentence to the user.

    Attributes:
        folder: where the parts lie.
        read, stored: numbers of videos so far that were there, and that were segmented and stored.
        last: what became of the last video asked for: ``read``, ``stored``, or ``live``, not stored.

    Raises:
        CacheError: ``read``, and not everything is there; says what is there instead.
    """

    def __init__(
        self,
        config: CacheConfig,
        mode: str,
        segmenter: nn.Module,
        trackers: Describers,
        videos: Sequence[VideoRecord],
        data: Mapping[str, Any],
        say: Callable[[str], None] = print,
    ) -> None:
        check_choice("cache", "mode", mode, MODES)
        self.config, self.mode, self.videos = config, mode, videos
        self.identity = identity_of(segmenter, config, data)
        self._key = hashlib.sha256(json.dumps(self.identity, sort_keys=True).encode()).hexdigest()[:12]
        self.folder = Path(config.dir) / self._key
        self.read = self.stored = 0
        self.last = ""
        self._part_of = {name: describer_part(tracker) for name, tracker in trackers.items()}
        self._say = say
        self._takes_more = True
        self._estimated = False
        if mode == "read":
            self._require_all()

    @property
    def parts(self) -> list[str]:
        """The parts that the trackers need."""
        return [MASK_PART, *dict.fromkeys(self._part_of.values())]

    def lacking(self) -> list[VideoRecord]:
        """The videos of which a part is not there; damage shows only when they are read."""
        there = [{path.name for path in (self.folder / part).glob("*.safetensors")} for part in self.parts]
        return [v for v in self.videos if len(v) and not all(_name(v) in names for names in there)]

    def num_bytes(self) -> int:
        """Size of the files that the trackers need, so far."""
        paths = (self._path(part, video) for part in self.parts for video in self.videos)
        return sum(path.stat().st_size for path in paths if path.is_file())

    def windows(self, video: VideoRecord, describers: Describers, segment: Segment) -> Iterator[Window]:
        """A video as :func:`vistk.engine.windows.segment_windows` gives it, from its files.

        What is missing is segmented and stored first, and then read like the rest: what a tracker is given
        does not depend on who came first, not even in float16.

        Args:
            describers: some of the cache's trackers.

        Raises:
            CacheError: a part is missing or damaged, and nothing is to be segmented (``read``); or it cannot
                be stored (``write``).
        """
        if not len(video):
            return iter(())
        parts = {name: self._part_of[name] for name in describers}
        shards: dict[str, Shard] = {}
        for part in dict.fromkeys([MASK_PART, *parts.values()]):
            try:
                shards[part] = self._read(part, video)
            except (FileNotFoundError, ShardError) as error:
                if self.mode == "read":
                    raise CacheError(f"{error}; cache=auto segments video {video.video_id} again") from error
                if isinstance(error, ShardError):
                    self._say(f"{error}; video {video.video_id} is segmented again")
        missing = {MASK_PART, *parts.values()} - shards.keys()
        self.last = "live" if missing else "read"
        if not missing:
            self.read += 1
            return _replay(shards, parts)
        if not self._takes_more:
            return segment(describers)
        try:
            self._store(video, missing, {part: name for name, part in parts.items()}, describers, segment)
        except NotStoredError as error:
            if self.mode == "write":
                raise
            self._say(f"{error}; what the cache lacks is segmented, and not stored")
            self._takes_more = False
            return segment(describers)
        self.last = "stored"
        self.stored += 1
        shards |= {part: self._read(part, video) for part in missing}
        return _replay(shards, parts)

    def _store(
        self,
        video: VideoRecord,
        parts: set[str],
        name_of: Mapping[str, str],
        describers: Describers,
        segment: Segment,
    ) -> None:
        """Segment a video and write these parts of it."""
        names = {part: name_of[part] for part in sorted(parts - {MASK_PART})}
        form = Form(self.config.dtype, self.config.masks, self.config.mask_features)
        wanted = {name: describers[name] for name in names.values()}
        recording = record(segment(wanted), wanted, form, MASK_PART in parts)
        tensors = {part: recording.queries[name] for part, name in names.items()}
        if MASK_PART in parts:
            tensors[MASK_PART] = recording.masks
        self._require_room(video, sum(x.nbytes for part in tensors.values() for x in part.values()))
        try:
            write_text(self.folder / ABOUT, json.dumps(self.identity, indent=2) + "\n")
            for part, content in tensors.items():
                write_shard(
                    self._path(part, video),
                    content,
                    self._facts(part, video) | {"sizes": recording.size.__dict__},
                )
        except OSError as error:  # a full disk, a folder that is not ours
            raise NotStoredError(f"the cache {self.folder} cannot be written ({error})") from error

    def _require_room(self, video: VideoRecord, num_bytes: int) -> None:
        """Before the first video is written all of them have to fit, as far as it tells; then every one.

        Raises:
            NotStoredError: with the size that all will have.
        """
        used = sum(path.stat().st_size for path in Path(self.config.dir).rglob("*.safetensors"))
        needed = num_bytes
        if not self._estimated:
            needed = num_bytes * sum(map(len, self.lacking())) // len(video)
            self._estimated = True
        if used + needed > self.config.max_gb * 1e9:
            said = f"{used / 1e9:.3g} GB are there, cache.max_gb={self.config.max_gb:g}"
            raise NotStoredError(
                f"the queries that cache {self.config.dir} lacks would take about {needed / 1e9:.3g} GB more "
                f"({said}); allow more, or say {_smaller(self.config)}"
            )

    def _read(self, part: str, video: VideoRecord) -> Shard:
        return read_shard(self._path(part, video), self._facts(part, video))

    def _path(self, part: str, video: VideoRecord) -> Path:
        return self.folder / part / _name(video)

    def _facts(self, part: str, video: VideoRecord) -> dict[str, Any]:
        """What a shard says of itself, beside the sizes of its frames."""
        files = hashlib.sha256(json.dumps(video.file_names).encode()).hexdigest()[:12]
        described = {"id": video.video_id, "frames": len(video), "size": [video.height, video.width]}
        return {"key": self._key, "part": part, "video": described | {"files": files}}

    def _require_all(self) -> None:
        """In mode ``read``: say at once what is not there."""
        if not (self.folder / ABOUT).is_file():
            raise CacheError(f"cache=read, but {self._nearest()}; cache=auto segments and stores the videos")
        there = sorted(path.name for path in self.folder.iterdir() if path.is_dir())
        strange = [part for part in self.parts if part not in there]
        if strange:
            raise CacheError(
                f"cache=read, but {self.folder} has the parts {', '.join(there) or 'of nothing'} and not "
                f"{', '.join(strange)}; cache=auto segments the videos for heads of other weights"
            )
        if lacking := self.lacking():
            raise CacheError(
                f"cache=read, but {self.folder} lacks {len(lacking)} of {len(self.videos)} videos, the first "
                f"of them {lacking[0].video_id}; cache=auto segments them"
            )

    def _nearest(self) -> str:
        """What the folder has in place of these queries, in words."""
        others = {}
        for path in sorted(Path(self.config.dir).glob(f"*/{ABOUT}")):
            try:
                identity = json.loads(path.read_text(encoding="utf-8"))
                others[path.parent] = [
                    f"{name} ({identity.get(name)} there, {value} here)"
                    for name, value in self.identity.items()
                    if identity.get(name) != value
                ]
            except (OSError, ValueError, AttributeError):  # another folder's
                continue
        if not others:
            return f"{self.config.dir} holds no queries"
        folder = min(others, key=lambda path: len(others[path]))
        said = ", ".join(others[folder][:3]) + (", .." if len(others[folder]) > 3 else "")
        return f"the nearest queries, {folder}, are of another kind: {said}"


Shard = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and facts of a file."""


def _replay(shards: Mapping[str, Shard], parts: Mapping[str, str]) -> Iterator[Window]:
    masks, facts = shards[MASK_PART]
    size = FrameSize(**{name: tuple(side) for name, side in facts["sizes"].items()})
    return replay(Recording(size, masks, {name: shards[part][0] for name, part in parts.items()}))


def _name(video: VideoRecord) -> str:
    return f"{video.video_id:06d}.safetensors"


def _smaller(config: CacheConfig) -> str:
    if config.masks == "logits":
        return "cache.masks=rle"
    return "cache.dtype=float16" if config.dtype == "float32" else "another cache.dir"
