"""Training clips: what is a target, how batches are padded, and that samples depend on their number alone."""

import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.clips import ClipDataset, collate, make_loader
from vistk.data.config import DataConfig
from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import ClipBatch, ClipTargets

PLAIN = DataConfig(
    train_short_sides=[20], train_max_side=1000, frame_range=None, hflip=0.0, colour_jitter=0.0, crop=0.0
)


def box(x, y, w, h):
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


@pytest.fixture
def source(tmp_path):
    """Videos of 20x23 and 41x20 pixels; frame t of a video is filled with the grey value 10 * t."""
    sizes = {1: (20, 23), 2: (20, 23), 3: (41, 20), 4: (20, 23), 5: (20, 23)}
    lengths = {1: 5, 2: 1, 3: 3, 4: 2, 5: 0}
    videos = []
    for identity, (height, width) in sizes.items():
        names = [f"{identity}/{t}.png" for t in range(lengths[identity])]
        (tmp_path / str(identity)).mkdir()
        for t, name in enumerate(names):
            Image.new("RGB", (width, height), (10 * t,) * 3).save(tmp_path / name)
        videos.append({"id": identity, "file_names": names, "height": height, "width": width})
    annotations = [
        {
            "video_id": 1,
            "category_id": 9,
            "segmentations": [box(2, 3, 5, 4), None, None, None, box(9, 3, 5, 4)],
        },
        {"video_id": 1, "category_id": 5, "segmentations": [None, None, box(1, 1, 6, 2), None, None]},
        {"video_id": 1, "category_id": 5, "iscrowd": 1, "segmentations": [box(0, 10, 23, 10)] * 5},
        {"video_id": 2, "category_id": 5, "segmentations": [box(0, 0, 7, 7)]},
        {"video_id": 3, "category_id": 9, "segmentations": [box(0, 0, 7, 7), None, box(0, 0, 1, 1)]},
        {"video_id": 4, "category_id": 9, "iscrowd": 1, "segmentations": [box(0, 0, 7, 7), None]},
    ]
    content = {
        "categories": [{"id": 9, "name": "b"}, {"id": 5, "name": "a"}],
        "videos": videos,
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations)],
    }
    (tmp_path / "all.json").write_text(json.dumps(content))
    return YTVIS.load(tmp_path / "all.json", tmp_path)


def same(a, b):
    return all(
        torch.equal(x, y)
        for x, y in [(a.images, b.images), (a.valid_size, b.valid_size)]
        + [
            (getattr(s, f.name), getattr(t, f.name))
            for s, t in zip(a.targets, b.targets, strict=True)
            for f in dataclasses.fields(ClipTargets)
        ]
    )


def test_videos_without_a_target_are_left_out(source):
    assert [v.video_id for v in ClipDataset(source, PLAIN).videos] == [1, 2, 3]


def test_targets_are_those_of_the_sampled_frames(source):
    dataset = ClipDataset(source, PLAIN)
    dataset.videos = dataset.videos[:1]
    counts = set()
    for index in range(40):
        images, targets = dataset.sample(0, index, 2)
        assert images.dtype == torch.uint8
        frames = [int(image[0, 0, 0]) // 10 for image in images]
        assert len(set(frames)) == 2
        # label 1 is category 9, in frames 0 and 4; label 0 is category 5, in frame 2; the crowd is no target
        expected = [(1, [t in (0, 4) for t in frames]), (0, [t == 2 for t in frames])]
        expected = [(label, visible) for label, visible in expected if any(visible)]
        assert targets.labels.tolist() == [label for label, _ in expected]
        assert targets.visible.tolist() == [visible for _, visible in expected]
        assert targets.masks.shape == (len(expected), 2, 20, 23)
        for row, (label, _) in zip(targets.masks, expected, strict=True):
            for mask, t in zip(row, frames, strict=True):
                want = torch.zeros(20, 23, dtype=torch.bool)
                if label == 1 and t in (0, 4):
                    want[3:7, 2 if t == 0 else 9 :][:, :5] = True
                if label == 0 and t == 2:
                    want[1:3, 1:7] = True
                assert torch.equal(mask, want)
        counts.add(len(expected))
    assert counts == {0, 1, 2}  # frames 1 and 3 show nothing


def test_a_short_video_repeats_frames(source):
    dataset = ClipDataset(source, PLAIN)
    dataset.videos = dataset.videos[1:2]
    images, targets = dataset.sample(0, 0, 3)
    assert images.shape == (3, 3, 20, 23)
    assert targets.visible.tolist() == [[True, True, True]]


def test_a_mask_lost_in_resizing_is_no_target(source):
    dataset = ClipDataset(source, dataclasses.replace(PLAIN, train_short_sides=[7]))
    dataset.videos = dataset.videos[2:]
    lost = [dataset.sample(0, index, 1)[1] for index in range(20)]
    # frame 0 has 7x7 pixels of 41x20, frame 2 one pixel, in the corner, that no new pixel's centre meets
    assert {len(targets.labels) for targets in lost} == {0, 1}
    assert all(targets.visible.all() for targets in lost)


def test_samples_depend_on_seed_and_number_alone(source):
    config = DataConfig(
        train_short_sides=[20, 23, 31], crop_short_sides=[25], crop_range=[9, 20], frame_range=2
    )
    one, two = ClipDataset(source, config), ClipDataset(source, config)
    for index in (5, 0, 83):
        for other in (1, 2):
            two.sample(7, other, 2)
        torch.manual_seed(index)
        a, b = collate([one.sample(7, index, 2)]), collate([two.sample(7, index, 2)])
        assert same(a, b)
    many = [one.sample(seed, 0, 2)[0] for seed in range(8)]
    assert len({(tuple(m.shape), m.float().mean().item()) for m in many}) > 4


def test_padding_is_at_the_bottom_and_right():
    rng = torch.Generator().manual_seed(0)
    clips = []
    for n, (h, w) in zip((2, 0), ((7, 83), (23, 1)), strict=True):
        masks = torch.rand(n, 3, h, w, generator=rng) < 0.5
        clip = torch.randint(1, 256, (3, 3, h, w), generator=rng, dtype=torch.uint8)
        clips.append((clip, ClipTargets(torch.arange(n), masks.flatten(2).any(-1), masks)))
    batch = collate(clips)
    assert isinstance(batch, ClipBatch)
    assert batch.images.shape == (2, 3, 3, 32, 96)
    assert batch.valid_size.tolist() == [[7, 83], [23, 1]]
    for b, (clip, targets) in enumerate(clips):
        h, w = clip.shape[-2:]
        assert torch.equal(batch.images[b, ..., :h, :w], clip)
        assert torch.equal(batch.targets[b].masks[..., :h, :w], targets.masks)
        assert batch.images[b].sum() == clip.sum()
        assert batch.targets[b].masks.shape[-2:] == (32, 96)
        assert batch.targets[b].masks.sum() == targets.masks.sum()
    assert collate(clips, size_divisor=4).images.shape[-2:] == (24, 84)


def loader(source, **changes):
    config = DataConfig(train_short_sides=[20, 31], crop_short_sides=[25], crop_range=[9, 20])
    arguments = {"batch_size": 2, "num_frames": 2, "seed": 3, "total_steps": 6} | changes
    return make_loader(ClipDataset(source, config), **arguments)


def test_worker_count_changes_nothing(source):
    alone, helped = list(loader(source)), list(loader(source, num_workers=2))
    assert len(alone) == len(helped) == 6
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_any_step_can_be_the_first(source):
    assert all(
        same(a, b) for a, b in zip(list(loader(source))[4:], loader(source, start_step=4), strict=True)
    )


def test_two_ranks_share_the_global_batch(source):
    whole = list(loader(source, batch_size=4))
    halves = [list(loader(source, rank=rank, world=2)) for rank in range(2)]
    for step, batch in enumerate(whole):
        sizes = torch.cat([half[step].valid_size for half in halves])
        assert torch.equal(batch.valid_size, sizes)
        clips = [clip for half in halves for clip in half[step].images]
        for clip, want, (h, w) in zip(clips, batch.images, sizes.tolist(), strict=True):
            assert torch.equal(clip[..., :h, :w], want[..., :h, :w])


def test_the_global_generator_is_left_undisturbed(source):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for workers in (0, 1):
        next(iter(loader(source, num_workers=workers)))
        assert torch.equal(torch.get_rng_state(), before)


class ProcessOfSample(ClipDataset):
    """Says in a pixel's place which process made the sample."""

    def sample(self, seed, index, num_frames):
        images, targets = super().sample(seed, index, num_frames)
        digits = torch.tensor([os.getpid() >> shift & 255 for shift in (0, 8, 16)], dtype=torch.uint8)
        images[0, :, 0, 0] = digits
        return images, targets


def test_workers_outlive_an_interrupt(source):
    batches = iter(
        make_loader(
            ProcessOfSample(source, PLAIN), batch_size=1, num_frames=1, seed=0, total_steps=8, num_workers=1
        )
    )
    makers = []
    for batch in batches:
        low, middle, high = batch.images[0, 0, :, 0, 0].tolist()
        makers.append(low | middle << 8 | high << 16)
        assert makers[-1] != os.getpid()
        os.kill(makers[-1], signal.SIGINT)
    assert len(makers) == 8
    assert len(set(makers)) == 1


def test_frames_are_drawn_again_as_published(source, monkeypatch):
    read = []
    original = YTVIS.read_frame
    monkeypatch.setattr(YTVIS, "read_frame", lambda self, v, t: read.append(t) or original(self, v, t))
    dataset = ClipDataset(source, dataclasses.replace(PLAIN, frame_range=1, repeat_frames=True))
    dataset.videos = dataset.videos[:1]
    repeated = 0
    for index in range(30):
        read.clear()
        images, targets = dataset.sample(0, index, 4)
        frames = [int(image[0, 0, 0]) // 10 for image in images]
        assert frames == sorted(frames)
        assert frames[-1] - frames[0] <= 2
        assert read == sorted(set(frames))  # each is decoded once
        assert targets.visible.shape[1] == 4
        repeated += len(set(frames)) < 4
    assert repeated == 30  # three frames are all there are


def test_a_drifting_crop_moves_images_and_masks_alike(source):
    """Frames of one grey value with a box of another, in the same place in each of them."""
    config = dataclasses.replace(PLAIN, crop=1.0, crop_short_sides=[20], crop_range=[12, 16], crop_drift=True)
    dataset = ClipDataset(source, dataclasses.replace(config, train_short_sides=[], hflip=0.5))
    dataset.videos = dataset.videos[1:2]  # one frame, a box in its corner
    starts = set()
    for index in range(30):
        _, targets = dataset.sample(0, index, 3)
        sizes = targets.masks.sum((-1, -2)).tolist()
        starts.add(tuple(map(tuple, sizes)))
    assert len(starts) > 10
    assert any(len(set(frames)) == 3 for sizes in starts for frames in sizes)  # more or less of it is seen


def test_nothing_to_learn_from_is_an_error(source):
    empty = dataclasses.replace(source, videos=source.videos[3:])
    with pytest.raises(DataError, match="has no video with an annotated instance"):
        ClipDataset(empty, PLAIN)


def test_reads_only_the_frames_of_the_clip(source, monkeypatch):
    read = []
    original = YTVIS.read_frame
    monkeypatch.setattr(YTVIS, "read_frame", lambda self, v, t: read.append(t) or original(self, v, t))
    dataset = ClipDataset(source, PLAIN)
    dataset.videos = dataset.videos[:1]
    images, _ = dataset.sample(0, 3, 2)
    assert read == [int(image[0, 0, 0]) // 10 for image in images]
    assert np.unique(read).size == 2
