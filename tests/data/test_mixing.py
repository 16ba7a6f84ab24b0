"""Stills beside videos: whole batches of each, epochs without loss, the same from any step on."""

import dataclasses
import json
from fractions import Fraction

import pytest
import torch
from PIL import Image

from vistk.data.clips import ClipDataset, make_loader, training_clips
from vistk.data.coco import load_coco
from vistk.data.config import CocoConfig, StillsConfig, YTVIS2019Config
from vistk.data.mixing import JointClips, visible_targets
from vistk.data.pseudo import PseudoClips
from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import ClipTargets

BOX = [[2, 2, 12, 2, 12, 12, 2, 12]]
SMALL = {"train_short_sides": [24, 32], "train_max_side": 48, "crop": 0.0}


class Numbered:
    """Clips of one pixel that hold their own number and stream."""

    def __init__(self, stream, length):
        self.stream, self.length = stream, length

    def __len__(self):
        return self.length

    def sample(self, seed, index, num_frames):
        number = index % self.length
        images = torch.tensor([self.stream, number // 256, number % 256], dtype=torch.uint8)
        nothing = ClipTargets(
            torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1).bool(), torch.zeros(0, 1, 1, 1).bool()
        )
        return images.view(1, 3, 1, 1), nothing


def batches(**changes):
    """Stream and number of each clip, by batch."""
    arguments = {"batch_size": 2, "num_frames": 1, "seed": 0, "total_steps": 35} | changes
    joint = JointClips(Numbered(0, 10), Numbered(1, 6), (1.0, 0.75))
    return [
        [(int(s), 256 * int(high) + int(low)) for s, high, low in batch.images[:, 0, :, 0, 0]]
        for batch in make_loader(joint, **arguments)
    ]


def test_each_batch_is_of_one_stream_and_none_loses_a_clip():
    found = batches()
    assert all(len({stream for stream, _ in batch}) == 1 for batch in found)
    assert [sum(batch[0][0] == stream for batch in found) for stream in (0, 1)] == [20, 15]
    for stream, length, epochs in ((0, 10, 4), (1, 6, 5)):
        numbers = [number for batch in found for s, number in batch if s == stream]
        assert numbers == list(range(length)) * epochs


def test_any_step_can_be_the_first():
    whole = batches()
    for start in (1, 2, 13, 34):
        assert batches(start_step=start) == whole[start:]
    assert batches(num_workers=2) == whole


def test_two_ranks_share_the_global_batch():
    ranks = [batches(rank=rank, world=2) for rank in range(2)]
    assert [a + b for a, b in zip(*ranks, strict=True)] == batches(batch_size=4)


def test_uneven_ratios_are_kept_exactly():
    joint = JointClips(Numbered(0, 3), Numbered(1, 3), (0.1, 2.9))
    assert float(joint.share) == pytest.approx(1 / 30)
    assert len(joint) == 6


@pytest.fixture
def sources(tmp_path):
    """A video of 12 frames and two stills, all with a person."""
    for folder in ("annotations", "train2017", "video"):
        (tmp_path / folder).mkdir()
    for i in range(2):
        Image.new("RGB", (40, 24), (50 * i, 100, 0)).save(tmp_path / "train2017" / f"{i}.jpg")
    names = [f"video/{t}.jpg" for t in range(12)]
    for t, name in enumerate(names):
        Image.new("RGB", (40, 24), (20 * t, 0, 200)).save(tmp_path / name)
    stills = {
        "images": [{"id": i, "file_name": f"{i}.jpg", "height": 24, "width": 40} for i in range(2)],
        "annotations": [{"id": i, "image_id": i, "category_id": 1, "segmentation": BOX} for i in range(2)],
        "categories": [{"id": 1, "name": "person"}],
    }
    videos = {
        "videos": [{"id": 1, "file_names": names, "height": 24, "width": 40}],
        "annotations": [{"id": 1, "video_id": 1, "category_id": 1, "segmentations": [BOX] * 12}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "giant_panda"}],
    }
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(stills))
    (tmp_path / "train.json").write_text(json.dumps(videos))
    source = load_coco(tmp_path, "train2017", "ytvis2019")
    video = YTVIS.load(tmp_path / "train.json", tmp_path)
    return dataclasses.replace(video, categories=source.categories), source


def test_what_a_run_is_trained_on(sources):
    videos, stills = sources
    config = YTVIS2019Config(**SMALL)
    assert isinstance(training_clips(videos, config), ClipDataset)
    assert isinstance(training_clips(stills, CocoConfig(**SMALL)), PseudoClips)
    joint = training_clips(videos, config, stills)
    assert isinstance(joint, JointClips)
    assert float(joint.share) == pytest.approx(4 / 7)
    assert len(joint) == 3
    for ratio, share in (
        ([1.0, 1.0], Fraction(1, 2)),
        ([0.1, 0.3], Fraction(1, 4)),
        ([3, 1e-3], Fraction(3000, 3001)),
    ):
        other = dataclasses.replace(config, stills=StillsConfig(ratio=ratio))
        assert training_clips(videos, other, stills).share == share


def test_joint_batches_hold_both_kinds(sources):
    videos, stills = sources
    joint = training_clips(videos, YTVIS2019Config(**SMALL), stills)
    arguments = {"batch_size": 2, "num_frames": 3, "seed": 0}
    found = list(make_loader(joint, **arguments, total_steps=7))
    from_video = [bool(batch.images[:, 0, 2].max() > 150) for batch in found]  # only videos are blue
    assert from_video == [True, False, True, False, True, False, False]
    assert all((target.labels == 0).all() for batch in found for target in batch.targets)
    later = list(make_loader(joint, **arguments, total_steps=7, start_step=4))
    for a, b in zip(found[4:], later, strict=True):
        assert torch.equal(a.images, b.images)
        assert all(torch.equal(s.masks, t.masks) for s, t in zip(a.targets, b.targets, strict=True))


def test_stills_of_other_classes_are_refused(sources):
    videos, stills = sources
    other = dataclasses.replace(videos, categories={1: "person", 7: "cat"})
    with pytest.raises(
        DataError, match=r"instances_train2017\.json has the category ids \[1, 2, .*, \[1, 7\]$"
    ):
        training_clips(other, YTVIS2019Config(**SMALL), stills)


def test_targets_that_no_frame_shows_are_left_out():
    masks = torch.zeros(3, 2, 4, 5, dtype=torch.bool).numpy()
    masks[0, 1, 0, 0] = masks[2, :, 3, 4] = True
    targets = visible_targets([5, 6, 7], masks, masks.any((2, 3)))
    assert targets.labels.tolist() == [5, 7]
    assert targets.visible.tolist() == [[False, True], [True, True]]
    assert torch.equal(targets.masks, torch.from_numpy(masks[[0, 2]]))
    none = visible_targets([6], masks[1:2], masks[1:2].any((2, 3)))
    assert none.labels.dtype == torch.int64
    assert none.masks.shape == (0, 2, 4, 5)
