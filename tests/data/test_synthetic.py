"""The generated benchmark: what each split promises, and that a seed gives the same bytes."""

import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from vistk.data import synthetic
from vistk.data.clips import ClipDataset
from vistk.data.config import SyntheticConfig
from vistk.data.layouts import find_split
from vistk.data.sampling import Stream
from vistk.data.scenes import KINDS, plan_still, plan_video
from vistk.data.sprites import PIXEL, textures
from vistk.data.synthetic import SPLITS, config_hash, dataset_root, ensure, frames_of
from vistk.data.ytvis import YTVIS
from vistk.ops.masks import areas

CONFIG = SyntheticConfig(num_stills=6, num_train=5, num_val=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    config = replace(CONFIG, root=str(tmp_path_factory.mktemp("synthetic") / "set"))
    return ensure(config, SPLITS, progress=False)


@pytest.mark.parametrize("split", SPLITS)
def test_is_a_youtube_vis_data_set(root, split):
    data = YTVIS.load(*find_split(root, split))
    assert len(data.videos) == {"stills": 6, "train": 5}.get(split, 2)
    assert list(data.categories.items()) == [(1, "disc"), (2, "square"), (3, "triangle"), (4, "star")]
    for video in data.videos:
        assert len(video) == (1 if split == "stills" else 12)
        assert (video.height, video.width) == (64, 96)
        assert 1 <= len(video.annotations) <= 5
        for t in range(len(video)):
            masks = [data.instance_mask(video, annotation, t).int() for annotation in video.annotations]
            assert (sum(masks) <= 1).all()  # visible parts never overlap
            assert data.read_frame(video, t).shape == (3, 64, 96)
        for annotation in video.annotations:
            assert annotation.areas == tuple(a or None for a in areas(annotation.segmentations))
            assert all(a is None or a >= 12 for a in annotation.areas)
            assert [o is None for o in annotation.occlusion] == [a is None for a in annotation.areas]
            assert any(annotation.areas)


def test_boxes_and_frames_agree_with_the_masks(root):
    data = YTVIS.load(*find_split(root, "track"))
    entries = json.loads((root / "track" / "instances.json").read_text())["annotations"]
    by_id = {entry["id"]: entry for entry in entries}
    checked = 0
    for video in data.videos:
        for t in range(len(video)):
            for annotation in video.annotations:
                mask = data.instance_mask(video, annotation, t)
                box = by_id[annotation.id]["bboxes"][t]
                if box is None:
                    assert not mask.any()
                    continue
                x, y, w, h = box
                assert mask[y : y + h, x : x + w].sum() == mask.sum()
                assert mask[y].any()
                assert mask[y + h - 1].any()
                assert mask[:, x].any()
                assert mask[:, x + w - 1].any()
                checked += 1
    assert checked > 50


def test_jpeg_frames_are_the_drawn_frames(root):
    frames, video, _ = frames_of(CONFIG, "swap", 1)
    for frame, name in zip(frames, video["file_names"], strict=True):
        stored = np.asarray(Image.open(root / "swap" / "JPEGImages" / name)).astype(int)
        assert np.abs(stored - frame).mean() < 4


def centres_of(kind, index, config=CONFIG):
    scene = plan_video(Stream("scene", kind, index), config, kind, main=index % 4, held_out=True)
    return scene, scene.centres / PIXEL


def steps(centres):
    """(T-1, n) pixels moved from frame to frame."""
    return np.hypot(*np.moveaxis(np.diff(centres, axis=0), -1, 0))


@pytest.mark.parametrize("index", range(10))
def test_static_objects_hardly_move(index):
    scene, centres = centres_of("static", index)
    assert np.abs(centres - centres[0]).max() <= 1.0
    assert scene.present.all()
    assert scene.swap_frame is None


def test_track_objects_move_smoothly_and_hide_each_other():
    moved, hidden = [], 0
    for index in range(20):
        scene, centres = centres_of("track", index)
        assert scene.present.all()
        assert steps(centres).max() < 2 * CONFIG.speed + 2  # twice the mean on a bent path, at most
        assert np.abs(np.diff(centres, n=2, axis=0)).max() < 1  # no jump
        moved += list(np.hypot(*(centres[-1] - centres[0]).T))
        _, _, annotations = frames_of(CONFIG, "track", index)
        hidden += sum(
            o in ("slight_occlusion", "severe_occlusion") for a in annotations for o in a["occlusion"]
        )
    assert np.mean(moved) > 15
    assert hidden > 100


@pytest.mark.parametrize("index", range(20))
def test_swap_exchanges_places_at_one_frame(index):
    scene, centres = centres_of("swap", index)
    jumps = steps(centres).max(1) > 3
    assert np.flatnonzero(jumps).tolist() == [scene.swap_frame - 1]
    assert 4 <= scene.swap_frame <= 8
    before, after = centres[scene.swap_frame - 1], centres[scene.swap_frame]
    distance = np.hypot(*np.moveaxis(after[:, None] - before[None], -1, 0))
    source = distance.argmin(1)  # whose place each object now has
    assert sorted(source) == list(range(len(scene)))
    assert all(source[i] != i for i in range(len(scene)))
    assert distance[np.arange(len(scene)), source].max() < 1.5


def test_reenter_objects_are_gone_and_return_elsewhere():
    kinds = set()
    for index in range(20):
        scene, centres = centres_of("reenter", index)
        returned = 0
        for k in range(len(scene)):
            gone = np.flatnonzero(~scene.present[:, k])
            if len(gone) == 0:
                assert steps(centres)[:, k].max() < 2
                continue
            returned += 1
            assert gone.tolist() == list(range(gone[0], gone[-1] + 1))
            assert 2 <= len(gone) <= 5
            assert scene.present[[0, -1], k].all()
            assert np.hypot(*(centres[-1, k] - centres[0, k])) > 5
            kinds.add(bool(steps(centres)[gone[0] - 2, k] > 5))
        assert returned >= 2
    assert kinds == {True, False}  # some slide out, some vanish


def test_reenter_annotations_have_gaps_and_go_on():
    gaps = 0
    for index in range(5):
        for annotation in frames_of(CONFIG, "reenter", index)[2]:
            shown = [s is not None for s in annotation["segmentations"]]
            text = "".join("x" if s else "." for s in shown).strip(".")
            gaps += "..." in text
    assert gaps >= 5


def test_twins_are_in_stills_only():
    twins = 0
    for index in range(200):
        scene, is_twins = plan_still(Stream("still", index), CONFIG, main=1)
        assert len(set(scene.textures)) == (1 if is_twins else len(scene))
        assert not set(scene.textures) & set(textures(True))
        twins += is_twins
    assert 70 < twins < 130
    for index in range(20):
        for kind in KINDS:
            scene, _ = centres_of(kind, index)
            assert (
                len({t.first for t in scene.textures}) == len({t.pair for t in scene.textures}) == len(scene)
            )
    assert not plan_still(Stream(0), replace(CONFIG, twins=0.0), 0)[1]
    assert plan_still(Stream(0), replace(CONFIG, twins=1.0), 0)[1]


@pytest.mark.parametrize("split", SPLITS)
def test_validation_shows_held_out_textures_alone(split):
    expected = {(t.pattern, t.first, t.second) for t in textures(split in KINDS)}
    for index in range(8):
        _, video, annotations = frames_of(CONFIG, split, index)
        assert {tuple(a["texture"]) for a in annotations} <= expected
        if split in KINDS:
            assert video["kind"] == split


def test_some_stills_are_crowded():
    hidden = [
        "no_occlusion" not in annotation["occlusion"]
        for index in range(60)
        for annotation in frames_of(CONFIG, "stills", index)[2]
    ]
    assert 0.1 < np.mean(hidden) < 0.5


def test_training_clips_are_of_all_kinds():
    assert [frames_of(CONFIG, "train", i)[1]["kind"] for i in range(4)] == list(KINDS)


def test_videos_have_a_main_class():
    shares = []
    for index in range(200):
        scene, _ = centres_of("static", index)
        shares.append(np.mean(np.equal(scene.shapes, index % 4)))
    assert 0.85 < np.mean(shares) < 0.97
    scene, _ = centres_of("static", 2, replace(CONFIG, same_class=1.0))
    assert set(scene.shapes) == {2}


def test_classes_are_balanced():
    config = replace(CONFIG, same_class=1.0)
    main = [frames_of(config, "swap", i)[2][0]["category_id"] for i in range(32)]
    assert np.bincount(main).tolist() == [0, 8, 8, 8, 8]
    # in the training clips, every class meets every kind
    train = [
        (v["kind"], a[0]["category_id"]) for _, v, a in (frames_of(config, "train", i) for i in range(16))
    ]
    assert len(set(train)) == 16


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind of synthetic video is 'flip', expected one of static, track"):
        plan_video(Stream(0), CONFIG, "flip", main=0, held_out=False)


def test_pixels_and_annotations_are_pinned():
    """A change here is a change of the benchmark: raise ``synthetic.FORMAT`` and say so in the changelog."""
    crc = {}
    for split in SPLITS:
        total = 0
        for index in range(2):
            frames, video, annotations = frames_of(CONFIG, split, index)
            for frame in frames:
                total = zlib.crc32(frame.tobytes(), total)
            total = zlib.crc32(json.dumps([video, annotations]).encode(), total)
        crc[split] = total
    assert crc == {
        "stills": 405029371,
        "train": 1092640027,
        "static": 2258953709,
        "track": 3613550970,
        "swap": 631668659,
        "reenter": 2967668835,
    }


def test_files_are_repeatable(root, tmp_path):
    again = ensure(replace(CONFIG, root=str(tmp_path / "again")), ["swap"], progress=False)
    names = sorted(p.relative_to(root) for p in (root / "swap").rglob("*") if p.is_file())
    assert len(names) == 2 * 12 + 1
    for name in names:
        assert (again / name).read_bytes() == (root / name).read_bytes()


def test_seeds_and_splits_differ():
    first = frames_of(CONFIG, "static", 0)[0][0]
    assert not np.array_equal(first, frames_of(replace(CONFIG, seed=1), "static", 0)[0][0])
    assert not np.array_equal(first, frames_of(CONFIG, "static", 1)[0][0])


def test_a_complete_split_is_left_alone(root):
    marker = root / "track" / "instances.json"
    before = marker.stat().st_mtime_ns
    ensure(replace(CONFIG, root=str(root)), ["track"], progress=False)
    assert marker.stat().st_mtime_ns == before
    assert [p.name for p in root.iterdir() if p.name.startswith(".")] == []


def test_another_configuration_in_the_folder_is_an_error(root):
    with pytest.raises(
        ValueError, match=r"holds a data set of another configuration: twins 0\.5 instead of 0\.25"
    ):
        ensure(replace(CONFIG, root=str(root), twins=0.25), ["stills"], progress=False)


def test_a_foreign_folder_is_an_error(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="train is not a synthetic data set"):
        ensure(replace(CONFIG, root=str(tmp_path)), ["train"], progress=False)


def test_an_interrupted_split_leaves_nothing(tmp_path, monkeypatch):
    def fail(*arguments):
        raise KeyboardInterrupt

    config = replace(CONFIG, root=str(tmp_path))
    with monkeypatch.context() as patch:
        patch.setattr(synthetic, "_annotate", fail)
        with pytest.raises(KeyboardInterrupt):
            ensure(config, ["swap"], progress=False)
    assert list(tmp_path.iterdir()) == []
    assert len(YTVIS.load(*find_split(ensure(config, ["swap"], progress=False), "swap")).videos) == 2


def test_the_faster_of_two_writers_wins(tmp_path, monkeypatch):
    config = replace(CONFIG, root=str(tmp_path), num_val=1)
    write = synthetic._write_videos

    def write_twice(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(synthetic, "_write_videos", write)
            ensure(config, ["swap"], progress=False)
        return write(*arguments)

    monkeypatch.setattr(synthetic, "_write_videos", write_twice)
    ensure(config, ["swap"], progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["swap"]


def test_the_folder_is_named_by_the_recipe():
    assert dataset_root(CONFIG).as_posix() == f"datasets/synthetic/{config_hash(CONFIG)}"
    assert dataset_root(replace(CONFIG, root="here")).as_posix() == "here"
    assert config_hash(replace(CONFIG, hflip=0.1, root="here", num_workers=0)) == config_hash(CONFIG)
    assert config_hash(replace(CONFIG, speed=1.0)) != config_hash(CONFIG)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": 7}, "frames is 7, expected at least 8"),
        ({"min_objects": 1}, "min_objects, max_objects are 1, 5, expected 2 <= min <= max <= 6"),
        ({"max_objects": 7}, "are 3, 7"),
        (
            {"max_size": 33},
            "min_size, max_size are 16, 33, expected 10 <= min <= max <= half of the shorter side 64",
        ),
        ({"num_val": -1}, "a number of videos is negative"),
    ],
)
def test_impossible_configurations_are_refused(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        ensure(replace(CONFIG, root=str(tmp_path), **change), ["train"])


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(ValueError, match="split 'val' is unknown, expected one of stills, train, static"):
        ensure(replace(CONFIG, root=str(tmp_path)), ["val"])


@pytest.mark.parametrize(("height", "width", "frames"), [(83, 70, 8), (40, 97, 23)])
def test_other_sizes(height, width, frames):
    config = replace(CONFIG, height=height, width=width, frames=frames, max_size=20, max_objects=6)
    for split in SPLITS:
        drawn, video, annotations = frames_of(config, split, 0)
        assert drawn[0].shape == (height, width, 3)
        assert len(drawn) == video["length"] == (1 if split == "stills" else frames)
        assert annotations


def test_feeds_training(root):
    dataset = ClipDataset(YTVIS.load(*find_split(root, "train")), replace(CONFIG, root=str(root)))
    images, targets = dataset.sample(0, 0, 3)
    assert images.shape == (3, 3, 64, 96)
    assert targets.masks.shape[1:] == (3, 64, 96)
    assert targets.labels.max() <= 3
