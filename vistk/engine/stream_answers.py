"""What a tracker said of the frames of a stream, on disk until the end."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from vistk.engine.finishing import FrameSize
from vistk.engine.shards import ShardError, read_shard, write_shard
from vistk.engine.stored_masks import PackedMasks, pack_masks
from vistk.engine.stream_store import (
    PIECE,
    FrameStore,
    StreamError,
    prefixed,
    stored_size,
    unprefixed,
    unwritten,
)
from vistk.structures import FinishedMasks, Masks

_MASKS = "masks."


@dataclass(frozen=True)
class Answer:
    """What a tracker said of a frame, without its logits."""

    number: int
    tracks: list[int]  # M
    masks: Masks  # of M tracks that the tracker made, else of the frame's queries
    queries: list[int]  # M: where the mask of each is among ``masks``


class AnswerStore:
    """A tracker's answers, in a folder of its own; all are read in the end.

    Args:
        folder: for :class:`FrameStore`'s as well: its names are others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pending: list[tuple[int, list[int], list[int], FinishedMasks | None]] = []
        self._pieces = 0
        self._size: FrameSize | None = None

    def add(
        self, number: int, tracks: list[int], queries: list[int], own: FinishedMasks | None, size: FrameSize
    ) -> None:
        """The next answer.

        Args:
            own: the masks of the tracks, where the tracker made them.
            size: of the frame.

        Raises:
            StreamError: it cannot be written.
        """
        if self._pending and self._size != size:
            self.flush()
        self._size = size
        self._pending.append((number, tracks, queries, own))
        if len(self._pending) >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what was added.

        Raises:
            StreamError: it cannot be written.
        """
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        made = [own for *_, own in pending if own is not None]
        together = FinishedMasks(
            tuple(rle for own in made for rle in own.rles),
            torch.cat([own.probability_sum for own in made] or [torch.zeros(0, dtype=torch.float64)]),
            torch.cat([own.area for own in made] or [torch.zeros(0, dtype=torch.float64)]),
        )
        tensors = {
            "numbers": torch.tensor([number for number, *_ in pending]),
            "lengths": torch.tensor([len(tracks) for _, tracks, _, _ in pending]),
            "made": torch.tensor([own is not None for *_, own in pending]),
            "tracks": torch.tensor([t for _, tracks, _, _ in pending for t in tracks], dtype=torch.int64),
            "queries": torch.tensor([q for _, _, queries, _ in pending for q in queries], dtype=torch.int64),
            **prefixed(_MASKS, pack_masks([together])),
        }
        path = self._path(self._pieces)
        assert self._size is not None
        try:
            write_shard(path, tensors, {"sizes": self._size.__dict__})
        except OSError as error:
            raise unwritten(path, error) from error
        self._pieces += 1

    def read(self, frames: FrameStore) -> Iterator[Answer]:
        """All answers in order.

        Args:
            frames: those that were answered, every one of them written.

        Raises:
            StreamError: a file is damaged.
        """
        for piece in range(self._pieces):
            try:
                tensors, facts = read_shard(self._path(piece), {})
            except (ShardError, FileNotFoundError) as error:
                raise StreamError(f"{error}, and a stream tracks no frame twice") from error
            own = PackedMasks(unprefixed(_MASKS, tensors), stored_size(facts["sizes"]))[0]
            lengths = tensors["lengths"].tolist()
            rows = zip(
                tensors["numbers"].tolist(),
                tensors["made"].tolist(),
                tensors["tracks"].split(lengths),
                tensors["queries"].split(lengths),
                strict=True,
            )
            first = 0
            for number, made, tracks, queries in rows:
                if made:
                    first += len(tracks)
                    yield Answer(number, tracks.tolist(), own, list(range(first - len(tracks), first)))
                else:
                    yield Answer(number, tracks.tolist(), frames.masks(number), queries.tolist())

    def _path(self, piece: int) -> Path:
        return self.folder / f"answers-{piece:06d}.safetensors"
