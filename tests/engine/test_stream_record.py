"""What a stream leaves on disk: resuming, damage, other frames, interrupts; and that memory does not grow."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors import SafetensorError
from streams import (
    CountingSegmenter,
    noise,
    pushed,
    random_segmenter,
    same_frame,
    tracker_of,
)
from torch import Tensor

from vistk.engine import stream_answers, stream_store
from vistk.engine.predict import predict
from vistk.engine.stream import Stream, StreamError, push_together
from vistk.engine.stream_store import OtherStreamError
from vistk.models import checkpoints


@pytest.fixture(scope="module")
def segmenter():
    return random_segmenter()


@pytest.fixture(scope="module")
def minvis(segmenter):
    return tracker_of("minvis", segmenter)


@pytest.fixture(autouse=True)
def short_pieces(monkeypatch):
    for module in (stream_store, stream_answers):
        monkeypatch.setattr(module, "PIECE", 3)


@pytest.fixture
def passes(segmenter):
    """Frames that passed the segmenter."""
    counted: list[int] = []
    hook = segmenter.register_forward_pre_hook(lambda module, args: counted.append(args[0].shape[1]))
    yield counted
    hook.remove()


def names(folder: Path) -> list[str]:
    """What lies there, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


@pytest.mark.parametrize("name", ["minvis", "visage", "mask-iou", "idol", "propagation", "tracklet-linking"])
@pytest.mark.parametrize("stopped_at", [1, 5])
def test_a_new_stream_goes_on_where_the_other_one_was_stopped(name, stopped_at, segmenter, passes, tmp_path):
    tracker = tracker_of(name, segmenter)
    frames = noise(8)
    whole = Stream(segmenter, tracker)
    expected = pushed(whole, frames)
    with Stream(segmenter, tracker, record=tmp_path / "a" / "b") as stopped:
        pushed(stopped, frames[:stopped_at])
    passes.clear()
    resumed = Stream(segmenter, tracker, record=tmp_path / "a" / "b")
    found = pushed(resumed, frames)
    assert len(passes) == 8 - stopped_at
    assert all(same_frame(a, b) for a, b in zip(found, expected, strict=True))
    prediction = whole.close()
    assert resumed.close() == prediction
    passes.clear()
    again = Stream(segmenter, tracker, record=str(tmp_path / "a" / "b"))
    assert all(same_frame(a, b) for a, b in zip(pushed(again, frames), expected, strict=True))
    assert again.close() == prediction
    assert passes == []


def test_several_at_once_from_the_same_folder(segmenter, passes, tmp_path):
    """What is stored and what is not may come in one call, of one stream or of several."""
    for name in ("minvis", "propagation"):
        tracker = tracker_of(name, segmenter)
        frames = noise(7)
        expected = predict(segmenter, tracker, frames, window=1)
        folder = tmp_path / name
        with Stream(segmenter, tracker, record=folder) as stopped:
            pushed(stopped, frames[:4])
        passes.clear()
        resumed = Stream(segmenter, tracker, record=folder)
        resumed.push_many(frames)
        assert sum(passes) == 3
        found = resumed.close()
        assert [t.track_id for t in found.tracklets] == [t.track_id for t in expected.tracklets]
        passes.clear()
        one, other = Stream(segmenter, tracker, record=folder), Stream(segmenter, tracker)
        for frame in frames:
            push_together([one, other], [frame, frame])
        assert sum(passes) == 7
        assert other.close() == expected


def test_frames_of_another_size_come_back_as_they_were(segmenter, minvis, passes, tmp_path):
    frames = [noise(1, *size)[0] for size in ((40, 70), (64, 33), (64, 33), (40, 70), (41, 70))]
    whole = Stream(segmenter, minvis)
    expected = pushed(whole, frames)
    for stopped_at in (3, 5):
        with Stream(segmenter, minvis, record=tmp_path) as stopped:
            pushed(stopped, frames[:stopped_at])
    passes.clear()
    resumed = Stream(segmenter, minvis, record=tmp_path)
    found = pushed(resumed, frames)
    assert passes == []
    assert all(same_frame(a, b) for a, b in zip(found, expected, strict=True))
    assert resumed.close() == whole.close()


def test_another_tracker_of_the_same_queries_reads_them(segmenter, minvis, passes, tmp_path):
    frames = noise(4)
    first = Stream(segmenter, minvis, record=tmp_path)
    pushed(first, frames)
    first.close()
    passes.clear()
    other = tracker_of("mask-iou", segmenter)
    stream = Stream(segmenter, other, record=tmp_path)
    pushed(stream, frames)
    assert passes == []
    assert stream.close() == predict(segmenter, other, frames, window=1)


@pytest.mark.parametrize("name", ["dvis", "vita"])
def test_mask_features_are_not_kept(name, segmenter, passes, tmp_path):
    tracker = tracker_of(name, segmenter)
    frames = noise(4)
    for _ in range(2):
        passes.clear()
        stream = Stream(segmenter, tracker, record=tmp_path / "x")
        pushed(stream, frames)
        assert len(passes) == 4
        assert stream.close() == predict(segmenter, tracker, frames, window=1)
        assert not (tmp_path / "x").exists()


def test_frames_that_were_skipped(segmenter, minvis, passes, tmp_path):
    frames = noise(6)

    def go(stream):
        stream.skip()
        found = pushed(stream, frames[:4])
        stream.skip()
        return found + pushed(stream, frames[4:])

    expected = [go(Stream(segmenter, minvis)), go(Stream(segmenter, minvis, record=tmp_path))][0]
    with Stream(segmenter, minvis, record=tmp_path) as stream:
        go(stream)
    passes.clear()
    stream = Stream(segmenter, minvis, record=tmp_path)
    assert all(same_frame(a, b) for a, b in zip(go(stream), expected, strict=True))
    assert passes == []
    assert [rle is None for rle in stream.close().tracklets[0].segmentations][:6:5] == [True, True]


def test_another_frame_is_refused(segmenter, minvis, tmp_path):
    frames = noise(5)
    with Stream(segmenter, minvis, record=tmp_path) as stream:
        pushed(stream, frames[:2])
        stream.skip()
        pushed(stream, frames[3:])
    other = frames.clone()
    other[1, 2, 39, 69] ^= 1  # by one bit of one pixel
    stream = Stream(segmenter, minvis, record=tmp_path)
    stream.push(frames[0])
    with pytest.raises(StreamError, match=rf"{tmp_path} has another frame 1 than this"):
        stream.push(other[1])
    with pytest.raises(StreamError, match="has another frame 1 than this"):
        stream.push(frames[1].reshape(3, 70, 40))
    with pytest.raises(StreamError, match="has a frame 1, which is skipped now"):
        stream.skip()
    stream.push(frames[1])
    with pytest.raises(StreamError, match="has no frame 2, which was skipped when the others were stored"):
        stream.push(frames[2])
    stream.skip()
    pushed(stream, frames[3:])
    assert stream.close().tracklets


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"short_side": 32}, r"short_side \(None there, 32 here\)"),
        ({"max_side": 32}, r"max_side \(None there, 32 here\)"),
        ({"weights": True}, r"weights of the segmenter \([0-9a-f]{12} there, [0-9a-f]{12} here\)"),
        ({"tracker": "visage"}, r"describe \(query there, visage-[0-9a-f]{12} here\)"),
        ({"tracker": "propagation"}, r"propagate \(None there, [0-9a-f]{12} here\)"),
    ],
)
def test_a_folder_of_another_stream_is_refused(change, message, segmenter, minvis, tmp_path):
    with Stream(segmenter, minvis, record=tmp_path) as stream:
        stream.push(noise(1)[0])
    other = random_segmenter(5) if change.pop("weights", False) else segmenter
    tracker = tracker_of(change.pop("tracker", "minvis"), other)
    with pytest.raises(OtherStreamError, match=f"{tmp_path} holds frames of another stream: {message}"):
        Stream(other, tracker, record=tmp_path, **change)
    Stream(segmenter, minvis, record=tmp_path)  # and it has not kept the folder


def test_a_folder_of_another_format_is_refused(segmenter, minvis, tmp_path, monkeypatch):
    with Stream(segmenter, minvis, record=tmp_path) as stream:
        stream.push(noise(1)[0])
    here = stream_store.FORMAT + 1
    monkeypatch.setattr(stream_store, "FORMAT", here)
    with pytest.raises(OtherStreamError, match=rf"format of the stream \({here - 1} there, {here} here\)"):
        Stream(segmenter, minvis, record=tmp_path)


@pytest.mark.parametrize("end", ["close", "leave", "error"])
def test_a_folder_is_one_stream_s_until_it_ends(end, segmenter, minvis, passes, tmp_path):
    frames, others = noise(7, seed=3), noise(7, seed=4)
    folder = tmp_path / "x"

    def go():
        with Stream(segmenter, minvis, record=folder) as first:
            for number, (frame, other) in enumerate(zip(frames, others, strict=True)):
                first.push(frame)
                with pytest.raises(StreamError, match=r"x is in use by another stream; wait for its end"):
                    Stream(segmenter, minvis, record=folder).push(other)
                assert first.number == number + 1
            if end == "close":
                assert first.close() == predict(segmenter, minvis, frames, window=1)
            if end == "error":
                raise KeyError

    try:
        go()
    except KeyError:
        assert end == "error"
    passes.clear()
    second = Stream(segmenter, minvis, record=folder)
    pushed(second, frames)
    assert passes == []
    found = []
    closing = threading.Thread(target=lambda: found.append(second.close()))
    closing.start()
    closing.join()
    assert found == [predict(segmenter, minvis, frames, window=1)]
    Stream(segmenter, minvis, record=folder)  # a thread that closes lets go of it


def test_a_folder_is_one_process_s_until_it_ends(segmenter, minvis, tmp_path):
    take = "import filelock, sys; filelock.FileLock(sys.argv[1], timeout=0).acquire()"
    command = [sys.executable, "-c", take, str(tmp_path / ".lock")]
    stream = Stream(segmenter, minvis, record=tmp_path)
    assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode
    stream.push(noise(1)[0])
    stream.close()
    assert not subprocess.run(command).returncode
    with FileLock(tmp_path / ".lock"), pytest.raises(StreamError, match="in use by another stream"):
        Stream(segmenter, minvis, record=tmp_path)


def test_a_stream_that_stores_nothing_leaves_the_folder_as_it_was(segmenter, minvis, tmp_path):
    for folder, there in ((tmp_path / "new", False), (tmp_path / "old", True)):
        if there:
            folder.mkdir()
        with Stream(segmenter, minvis, record=folder):
            assert (folder / ".lock").exists()
        assert folder.exists() == there
    assert list(tmp_path.rglob("*")) == [tmp_path / "old"]


def test_folders_that_are_none(segmenter, minvis, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StreamError, match=r"record: .*file is a file, expected a folder"):
        Stream(segmenter, minvis, record=tmp_path / "file")
    with pytest.raises(StreamError, match=r"file.x cannot be written \(.*Not a directory"):
        Stream(segmenter, minvis, record=tmp_path / "file" / "x")
    with pytest.raises(StreamError, match="record is an empty text, expected True, False or a folder"):
        Stream(segmenter, minvis, record="")
    for text in ("{", "[]"):
        (tmp_path / "stream.json").write_text(text)
        with pytest.raises(StreamError, match=r"stream\.json is damaged; record in another folder"):
            Stream(segmenter, minvis, record=tmp_path)


@pytest.mark.parametrize("damage", ["cut", "bit", "gone"])
@pytest.mark.parametrize("name", ["minvis", "propagation"])
def test_a_damaged_piece_is_segmented_again(name, damage, segmenter, passes, tmp_path):
    tracker = tracker_of(name, segmenter)
    frames = noise(8)
    first = Stream(segmenter, tracker, record=tmp_path)
    pushed(first, frames)
    expected = first.close()
    files = ["00000000.safetensors", "00000003.safetensors", "00000006.safetensors", "stream.json"]
    assert names(tmp_path) == files
    piece = tmp_path / files[1]
    content = bytearray(piece.read_bytes())
    if damage == "cut":
        piece.write_bytes(content[: len(content) // 2])
    elif damage == "bit":
        content[-9] ^= 4
        piece.write_bytes(content)
    else:
        piece.unlink()
    passes.clear()
    stream = Stream(segmenter, tracker, record=tmp_path)
    if damage == "gone":
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            pushed(stream, frames)
    else:
        with pytest.warns(UserWarning, match="00000003.*; its frames are segmented again"):
            pushed(stream, frames)
    assert len(passes) == 3
    assert stream.close() == expected
    assert names(tmp_path) == files
    passes.clear()
    last = Stream(segmenter, tracker, record=tmp_path)
    pushed(last, frames)
    assert passes == []
    assert last.close() == expected


def test_what_the_stream_itself_needs_is_gone(segmenter, minvis):
    stream = Stream(segmenter, minvis)
    pushed(stream, noise(4))
    folder = Path(stream._record._scratch.name)
    assert names(folder) == ["00000000.safetensors", "answers-000000.safetensors"]
    (folder / "answers-000000.safetensors").write_bytes(b"")
    with pytest.raises(StreamError, match=r"answers-000000\.safetensors .*a stream tracks no frame twice"):
        stream.close()
    stream = Stream(segmenter, minvis)
    pushed(stream, noise(4))
    (Path(stream._record._scratch.name) / "00000000.safetensors").unlink()
    with pytest.raises(StreamError, match="has lost frame 0, and a stream segments no frame twice"):
        stream.close()


def test_nothing_is_left_behind(segmenter, minvis, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for end in ("close", "leave", "interrupt"):
        try:
            with Stream(segmenter, minvis) as stream:
                pushed(stream, noise(4))
                assert len(names(tmp_path)) == 1
                if end == "close":
                    stream.close()
                if end == "interrupt":
                    raise KeyboardInterrupt
        except KeyboardInterrupt:
            pass
        assert names(tmp_path) == []


def test_an_interrupt_while_a_piece_is_written_leaves_no_half_of_it(segmenter, minvis, tmp_path, monkeypatch):
    frames = noise(5)
    real = checkpoints.save_file

    def interrupted(tensors, path, metadata):
        real(tensors, path, metadata=metadata)
        with open(path, "r+b") as file:
            file.truncate(100)
        raise KeyboardInterrupt

    def go():
        with monkeypatch.context() as patch, Stream(segmenter, minvis, record=tmp_path) as stream:
            pushed(stream, frames[:2])
            patch.setattr(checkpoints, "save_file", interrupted)
            stream.push(frames[2])

    with pytest.raises(KeyboardInterrupt):
        go()
    assert names(tmp_path) == ["stream.json"]
    with Stream(segmenter, minvis, record=tmp_path) as stream:
        pushed(stream, frames)
        assert stream.close() == predict(segmenter, minvis, frames, window=1)


@pytest.mark.parametrize("kept", [True, False], ids=["folder", "temporary"])
def test_a_full_disk_as_the_library_of_the_files_says_it(kept, segmenter, minvis, tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("no room")

    monkeypatch.setattr(checkpoints, "save_file", full)
    stream = Stream(segmenter, minvis, record=tmp_path if kept else True)
    with pytest.raises(StreamError, match=r"\.safetensors cannot be written \(no room\)$"):
        pushed(stream, noise(3))


def test_no_place_for_temporary_folders(segmenter, minvis, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    for record in (True, tmp_path / "x"):
        with pytest.raises(StreamError, match=r"needs a temporary folder \(.*none.*\), expected TMPDIR"):
            Stream(segmenter, minvis, record=record)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk(segmenter, minvis, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream_store, "write_shard", full)
    stream = Stream(segmenter, minvis, record=tmp_path)
    with pytest.raises(StreamError, match=r"00000000\.safetensors cannot be written \(.*No space left"):
        pushed(stream, noise(3))
    with pytest.raises(StreamError, match="was interrupted in frame 2"):
        stream.close()


def test_the_folder_says_what_it_holds(segmenter, minvis, tmp_path):
    with Stream(segmenter, minvis, record=tmp_path, short_side=32) as stream:
        stream.push(noise(1)[0])
    about = json.loads((tmp_path / "stream.json").read_text())
    assert about["describe"] == "query"
    assert about["short_side"] == 32


def alive() -> tuple[int, int]:
    """Numbers of tensors and of all blocks of memory that Python holds."""
    gc.collect()
    tensors = sum(issubclass(type(thing), Tensor) for thing in gc.get_objects())
    return tensors, sys.getallocatedblocks()


@pytest.mark.parametrize(
    ("record", "name", "count"),
    [(True, "minvis", 10_000), (False, "minvis", 5000), ("folder", "minvis", 5000), (True, "mask-iou", 5000)],
)
def test_memory_is_where_it_was(record, name, count, tmp_path, monkeypatch):
    """After 10,000 frames a stream holds what it held after 100."""
    for module in (stream_store, stream_answers):
        monkeypatch.setattr(module, "PIECE", 25)
    segmenter = CountingSegmenter(queries=2)
    stream = Stream(segmenter, tracker_of(name, segmenter), record=tmp_path if record == "folder" else record)
    frame = torch.zeros(3, 16, 24, dtype=torch.uint8)
    for number in range(100):
        frame[0, 0, 0] = number
        stream.push(frame)
    segmenter.passes.clear()
    tensors, blocks = alive()
    while stream.number < count:
        stream.push_many([frame] * 20)
    segmenter.passes.clear()
    tensors_later, blocks_later = alive()
    assert tensors_later <= tensors
    # A leak has some blocks a frame. The caches of Python and NumPy fill up with 900 in 5,000 frames, 20 of
    # them in the last 2,000.
    assert blocks_later < blocks + 1500, f"{blocks_later - blocks} blocks more"
    if record is not False:
        assert len(stream.close().tracklets[0].segmentations) == count
