"""The real-video example, run on a small generated video whose truth is known."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from vistk.data.layouts import find_split
from vistk.data.ytvis import YTVIS
from vistk.ops.masks import decode

EXAMPLE = Path(__file__).parents[2] / "examples" / "real_video"
sys.path.insert(0, str(EXAMPLE))  # the example is a folder of scripts, not a package

import make_dataset as example  # noqa: E402
from foreground import ForegroundConfig, foreground, median_background, share_pixels  # noqa: E402
from identities import load_identities  # noqa: E402
from linking import LinkConfig, Linker  # noqa: E402

HEIGHT, WIDTH, FRAMES = 116, 150, 60
CUT = ["--valid-from", "40", "--gap", "4", "--clip-frames", "6", "--step", "2"]
# Three "people", 12 x 30 pixels: (top row, left column in frame t, colour). The third walks in at the
# left edge and shows no column before frame 17.
PEOPLE = [
    (2, lambda t: 10 + 2 * t, (200, 30, 30)),
    (84, lambda t: 130 - 2 * t, (20, 30, 160)),
    (44, lambda t: -12 + 4 * (t - 16), (20, 20, 20)),
]
BOX = (12, 30)  # width, height


def _truth(person: int, t: int) -> np.ndarray:
    top, left, _ = PEOPLE[person]
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + BOX[1], max(left(t), 0) : max(left(t) + BOX[0], 0)] = True
    return mask


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "walk.avi"
    scene = np.random.default_rng(0).integers(110, 150, (HEIGHT, WIDTH, 1)).astype(np.uint8).repeat(3, axis=2)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)  # lossless, so that the truth is exact
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for t in range(FRAMES):
            image = scene.copy()
            for person, (_, _, colour) in enumerate(PEOPLE):
                image[_truth(person, t)] = colour
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def _identities(path: Path, **changes: Any) -> Path:
    """Boxes by eye of the validation part: person 1 out of sight in frames 45 to 47, person 2 unlisted."""

    def rows(person: int, first: int, last: int) -> list[list[int]]:
        top, left, _ = PEOPLE[person]
        return [[t, left(t), top, left(t) + BOX[0], top + BOX[1]] for t in (first, last)]

    content = {
        "video": {"width": WIDTH, "height": HEIGHT, "frames": FRAMES},
        "frames": [40, 59],
        "persons": [
            {"id": 7, "name": "red", "stretches": [rows(0, 40, 59)]},
            {"id": 3, "name": "blue", "stretches": [rows(1, 40, 44), rows(1, 48, 59)]},
        ],
    }
    path.write_text(json.dumps({**content, **changes}))
    return path


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


def _person_of(annotation: dict[str, Any], frames: list[int]) -> int:
    """The one person whom every mask of the annotation covers; fails if the identity changes."""
    found = set()
    for t, segmentation in zip(frames, annotation["segmentations"], strict=True):
        if segmentation is not None:
            mask = decode(segmentation)
            ious = [_iou(mask, _truth(p, t)) for p in range(len(PEOPLE))]
            assert max(ious) > 0.9
            found.add(int(np.argmax(ious)))
    assert len(found) == 1
    return found.pop()


def test_linked_data_set_matches_the_truth(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert example.main([str(video), str(out), "--identities", "none", *CUT]) == 0
    train = json.loads((out / "train.json").read_text())
    assert train["categories"] == [{"id": 1, "name": "person", "supercategory": "person"}]
    # 36 training frames (40 - gap 4) hold three clips of 6 frames at step 2.
    assert [v["source_frames"][0] for v in train["videos"]] == [0, 12, 24]
    seen = []
    for record in train["videos"]:
        assert (record["width"], record["height"], record["length"]) == (WIDTH, HEIGHT, 6)
        for name in record["file_names"]:
            with Image.open(out / "train" / "JPEGImages" / name) as picture:
                assert picture.size == (WIDTH, HEIGHT)
        mine = [a for a in train["annotations"] if a["video_id"] == record["id"]]
        people = [_person_of(a, record["source_frames"]) for a in mine]
        assert len(set(people)) == len(people)
        seen.append(sorted(people))
        if 2 in people:
            late = mine[people.index(2)]["segmentations"]
            visible = [bool(_truth(2, t).any()) for t in record["source_frames"]]
            assert [m is not None for m in late] == visible
    assert seen == [[0, 1], [0, 1, 2], [0, 1, 2]]
    ids = [a["id"] for a in train["annotations"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    valid = json.loads((out / "valid.json").read_text())
    assert [v["source_frames"] for v in valid["videos"]] == [[40, 42, 44, 46, 48, 50]]
    loaded = YTVIS.load(*find_split(out, "train"))
    assert loaded.categories == {1: "person"}
    assert [decode(rle).any() for rle in loaded.frame_rles(loaded.videos[1], 5)] == [True, True, True]
    assert loaded.read_frame(loaded.videos[1], 5).shape == (3, HEIGHT, WIDTH)
    assert not list(tmp_path.glob(".*.tmp")), "the temporary folder is left behind"


def test_boxes_and_areas_are_those_of_the_masks(video: Path, tmp_path: Path) -> None:
    out = tmp_path / "data"
    assert example.main([str(video), str(out), "--identities", "none", "--height", "48", *CUT]) == 0
    content = json.loads((out / "train.json").read_text())
    assert (content["videos"][0]["width"], content["videos"][0]["height"]) == (62, 48)
    for annotation in content["annotations"]:
        for m, box, area in zip(
            annotation["segmentations"], annotation["bboxes"], annotation["areas"], strict=True
        ):
            assert (m is None) == (box is None) == (area is None)
            if m is not None:
                mask = decode(m)
                y, x = np.nonzero(mask)
                assert mask.shape == (48, 62)
                assert box == [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
                assert area == mask.sum()


def test_identities_by_eye_rule_the_validation_part(video: Path, tmp_path: Path) -> None:
    out, sheets = tmp_path / "data", tmp_path / "sheets"
    by_eye = _identities(tmp_path / "identities.json")
    assert (
        example.main([str(video), str(out), "--identities", str(by_eye), "--sheets", str(sheets), *CUT]) == 0
    )
    valid = json.loads((out / "valid.json").read_text())
    frames = valid["videos"][0]["source_frames"]
    assert [_person_of(a, frames) for a in valid["annotations"]] == [1, 0]  # in order of person 3, 7
    # Frame 46 is the fourth of the clip and lies between the stretches of the blue person.
    assert [m is None for m in valid["annotations"][0]["segmentations"]] == [False] * 3 + [True] + [False] * 2
    assert sorted(p.name for p in sheets.iterdir()) == [
        f"{s}_0.png" for s in ("train_00", "train_01", "train_02", "valid_00")
    ]


def test_linker_carries_ids_through_a_merged_blob() -> None:
    """Two boxes walk through each other; for five frames there is one component around both."""
    linker = Linker(LinkConfig())

    def left(t: int) -> tuple[float, float, float, float]:
        return (3.0 * t, 0.0, 3.0 * t + 10, 30.0)

    def right(t: int) -> tuple[float, float, float, float]:
        return (60 - 3.0 * t, 4.0, 70 - 3.0 * t, 34.0)

    for t in range(21):
        if abs(left(t)[0] - right(t)[0]) < 10:
            merged = (min(left(t)[0], right(t)[0]), 0.0, max(left(t)[2], right(t)[2]), 34.0)
            linker.update(t, [merged])
        else:
            linker.update(t, [right(t), left(t)])
    first, second = linker.confirmed()
    assert (first.boxes[0], first.boxes[20]) == (right(0), right(20))
    assert (second.boxes[0], second.boxes[20]) == (left(0), left(20))
    assert set(first.boxes) == set(second.boxes) == set(range(21))


def test_linker_ignores_what_is_no_person() -> None:
    linker = Linker(LinkConfig())
    for t in range(20):
        linker.update(t, [(0.0, 0.0, 60.0, 20.0), (70.0, 0.0, 75.0, 9.0)])  # too wide; too low
    assert linker.tracks == []


def test_shared_pixels_do_not_overlap_and_the_front_wins() -> None:
    mask = np.zeros((23, 41), bool)
    mask[2:20, 3:25] = True
    mask[0:2, 38:41] = True  # far from both
    shared = share_pixels(mask, {4: (3, 2, 15, 18), 9: (11, 2, 25, 20)}, margin=2)
    assert set(shared) == {4, 9}
    assert not (shared[4] & shared[9]).any()
    assert not shared[4][:, 30:].any()
    assert not shared[9][:, 30:].any()
    assert (shared[4] | shared[9])[2:18, 3:25].all()
    # (10, 13) is in the core of both (distances 0.67 and 0.71); 9 ends lower and so stands in front.
    assert shared[9][10, 13]
    assert shared[4][10, 5]


def test_nobody_gets_crumbs_of_a_neighbour() -> None:
    """The boxes overlap although the components do not: the corner stays with its own component."""
    mask = np.zeros((40, 40), bool)
    mask[0:20, 0:10] = True
    mask[18:20, 10:14] = True  # a foot of the first person, inside the second person's box
    mask[8:36, 20:32] = True
    shared = share_pixels(mask, {1: (0, 0, 14, 20), 2: (8, 8, 32, 36)})
    np.testing.assert_array_equal(shared[1], mask & (np.arange(40) < 20))
    np.testing.assert_array_equal(shared[2], mask & (np.arange(40) >= 20))


def test_shadow_is_no_foreground() -> None:
    scene = np.full((40, 40, 3), (160, 140, 120), np.uint8)
    frame = scene.copy()
    frame[5:35, 5:15] = (scene[5:35, 5:15] * 0.75).astype(np.uint8)  # dimmed, same colour
    frame[5:35, 25:35] = (120, 140, 160)  # as bright, another colour
    mask = foreground(frame, median_background([scene] * 3), ForegroundConfig())
    assert not mask[:, :20].any()
    assert mask[5:35, 25:35].all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--valid-from", "10"], r"train part is source frames 0 to -15 of 60, one clip of 24"),
        (
            [*CUT, "--valid-from", "55"],
            r"valid part is source frames 55 to 59 of 60, one clip of 6 .* needs 11",
        ),
        ([*CUT, "--height", "117"], r"--height is 117, expected 1 to 116"),
        ([*CUT, "--step", "0"], r"--step must be at least 1"),
    ],
)
def test_bad_arguments_are_named(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    out = tmp_path / "data"
    assert example.main([str(video), str(out), "--identities", "none", *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("make_dataset: ")
    assert re.search(message, error)
    assert list(tmp_path.iterdir()) == []


def test_bad_files_are_named(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def error(*arguments: object) -> str:
        assert example.main([*map(str, arguments), *CUT]) == 1
        return capsys.readouterr().err.splitlines()[-1]

    none = ("--identities", "none")
    out = tmp_path / "data"
    assert f"video not found: {tmp_path / 'no.avi'}" in error(tmp_path / "no.avi", out, *none)
    text = tmp_path / "text.avi"
    text.write_text("not a video")
    assert f"{text}: not readable as a video" in error(text, out, *none)
    assert f"output folder exists: {tmp_path}" in error(video, tmp_path, *none)
    assert "identities file not found" in error(video, out, "--identities", tmp_path / "no.json")
    # The committed identities belong to another video.
    assert "identities are for a video of 768x576 and 795 frames, this one has 150x116 and 60" in error(
        video, out
    )
    short = _identities(tmp_path / "short.json", frames=[41, 59])
    assert "valid_00 is source frames 40 to 50, the identities cover 41 to 59" in error(
        video, out, "--identities", short
    )
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "av", None)
        assert "needs PyAV: pip install 'vis-toolkit[viz]'" in error(video, out, *none)
    assert not out.exists()


@pytest.mark.parametrize(
    ("stretches", "message"),
    [
        ([[[40, 0, 0, 5, 5], [40, 1, 0, 6, 5]]], "frames do not increase"),
        ([[[40, 5, 0, 5, 5]]], "x1 <= x0"),
        ([[[40, 0, 0, 5, 5]], [[40, 0, 0, 5, 5]]], "stretches overlap"),
        ([[[40, 0, 0, 5]]], "expected the fields"),
    ],
)
def test_bad_identities_are_named(tmp_path: Path, stretches: list[Any], message: str) -> None:
    path = _identities(tmp_path / "bad.json", persons=[{"id": 1, "stretches": stretches}])
    with pytest.raises(ValueError, match=message):
        load_identities(path)


def test_committed_identities_cover_the_default_clips() -> None:
    identities = load_identities(EXAMPLE / "identities.json")
    clips = example.plan_clips(identities.num_frames, valid_from=650, gap=24, clip_frames=24, step=2)
    assert sum(c.split == "train" for c in clips) == 13
    valid = [c for c in clips if c.split == "valid"]
    assert len(valid) == 3
    assert min(f for c in valid for f in c.frames) - max(c.frames[-1] for c in clips[:13]) > 24
    for clip in valid:
        for frame in clip.frames:
            boxes = identities.boxes(frame)
            assert 6 <= len(boxes) <= 8
            assert all(0 <= b[0] < b[2] <= 768 and 0 <= b[1] < b[3] <= 576 for b in boxes.values())
