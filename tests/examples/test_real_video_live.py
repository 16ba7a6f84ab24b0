"""Background subtraction as a segmenter, and the trackers side by side on it."""

from __future__ import annotations

import csv
import json
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from vistk.config import compose, save
from vistk.engine.stream import Stream
from vistk.experiment import build_tracker as build_run_tracker
from vistk.models.checkpoints import save_weights
from vistk.models.segmenter import Segmenter
from vistk.ops.masks import decode, encode
from vistk.structures import FrameQueries, ScoringProtocol
from vistk.trackers.ablations import ABLATIONS
from vistk.trackers.association import class_scores, cosine_similarity
from vistk.trackers.base import track_video
from vistk.trackers.registry import BUILT_IN, get_tracker

EXAMPLE = Path(__file__).parents[2] / "examples" / "real_video"
sys.path.insert(0, str(EXAMPLE))  # the example is a folder of scripts, not a package

import live  # noqa: E402
from background import BackgroundConfig, BackgroundSegmenter, RunningBackground  # noqa: E402
from foreground import ForegroundConfig, foreground  # noqa: E402
from identities import load_identities  # noqa: E402
from lanes import LEFT_OUT, BackgroundLanes, LaneError, build_tracker  # noqa: E402
from make_dataset import CATEGORIES, Clip, Scan, annotate  # noqa: E402
from stretch import Stretch  # noqa: E402
from vectors import SHARPNESS, Component, appearance, location, motion  # noqa: E402
from video import read_frames  # noqa: E402

HEIGHT, WIDTH, LAST = 116, 150, 60
VTEST = Path(os.environ.get("VISTK_VTEST", "/usr/share/doc/opencv-doc/examples/data/vtest.avi"))


@dataclass(frozen=True)
class Mover:
    """A rectangle, 30 pixels tall, that walks at constant speed; ``left`` of its column by frame."""

    top: int
    left: Callable[[int], int]
    colour: tuple[int, int, int]
    width: int = 12

    def mask(self, t: int) -> np.ndarray:
        mask = np.zeros((HEIGHT, WIDTH), bool)
        left = self.left(t)
        mask[self.top : self.top + 30, max(left, 0) : max(left + self.width, 0)] = True
        return mask


RED = Mover(10, lambda t: 4 * (t - 20) - 12, (200, 30, 30))  # walks in at the left after frame 20
BLUE = Mover(
    16, lambda t: 150 - 4 * (t - 20), (20, 30, 170), width=16
)  # from the right; they cross, in front
GREEN = Mover(70, lambda t: 2 * (t - 20) + 5, (30, 160, 40))  # below them; is there all of a sudden


def _frames(count: int, movers: list[Mover], first: int = 20) -> list[np.ndarray]:
    """A scene of stripes with a noise of 2 grey levels; nobody is there before frame ``first``."""
    random = np.random.default_rng(0)
    scene = random.integers(110, 150, (HEIGHT, WIDTH, 1)).repeat(3, axis=2)
    frames = []
    for t in range(count):
        image = scene + random.integers(-2, 3, scene.shape)
        for mover in movers if t >= first else []:
            image[mover.mask(t)] = mover.colour
        frames.append(image.clip(0, 255).astype(np.uint8))
    return frames


def _segmented(frames: list[np.ndarray], config: BackgroundConfig | None = None) -> list[FrameQueries]:
    segmenter = BackgroundSegmenter(config)
    return [segmenter.segment(frame) for frame in frames]


def test_components_become_queries_and_the_rest_are_no_object() -> None:
    queries = _segmented(_frames(32, [BLUE, GREEN]), BackgroundConfig(queries=5))
    assert queries[0].masks is not None
    assert queries[0].masks.rles == (None,) * 5  # without a background there is nothing to stand out
    frame = queries[31]
    assert frame.masks is not None
    # BLUE is 16 x 30, GREEN 12 x 30 pixels: the larger comes first.
    for query, mover in enumerate([BLUE, GREEN]):
        rle = frame.masks.rles[query]
        assert rle is not None
        np.testing.assert_array_equal(decode(rle), mover.mask(31))
    assert frame.masks.area.tolist() == [480, 360, 0, 0, 0]
    assert frame.masks.rles[2:] == (None, None, None)
    torch.testing.assert_close(
        class_scores(frame.logits)[:2], torch.tensor([480 / (480 + 90), 360 / (360 + 90)])
    )
    assert (class_scores(frame.logits)[2:] < 0.011).all()
    # Centre and sides of the rectangles: BLUE's left column is 150 - 44.
    expected = [[106 + 8, 16 + 15, 16, 30], [27 + 6, 70 + 15, 12, 30]]
    torch.testing.assert_close(frame.vectors["box"][:2], torch.tensor(expected, dtype=torch.float32))
    assert torch.equal(frame.vectors["overlap"], torch.diag(torch.tensor([1.0, 1, 0, 0, 0])))
    for name, length in (("query", 256), ("appearance", 648)):
        vectors = frame.vectors[name]
        assert vectors.shape == (5, length)
        torch.testing.assert_close(vectors.norm(dim=-1)[:2], torch.full((2,), math.sqrt(SHARPNESS)))
        assert not vectors[2:].any()


def test_the_smallest_components_have_no_query_where_there_are_too_many() -> None:
    segmenter = BackgroundSegmenter(BackgroundConfig(queries=1))
    frames = [segmenter.segment(frame) for frame in _frames(22, [BLUE, GREEN, RED], first=21)]
    masks = frames[21].masks
    assert masks is not None
    assert masks.rles[0] is not None
    np.testing.assert_array_equal(decode(masks.rles[0]), GREEN.mask(21))  # the others show 4 columns
    assert segmenter.left_out == 2


def test_later_frames_change_nothing() -> None:
    frames = _frames(40, [RED, BLUE, GREEN])
    long, short = _segmented(frames), _segmented(frames[:25])
    for mine, other in zip(short, long, strict=False):
        assert torch.equal(mine.logits, other.logits)
        assert mine.masks is not None
        assert other.masks is not None
        assert mine.masks.rles == other.masks.rles
        for name, vectors in mine.vectors.items():
            assert torch.equal(vectors, other.vectors[name])


def test_a_frame_is_compared_with_the_background_before_it() -> None:
    """A change of all pixels at once is foreground in its first frame, and nothing was learned from it."""
    segmenter = BackgroundSegmenter()
    for _ in range(30):
        segmenter.learn(np.full((40, 50, 3), 100, np.uint8))
    masks = segmenter.segment(np.full((40, 50, 3), 200, np.uint8)).masks
    assert masks is not None
    assert masks.area.tolist()[:2] == [40 * 50, 0]

    # After one frame the background follows by 30 of these 40 grey levels, which would hide them.
    segmenter = BackgroundSegmenter()
    segmenter.learn(np.full((40, 50, 3), 100, np.uint8))
    masks = segmenter.segment(np.full((40, 50, 3), 140, np.uint8)).masks
    assert masks is not None
    assert masks.area.tolist()[:2] == [40 * 50, 0]


def test_the_running_background_comes_to_rest_at_the_median() -> None:
    """A pixel that shows 100 in two frames of three and 180 in the third; the mean would be 127."""
    scene = RunningBackground(rate=0.2, haste=60)
    for t in range(600):
        scene.add(np.full((2, 3, 3), 180 if t % 3 == 0 else 100, np.uint8))
    assert np.abs(scene.background.colour - 100).max() < 1.0


def test_who_stands_in_the_first_frame_is_forgotten() -> None:
    scene = RunningBackground(rate=0.2, haste=60)
    ghost = np.full((4, 4, 3), 30, np.uint8)
    scene.add(ghost)
    away = 0
    while np.abs(scene.background.colour - 120).max() > 28:
        scene.add(np.full((4, 4, 3), 120, np.uint8))
        away += 1
    # 60 / 2 + 60 / 3 + 60 / 4 = 65 of the 62 grey levels to go
    assert away == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RunningBackground(0, 1), "rate is 0"),
        (lambda: BackgroundSegmenter(BackgroundConfig(queries=0)), "queries is 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_frame_of_another_size_is_refused() -> None:
    scene = RunningBackground(0.2, 60)
    scene.add(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match="7 x 4 pixels after frames of 5 x 4"):
        scene.add(np.zeros((4, 7, 3), np.uint8))


def test_motion_is_the_shift_since_the_frame_before() -> None:
    random = np.random.default_rng(1)
    before = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    after = np.roll(before, (-6, 4), axis=(0, 1))
    component = Component(30, 20, np.ones((15, 9), bool))
    assert motion(component, after, before) == (4.0, -6.0)
    assert motion(component, before, before) == (0.0, 0.0)


def test_places_are_alike_when_they_are_near() -> None:
    frame = np.zeros((200, 200, 3), np.uint8)
    mask = np.ones((20, 10), bool)
    things = [
        Component(50, 50, mask),
        Component(55, 50, mask),
        Component(70, 50, mask),
        Component(150, 150, mask),
    ]
    vectors = torch.from_numpy(location(things, frame, None))
    alike = cosine_similarity(vectors, vectors)[0]
    # Reaches are 10 and 40 pixels: (exp(-d^2 / 200) + exp(-d^2 / 3200)) / 2 at 5, 20 and 141.
    # A mean of 128 cosines of random angles has a standard error of 1 / sqrt(2 * 128); allow three.
    torch.testing.assert_close(alike, torch.tensor([1.0, 0.937, 0.509, 0.001]), atol=3 / 16, rtol=0)
    assert alike[1] > alike[2] > alike[3]


def test_colours_are_told_apart_by_where_they_are_on_a_body() -> None:
    frame = np.zeros((40, 60, 3), np.uint8)
    for left, (top, below) in zip(
        (0, 12, 24),
        [((200, 0, 0), (0, 0, 200)), ((200, 0, 0), (0, 0, 200)), ((0, 0, 200), (200, 0, 0))],
        strict=True,
    ):
        frame[:15, left : left + 10], frame[15:30, left : left + 10] = top, below
    frame[:, 12:22] = (frame[:, 12:22] * 0.95).astype(np.uint8)  # a little less light
    things = [Component(left, 0, np.ones((30, 10), bool)) for left in (0, 12, 24)]
    vectors = torch.from_numpy(appearance(things, frame))
    alike = cosine_similarity(vectors, vectors)[0]
    assert alike[1] > 0.95
    assert alike[2] < 0.4  # the middle band has both colours in either


@pytest.mark.parametrize("name", [*BUILT_IN, *ABLATIONS])
def test_every_tracker_runs_on_the_background_or_is_named(name: str) -> None:
    family = ABLATIONS[name][0] if name in ABLATIONS else name
    if family in LEFT_OUT:
        with pytest.raises(LaneError, match=f"{name} does not run on background subtraction: its|it "):
            build_tracker(name)
        return
    stretch = _stretch(range(20, 38))  # RED and BLUE touch in frame 39
    lanes = BackgroundLanes([name], BackgroundSegmenter(BackgroundConfig(queries=6)))
    for t, frame in enumerate(_frames(38, [RED, BLUE, GREEN])):
        shown = lanes.push(frame, stretch.targets(t)) if t >= 20 else lanes.pass_by(frame)
    assert shown is not None
    assert len(shown[name]) == 3
    prediction = lanes.close()[name]
    assert max(len(tracklet.segmentations) for tracklet in prediction.tracklets) == 18
    numbers = stretch.judge({name: prediction}, range(20, 38), 0.0)[name]
    assert numbers["IDF1"] > 0.6
    if name == "oracle":
        assert numbers["switches"] == 0
        assert numbers["IDF1"] == 1.0

    # The same, one after the other, and with what the tracker says in hindsight.
    segmenter = BackgroundSegmenter(BackgroundConfig(queries=6))
    queries = []
    for t, frame in enumerate(_frames(38, [RED, BLUE, GREEN])):
        if t < 20:
            segmenter.learn(frame)
        else:
            queries.append(replace(segmenter.segment(frame), targets=stretch.targets(t)))
    found = {
        (tracklet.track_id, t): rle["counts"]
        for tracklet in prediction.tracklets
        for t, rle in enumerate(tracklet.segmentations)
        if rle is not None
    }
    expected = {}
    for t, (frame, answer) in enumerate(zip(queries, track_video(build_tracker(name), queries), strict=True)):
        for track, query in zip(answer.track_ids.tolist(), answer.query_index.tolist(), strict=True):
            rle = frame.masks.rles[query]
            if rle is not None:
                expected[track, t] = rle["counts"]
    assert found == expected


def _people(last: int) -> dict[str, object]:
    """What somebody who looks would write into an identities file."""

    def rows(mover: Mover) -> list[list[int]]:
        there = [t for t in range(20, last) if mover.mask(t).any()]
        return [
            [t, mover.left(t), mover.top, mover.left(t) + mover.width, mover.top + 30]
            for t in (there[0], there[-1])
        ]

    return {
        "video": {"width": WIDTH, "height": HEIGHT, "frames": last},
        "frames": [20, last - 1],
        "persons": [
            {"id": n, "name": str(n), "stretches": [rows(mover)]}
            for n, mover in enumerate([RED, BLUE, GREEN], 1)
        ],
    }


def _stretch(frames: range) -> Stretch:
    """The same as annotations, with the true pixels; BLUE stands in front of RED."""
    content = []
    for n, mover in enumerate([RED, BLUE, GREEN], 1):
        masks = [mover.mask(t) & ~BLUE.mask(t) if mover is RED else mover.mask(t) for t in frames]
        segmentations = [encode(torch.from_numpy(mask[None]))[0] if mask.any() else None for mask in masks]
        content.append(
            {"id": n, "video_id": 1, "category_id": 1, "iscrowd": 0, "segmentations": segmentations}
        )
    video = {"id": 1, "height": HEIGHT, "width": WIDTH, "length": len(frames)}
    video["file_names"] = [f"{t}.jpg" for t in frames]
    return Stretch(frames, {"categories": CATEGORIES, "videos": [video], "annotations": content})


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("video") / "cross.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)  # lossless
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for image in _frames(LAST, [RED, BLUE, GREEN]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_the_demo_judges_trackers_by_the_checked_people(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    people = tmp_path / "people.json"
    people.write_text(json.dumps(_people(LAST)))
    out = tmp_path / "out"
    words = [
        "--trackers",
        "identity,visage,tracklet-linking,oracle",
        "--every",
        "2",
        "--identities",
        str(people),
    ]
    assert live.main([str(video), "-o", str(out), *words]) == 0
    with (out / "table.csv").open() as file:
        rows = {row["tracker"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["identity", "visage", "tracklet-linking", "oracle"]
    assert int(rows["oracle"]["switches"]) == 0
    assert int(rows["oracle"]["tracks"]) == 3
    # They cross in one blob, and are told apart behind it by their colours.
    assert int(rows["visage"]["switches"]) < int(rows["identity"]["switches"])
    assert 0.9 < float(rows["visage"]["IDF1"]) <= float(rows["oracle"]["IDF1"]) <= 1
    printed = capsys.readouterr().out
    assert (out / "table.md").read_text() in printed
    assert "20 frames" in printed

    with av.open(str(out / "side_by_side.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert float(stream.average_rate) == pytest.approx(5, rel=0.05)
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(pictures) == 20
    # Three panels wide, with "by eye" the first of five, two rows high; frames are 150 pixels wide.
    assert 3 * WIDTH <= pictures[0].shape[1] < 3 * (WIDTH + 10)
    assert 2 * HEIGHT <= pictures[0].shape[0] < 2 * (HEIGHT + 40)
    with Image.open(out / "timelines.png") as sheet:
        assert min(sheet.size) > 200
        assert len(np.unique(np.asarray(sheet.convert("RGB")).reshape(-1, 3), axis=0)) > 50
    for name in rows:
        content = json.loads((out / "results" / f"{name}.json").read_text())
        assert {len(entry["segmentations"]) for entry in content} == {20}


def test_frames_outside_the_checked_stretch_are_tracked_and_not_judged(video: Path, tmp_path: Path) -> None:
    people = tmp_path / "people.json"
    people.write_text(json.dumps(_people(LAST)))
    words = ["--trackers", "oracle", "--frames", "11-58", "--every", "3", "--identities", str(people)]
    assert live.main([str(video), "-o", str(tmp_path), *words]) == 0
    content = json.loads((tmp_path / "results" / "oracle.json").read_text())
    assert {len(entry["segmentations"]) for entry in content} == {16}  # 11, 14, .., 56
    assert not any(entry["segmentations"][t] for entry in content for t in range(3))  # nobody before 20
    with (tmp_path / "table.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["IDF1"]) > 0.9


def test_a_video_that_nobody_checked_has_no_numbers(video: Path, tmp_path: Path) -> None:
    (tmp_path / "table.md").write_text("of another time")
    words = ["--identities", "none", "--trackers", "minvis", "--frames", "24-200", "--every", "3"]
    assert live.main([str(video), "-o", str(tmp_path), *words]) == 0
    assert not (tmp_path / "table.md").exists()
    with av.open(str(tmp_path / "side_by_side.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == len(range(24, LAST, 3))
    content = json.loads((tmp_path / "results" / "minvis.json").read_text())
    assert len(content) == 3


def test_a_video_without_people_has_no_tracks(tmp_path: Path) -> None:
    path = tmp_path / "empty.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "bgr0"
        for image in _frames(4, []):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    words = ["--identities", "none", "--trackers", "visage,idol"]
    assert live.main([str(path), "-o", str(tmp_path / "out"), *words]) == 0
    for name in ("visage", "idol"):
        assert json.loads((tmp_path / "out" / "results" / f"{name}.json").read_text()) == []


def test_the_weights_of_a_run_are_a_segmenter_too(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Weights that were never trained: what counts is that they are those that track."""
    run_dir = tmp_path / "run"
    words = [
        "tracker=visage",
        "data=ytvis",
        "data.root=gone",
        "data.test_short_side=64",
        f"run_dir={run_dir}",
    ]
    composed = compose(words)
    save(composed)
    torch.manual_seed(0)
    segmenter = Segmenter(replace(composed.config.segmenter, backbone_pretrained=False), 1)
    state = {f"segmenter.{key}": value for key, value in segmenter.state_dict().items()}
    tracker = build_run_tracker("visage", composed.config.tracker, segmenter)
    state |= {f"tracker.{key}": value for key, value in tracker.state_dict().items()}
    save_weights(run_dir / "weights.safetensors", state, {"categories": {"1": "person"}})
    people = tmp_path / "people.json"
    people.write_text(json.dumps(_people(LAST)))
    words = ["--segmenter", str(run_dir / "weights.safetensors"), "--identities", str(people), "--every", "5"]
    words += ["--trackers", "minvis,visage,idol", "--track-score", "0"]
    assert live.main([str(video), "-o", str(tmp_path / "out"), *words]) == 0
    assert "row idol is left out: it has heads that tracker=visage did not train" in capsys.readouterr().out
    with (tmp_path / "out" / "table.csv").open() as file:
        assert [row["tracker"] for row in csv.DictReader(file)] == ["minvis", "visage"]
    images = [frame for t, frame in enumerate(read_frames(video)) if t in range(20, LAST, 5)]
    for name, own in (
        ("minvis", build_run_tracker("minvis", get_tracker("minvis")[1], segmenter)),
        ("visage", tracker),
    ):
        stream = Stream(segmenter, own, short_side=64, protocol=ScoringProtocol(10, True, (1,)))
        stream.push_many(images)
        expected = stream.close().to_ytvis()
        found = json.loads((tmp_path / "out" / "results" / f"{name}.json").read_text())
        assert len(found) == len(expected) > 0
        for mine, other in zip(found, expected, strict=True):
            assert mine["score"] == pytest.approx(other["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every", "0"], "--every is 0"),
        (["--trackers", "dvis"], "dvis does not run on background subtraction: its refiner is learned"),
        (["--trackers", "visge"], "nearest is 'visage'"),
        (["--identities", "none", "--trackers", "oracle"], "the oracle runs on the background alone"),
        (["--identities", "none", "--frames", "90-99"], "the video ends before frame 90"),
        ([], "the identities are for a video of 768x576"),
        (["--frames", "3-9"], "of which 0 are tracked; expected 2 or more, or --identities none"),
        (["--segmenter", "nowhere/weights.safetensors"], "no such file nowhere/weights.safetensors"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    out = tmp_path / "out"
    assert live.main([str(video), "-o", str(out), *words]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("live: ")]
    assert len(error) == 1
    assert message in error[0]
    assert not out.exists() or not list(out.iterdir())


@pytest.mark.parametrize("names", ["", ",", " , "])
def test_a_list_of_no_trackers_is_refused(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], names: str
) -> None:
    with pytest.raises(SystemExit):
        live.main([str(video), "-o", str(tmp_path), "--identities", "none", "--trackers", names])
    assert "argument --trackers: found" in capsys.readouterr().err
    assert live._names("minvis, visage") == ["minvis", "visage"]


@pytest.mark.skipif(not VTEST.is_file(), reason=f"no {VTEST}: install opencv-doc, or set VISTK_VTEST")
def test_trackers_on_the_real_clip() -> None:
    """The first 25 tracked frames of the checked stretch; pixels are shared by the boxes set by eye."""
    identities = load_identities(EXAMPLE / "identities.json")
    frames = range(650, 700, 2)
    boxes = {frame: identities.boxes(frame) for frame in frames}
    lanes = BackgroundLanes(["identity", "minvis", "visage", "oracle"])
    images: dict[int, np.ndarray] = {}
    for index, image in enumerate(read_frames(VTEST)):
        if index in frames:
            images[index] = image
        elif index < frames.start and index % 6 == 0:
            lanes.pass_by(image)
        if index == frames[-1]:
            break
    background = lanes.segmenter.background
    masks = {
        t: encode(torch.from_numpy(foreground(images[t], background, ForegroundConfig())[None]))[0]
        for t in frames
    }
    annotations = annotate(Clip("valid", "stretch", frames), 1, Scan(masks, boxes), (768, 576))
    video = {"id": 1, "height": 576, "width": 768, "length": len(frames)}
    video["file_names"] = [f"{t}.jpg" for t in frames]
    content = {"categories": CATEGORIES, "videos": [video]}
    stretch = Stretch(
        frames, content | {"annotations": [{"id": n, **a} for n, a in enumerate(annotations, 1)]}
    )
    for t in frames:
        lanes.push(images[t], stretch.targets(t))
    numbers = stretch.judge(lanes.close(), frames, 0.0)
    assert len(annotations) == 8
    assert numbers["oracle"]["switches"] == 0
    assert numbers["oracle"]["IDF1"] > 0.9
    assert numbers["visage"]["IDF1"] > numbers["minvis"]["IDF1"] > numbers["identity"]["IDF1"]
    assert numbers["visage"]["switches"] < 10 < 60 < numbers["identity"]["switches"]
