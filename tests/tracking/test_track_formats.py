"""Masks, MOTS and COCO video: what is written is what this project's converters read."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from track_cases import clip, read, save_frames, track

from vistk.data.converting.coco_video import CocoVideo, convert_coco_video
from vistk.data.converting.masks import MaskFolders, convert_masks
from vistk.data.converting.mots import MotsFolders, convert_mots
from vistk.data.converting.write import Destination
from vistk.data.ytvis import YTVIS
from vistk.ops.masks import decode, encode
from vistk.tracking.formats import (
    Spool,
    TrackedImage,
    TrackRow,
    index_map,
    mots_classes,
    write_coco_video,
    write_index_mask,
    write_mots,
)
from vistk.viz.colors import color_of

SIZE = (5, 7)


def mask(rows, columns, size=SIZE):
    pixels = np.zeros(size, bool)
    pixels[rows, columns] = True
    return encode(torch.from_numpy(pixels)[None])[0]


LEFT, MIDDLE, ALL = (
    mask(slice(0, 3), slice(0, 3)),
    mask(slice(2, 4), slice(2, 5)),
    mask(slice(None), slice(None)),
)
EXPECTED = np.array(
    [
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 1, 2, 2, 0, 0],
        [0, 0, 2, 2, 2, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
)


def image(number, *tracks, size=SIZE):
    return TrackedImage(number, 3 * number, number / 10, f"{3 * number:05d}", size, tracks)


@pytest.fixture
def spool(tmp_path):
    """Track 4 is taken for class 0 at first, and is of class 1; track 0 hides a part of it."""
    spool = Spool(tmp_path)
    spool.add(image(0, TrackRow(4, 0, 0.6, MIDDLE)))
    spool.add(image(1, TrackRow(0, 1, 0.9, LEFT), TrackRow(4, 1, 0.5, MIDDLE)))
    spool.add(image(2))
    yield spool
    spool.close()


def test_where_two_meet_the_better_one_is_seen():
    tracks = (TrackRow(9, 0, 0.9, LEFT), TrackRow(2, 0, 0.5, MIDDLE))
    np.testing.assert_array_equal(index_map(image(0, *tracks)), EXPECTED)
    assert not index_map(image(0)).any()


def test_indexed_masks_have_the_colours_of_their_tracks(tmp_path):
    tracks = (TrackRow(253, 0, 0.9, LEFT), TrackRow(254, 0, 0.6, ALL), TrackRow(2, 0, 0.5, MIDDLE))
    assert write_index_mask(tmp_path / "a.png", image(0, *tracks)) == 1  # 254 has no place, and hides others
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P"
        pixels = np.array(picture)
        colours = np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(pixels, np.where(EXPECTED == 1, 254, 0))
    assert tuple(colours[0, 0]) == color_of(253)
    assert tuple(colours[4, 6]) == (0, 0, 0)
    assert write_index_mask(tmp_path / "a.png", image(0)) == 0
    assert not np.array(Image.open(tmp_path / "a.png")).any()


def test_what_is_spooled_can_be_read_again_and_again(spool):
    first, second = list(spool), list(spool)
    assert first == second
    assert first[1] == image(1, TrackRow(0, 1, 0.9, LEFT), TrackRow(4, 1, 0.5, MIDDLE))
    assert spool.last == {4: (1, 0.5), 0: (1, 0.9)}


def test_mots_has_no_overlaps_and_one_class_a_track(tmp_path, spool):
    write_mots(tmp_path, "clip", spool, spool.last, {3: "person", 10: "monkey"}, numbers=False)
    lines = [line.split() for line in (tmp_path / "clip.txt").read_text().splitlines()]
    assert [line[:5] for line in lines] == [
        ["0", "11004", "11", "5", "7"],  # of monkeys, whose id marks what is to be ignored
        ["3", "11000", "11", "5", "7"],
        ["3", "11004", "11", "5", "7"],
    ]
    seen = [decode({"size": list(SIZE), "counts": line[5]}) for line in lines]
    np.testing.assert_array_equal(seen[1] + 2 * seen[2], EXPECTED)
    assert read(tmp_path / "classes.json") == {"3": "person", "11": "monkey"}


def test_mots_numbers_frames_as_their_files(tmp_path, spool):
    write_mots(tmp_path, "clip", spool, spool.last, {1: "a", 2: "b"}, numbers=True)
    assert [line.split()[0] for line in (tmp_path / "clip.txt").read_text().splitlines()] == ["0", "3", "3"]


def test_mots_renumbers_more_than_a_thousand_tracks(tmp_path):
    spool = Spool(tmp_path)
    for number, track_id in enumerate((5, 1000, 7)):
        spool.add(image(number, TrackRow(track_id, track_id % 2, 0.9, LEFT)))
    assert write_mots(tmp_path, "clip", spool, spool.last, {1: "a", 2: "b"}, numbers=False) == 0
    found = [line.split()[1] for line in (tmp_path / "clip.txt").read_text().splitlines()]
    assert found == ["2000", "1000", "2001"]
    spool.close()


def test_mots_leaves_out_the_lowest_of_more_than_a_thousand_tracks_of_a_class(tmp_path):
    """Of 1003 tracks the second, third and last are the lowest; the one of the other class stays."""
    spool = Spool(tmp_path)
    scores = [0.5 + t / 4000 for t in range(1003)]
    scores[1], scores[2], scores[1002] = 0.31, 0.32, 0.33
    for t, score in enumerate(scores):
        spool.add(image(t, TrackRow(t, 0, score, LEFT)))
    spool.add(image(1003, TrackRow(1003, 1, 0.3, LEFT)))
    assert write_mots(tmp_path, "clip", spool, spool.last, {1: "a", 2: "b"}, numbers=False) == 3
    lines = [line.split()[:2] for line in (tmp_path / "clip.txt").read_text().splitlines()]
    kept = [t for t in range(1002) if t not in (1, 2)]
    assert lines == [[str(3 * t), str(1000 + i)] for i, t in enumerate(kept)] + [["3009", "2000"]]
    spool.close()


def test_classes_of_mots():
    assert mots_classes({}) == {}
    assert mots_classes({1: "a", 2: "b"}) == {1: "a", 2: "b"}
    assert list(mots_classes({0: "a", 9: "b"})) == [11, 9]
    assert list(mots_classes({0: "a", 10: "b", 12: "c"})) == [13, 14, 12]


def test_coco_video(tmp_path, spool):
    write_coco_video(
        tmp_path / "c.json", "clip", spool, {4: 1, 0: 1}, {3: "person", 10: "monkey"}, None, SIZE
    )
    content = read(tmp_path / "c.json")
    assert content["videos"] == [{"id": 1, "name": "clip", "height": 5, "width": 7}]
    assert content["categories"] == [{"id": 3, "name": "person"}, {"id": 10, "name": "monkey"}]
    assert [(i["id"], i["frame_id"], i["file_name"], i["source_index"]) for i in content["images"]] == [
        (1, 0, "00000.jpg", 0),
        (2, 1, "00003.jpg", 3),
        (3, 2, "00006.jpg", 6),
    ]
    assert [(a["image_id"], a["track_id"], a["category_id"], a["score"]) for a in content["annotations"]] == [
        (1, 4, 10, 0.6),
        (2, 0, 10, 0.9),
        (2, 4, 10, 0.5),
    ]
    assert content["annotations"][2]["bbox"] == [2, 2, 3, 2]
    assert content["annotations"][2]["area"] == 6  # masks may overlap
    assert content["annotations"][2]["segmentation"] == MIDDLE


def test_no_track_at_all(tmp_path):
    spool = Spool(tmp_path)
    spool.add(image(0))
    write_coco_video(tmp_path / "c.json", "clip", spool, {}, {1: "a"}, None, SIZE)
    assert read(tmp_path / "c.json")["annotations"] == []
    write_mots(tmp_path, "clip", spool, {}, {1: "a"}, numbers=False)
    assert (tmp_path / "clip.txt").read_text() == ""


def test_the_converters_read_what_is_written(tmp_path):
    """A folder of frames, tracked and read back as three data sets."""
    frames = save_frames(tmp_path / "images" / "clip", clip("static"), digits=5)
    out = tmp_path / "out"
    assert track(frames, "-o", out, "--masks", "--mots", "--coco-video", "--no-video", "--limit", 4) == 0
    convert_mots(
        MotsFolders(out / "mots", images=tmp_path / "images", classes=out / "mots" / "classes.json"),
        Destination(tmp_path / "mots"),
    )
    convert_coco_video(CocoVideo(out / "coco_video.json", frames), Destination(tmp_path / "coco"))
    (tmp_path / "Annotations").mkdir()
    (out / "masks").rename(tmp_path / "Annotations" / "clip")
    convert_masks(MaskFolders(tmp_path, images="images"), Destination(tmp_path / "davis"))

    found = {}
    for name in ("mots", "coco", "davis"):
        (path,) = (tmp_path / name).glob("*.json")
        source = YTVIS.load(path, tmp_path / name / path.stem / "JPEGImages")
        (video,) = source.videos
        found[name] = video.annotations
        assert (video.height, video.width) == (64, 96)
        if name != "davis":
            assert (
                dict(source.categories).items() <= {1: "disc", 2: "square", 3: "triangle", 4: "star"}.items()
            )
    results = json.loads((out / "results.json").read_text())
    kept = [entry for entry in results if entry["score"] > 0.5]
    assert len(found["mots"]) == len(found["coco"]) == len(found["davis"]) == len(kept) > 1
    seen = [sorted(str(a.segmentations[:4]) for a in found[name]) for name in ("mots", "davis")]
    assert seen[0] == seen[1]
    whole = sorted(str([rle and rle["counts"] for rle in e["segmentations"]]) for e in kept)
    assert sorted(str([r and r["counts"] for r in a.segmentations[:4]]) for a in found["coco"]) == whole
