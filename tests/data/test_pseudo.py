"""Pseudo clips: images and masks turn together, one way; what is pasted stays what it is."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.coco import load_coco
from vistk.data.config import DataConfig, StillsConfig
from vistk.data.pseudo import PseudoClips, StillTransform, paste
from vistk.data.sampling import Stream
from vistk.data.transforms import ClipTransform
from vistk.data.ytvis import DataError
from vistk.ops.masks import encode
from vistk.structures import ClipTargets

HEIGHT, WIDTH = 63, 84
MOVING = DataConfig(
    train_short_sides=[50, 70, 126],
    crop=0.5,
    crop_short_sides=[60, 70],
    crop_range=[40, 60],
    crop_drift=True,
    colour_jitter=0.0,
)


def blocks(size):
    """A random pattern of square blocks, ``(63, 84)`` bool."""
    cells = torch.rand(HEIGHT // size, WIDTH // size, generator=torch.Generator().manual_seed(0)) < 0.5
    return cells.repeat_interleave(size, 0).repeat_interleave(size, 1)


def as_image(mask):
    return mask.to(torch.uint8).mul(255).expand(3, *mask.shape)


def draw(key, config=MOVING, num_frames=4):
    return StillTransform.draw(Stream("pseudo", key), config, HEIGHT, WIDTH, num_frames)


@pytest.mark.parametrize("size", [7, 21])
def test_masks_follow_the_images(size):
    """Where the interpolated pattern is clear, the mask says the same; on edges they differ by a blend."""
    pattern = blocks(size)
    flips, undecided = set(), []
    for key in range(30):
        transform = draw(key)
        shown = transform.images(as_image(pattern))
        (mask,), visible = transform.masks(encode(pattern[None]))
        assert shown.shape == (4, 3, *transform.clip.size)
        assert shown.dtype == torch.uint8
        assert visible.tolist() == [[True] * 4]
        shown, mask = shown[:, 0].numpy(), torch.from_numpy(mask).numpy()
        enlarged = transform.clip.size[0] >= transform.clip.window[2]
        high = 192 if enlarged else 224  # bilinear weights of three quarters; antialiased ones are broader
        assert mask[shown > high].all()
        assert not mask[shown < 255 - high].any()
        undecided.append(((shown <= high) & (shown >= 255 - high)).mean())
        flips.add(transform.clip.flip)
    assert np.mean(undecided) < 2.5 / size
    assert flips == {True, False}


def test_a_clip_turns_one_way_within_its_limit():
    for key in range(40):
        angles = draw(key, dataclasses.replace(MOVING, stills=StillsConfig(rotation=7.0)), 5).angles
        assert list(angles) == sorted(angles)
        assert len(set(angles)) == 5
        assert angles[0] >= -7
        assert angles[-1] <= 7


def test_without_turning_it_is_the_transform_of_videos():
    image = torch.randint(0, 256, (3, HEIGHT, WIDTH), dtype=torch.uint8)
    mask = blocks(3)
    for flip in (False, True):
        for size in ((126, 168), (63, 84), (30, 40)):
            clip = ClipTransform((0, 0, HEIGHT, WIDTH), size, flip)
            transform = StillTransform(clip, (0.0, 0.0), HEIGHT, WIDTH)
            shown = transform.images(image)
            assert torch.equal(shown[0], shown[1])
            assert (shown[0].int() - clip.frame(image, 0, 2).int()).abs().max() <= 1
            rles = encode(mask[None])
            expected, _ = clip.masks([[rles[0], rles[0]]], 2)
            assert np.array_equal(transform.masks(rles)[0], expected)


def test_a_quarter_turn_by_hand():
    """A square still turned by 90 degrees: rows become columns, exactly."""
    image = torch.randint(0, 256, (3, 23, 23), dtype=torch.uint8)
    mask = torch.rand(23, 23, generator=torch.Generator().manual_seed(0)) < 0.3
    transform = StillTransform(ClipTransform((0, 0, 23, 23), (23, 23), False), (90.0, -90.0), 23, 23)
    shown, (masks, visible) = transform.images(image), transform.masks(encode(mask[None]))
    for t, k in enumerate((-1, 1)):
        # the frame shows what lies 90 degrees clockwise of it, so the content turns the other way
        turned = [torch.rot90(x, -k, (-2, -1)) for x in (image, mask)]
        assert (shown[t].int() - turned[0].int()).abs().max() <= 1
        assert np.array_equal(masks[0, t], turned[1].numpy())
    assert visible.all()


def test_corners_are_black_and_masks_are_cut_there():
    whole = torch.ones(1, HEIGHT, WIDTH, dtype=torch.bool)
    transform = StillTransform(
        ClipTransform((0, 0, HEIGHT, WIDTH), (HEIGHT, WIDTH), False), (-15.0, 0.0, 15.0), HEIGHT, WIDTH
    )
    shown = transform.images(as_image(whole[0]))[:, 0].numpy()
    masks, _ = transform.masks(encode(whole))
    assert np.array_equal(shown == 255, masks[0])
    assert np.array_equal(shown == 0, ~masks[0])
    assert masks[0, 1].all()
    for frame in masks[0, ::2]:
        assert not frame[[0, 0, -1, -1], [0, -1, 0, -1]].any()
        assert 1 - frame.mean() == pytest.approx(cut_share(WIDTH / 2, HEIGHT / 2, 15), abs=0.003)
    assert np.array_equal(masks[0, 0], masks[0, 2][:, ::-1])  # mirror images


def cut_share(a, b, degrees):
    """Share of a rectangle, half sides ``a`` and ``b``, that it does not cover when turned a little."""
    sin, cos = np.sin(np.radians(degrees)), np.cos(np.radians(degrees))
    # The turned edge y cos - x sin = b meets the edge y = b at x = b (cos - 1) / sin and the edge x = -a at
    # y = (b - a sin) / cos: a right triangle is cut off; so for the other pair of edges.
    upper = (a + b * (cos - 1) / sin) * (b - (b - a * sin) / cos) / 2
    side = (b + a * (cos - 1) / sin) * (a - (a - b * sin) / cos) / 2
    return 2 * (upper + side) / (4 * a * b)


def test_what_leaves_the_window_is_not_visible():
    corner = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
    corner[0, :3, :3] = True
    still = ClipTransform((0, 0, HEIGHT, WIDTH), (HEIGHT, WIDTH), False)
    masks, visible = StillTransform(still, (-15.0, 0.0, 15.0), HEIGHT, WIDTH).masks(encode(corner))
    assert visible[0, 1]
    assert not visible[0].all()
    assert masks.any((2, 3)).tolist() == visible.tolist()


@pytest.fixture
def source(tmp_path):
    """Stills of one colour with boxes of another; the third has no target."""
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2017").mkdir()
    images, annotations = [], []
    boxes = {1: [(10, 10, 20, 30), (40, 20, 30, 25)], 2: [(5, 5, 60, 50)], 3: []}
    for identity, found in boxes.items():
        pixels = np.full((HEIGHT, WIDTH, 3), 20 * identity, dtype=np.uint8)
        for x, y, w, h in found:
            pixels[y : y + h, x : x + w] = 200 + 20 * identity
            polygon = [x, y, x + w, y, x + w, y + h, x, y + h]
            entry = {
                "id": len(annotations),
                "image_id": identity,
                "category_id": (44, 1)[len(annotations) % 2],
            }
            annotations.append(entry | {"segmentation": [polygon]})
        everything = {"size": [HEIGHT, WIDTH], "counts": [0, HEIGHT * WIDTH]}
        crowd = {"id": 50 + identity, "image_id": identity, "category_id": 1, "iscrowd": 1}
        annotations.append(crowd | {"segmentation": everything})
        Image.fromarray(pixels).save(tmp_path / "train2017" / f"{identity}.png")
        images.append({"id": identity, "file_name": f"{identity}.png", "height": HEIGHT, "width": WIDTH})
    content = {"images": images, "annotations": annotations}
    content["categories"] = [{"id": 1, "name": "person"}, {"id": 44, "name": "bottle"}]
    (tmp_path / "annotations" / "instances_train2017.json").write_text(json.dumps(content))
    return load_coco(tmp_path, "train2017")


def with_paste(probability):
    return dataclasses.replace(MOVING, stills=StillsConfig(copy_paste=probability))


def test_clips_of_stills(source):
    clips = PseudoClips(source, MOVING)
    assert len(clips) == 2
    for index in range(20):
        images, targets = clips.sample(3, index, 3)
        assert images.shape == (3, 3, *targets.masks.shape[-2:])
        assert set(targets.labels.tolist()) <= {0, 39}  # person and bottle of COCO's 80
        assert torch.equal(targets.visible, targets.masks.flatten(2).any(-1))
        assert targets.visible.any(1).all()
        # boxes are brighter than 200, all else is darker than 61
        inside = targets.masks.any(0)
        dark = (images[:, 0] < 61) & inside
        assert dark.float().mean() < 0.02  # edges only
        again = PseudoClips(source, MOVING).sample(3, index, 3)
        assert torch.equal(again[0], images)
        assert torch.equal(again[1].masks, targets.masks)
    assert not torch.equal(clips.sample(4, 0, 3)[0].sum(), clips.sample(3, 0, 3)[0].sum())


def test_pasted_instances_come_from_another_still(source):
    plain, pasted = PseudoClips(source, with_paste(0.0)), PseudoClips(source, with_paste(1.0))
    more = 0
    for index in range(30):
        (images, before), (mixed, after) = (x.sample(0, index, 3) for x in (plain, pasted))
        n = len(before.labels)
        more += len(after.labels) > n
        # outside of what was pasted nothing has changed
        front = after.masks[n:].any(0) if len(after.labels) > n else torch.zeros_like(mixed[:, 0]).bool()
        assert torch.equal(mixed.where(~front[:, None], 0), images.where(~front[:, None], 0))
        if len(after.labels) >= n:
            assert torch.equal(after.masks[:n], before.masks & ~front)
    assert more > 10
    half = PseudoClips(source, with_paste(0.5))
    changed = sum(
        len(half.sample(0, i, 1)[1].labels) > len(plain.sample(0, i, 1)[1].labels) for i in range(60)
    )
    assert 5 < changed < 40


def clip_of(masks, value, labels=None):
    """``(N, T, h, w)`` masks as a clip of one grey value."""
    masks = torch.as_tensor(masks, dtype=torch.bool)
    images = torch.full((masks.shape[1], 3, *masks.shape[-2:]), value, dtype=torch.uint8)
    labels = torch.arange(len(masks)) if labels is None else torch.tensor(labels, dtype=torch.int64)
    return images, ClipTargets(labels, masks.flatten(2).any(-1), masks)


def test_pasting_by_hand():
    """One original of 4x4 pixels, two frames; the pasted clip has its size, so the place is fixed."""
    ours = np.zeros((1, 2, 8, 8), dtype=bool)
    ours[0, :, 2:6, 2:6] = True
    theirs = np.zeros((3, 2, 8, 8), dtype=bool)
    theirs[0, 0, 2:4, 2:5] = True  # covers 6 of 32 pixels
    theirs[1, :, 2:4, 2:6] = True  # covers 16 of 32: too many
    theirs[2, 1, 7, 7] = True  # covers nothing
    images, targets = paste(clip_of(ours, 10), clip_of(theirs, 99, [7, 8, 9]), Stream(0))
    assert targets.labels.tolist() == [0, 7, 9]
    assert targets.visible.tolist() == [[True, True], [True, False], [False, True]]
    assert torch.equal(targets.masks[1:], torch.from_numpy(theirs[[0, 2]]))
    assert torch.equal(targets.masks[0], torch.from_numpy(ours[0] & ~theirs[0]))
    front = torch.from_numpy(theirs[0] | theirs[2])
    assert torch.equal(images, torch.where(front[:, None], 99, 10).expand(2, 3, 8, 8).to(torch.uint8))


def test_an_instance_covered_by_several_is_gone():
    ours = np.ones((1, 1, 1, 9), dtype=bool)
    theirs = np.zeros((3, 1, 1, 9), dtype=bool)
    for i in range(3):
        theirs[i, ..., 3 * i : 3 * i + 3] = True
    _, targets = paste(clip_of(ours, 0), clip_of(theirs, 1, [4, 5, 6]), Stream(0))
    assert targets.labels.tolist() == [4, 5, 6]


def test_the_place_of_what_is_pasted_is_one_for_the_clip():
    empty = np.zeros((0, 3, 23, 31), dtype=bool)
    small, large = np.ones((1, 3, 7, 5), dtype=bool), np.ones((1, 3, 40, 83), dtype=bool)
    places = set()
    for key in range(200):
        _, targets = paste(clip_of(empty, 0), clip_of(small, 1), Stream("place", key))
        y, x = targets.masks[0, 0].nonzero()[0].tolist()
        assert torch.equal(targets.masks[0].nonzero()[:, 1:].unique(dim=0).amin(0), torch.tensor([y, x]))
        assert targets.masks[0].sum((1, 2)).tolist() == [35] * 3
        places.add((y, x))
    assert {y for y, _ in places} == set(range(17))
    assert {x for _, x in places} == set(range(27))
    images, targets = paste(clip_of(empty, 0), clip_of(large, 1), Stream(0))
    assert targets.masks.all()  # what reaches out is cut
    assert (images == 1).all()


def test_pasting_nothing_changes_nothing():
    ours = clip_of(np.ones((1, 2, 7, 7), dtype=bool), 3)
    nothing = clip_of(np.zeros((0, 2, 9, 9), dtype=bool), 5)
    assert paste(ours, nothing, Stream(0)) is ours


def test_stills_without_targets_are_refused(source):
    with pytest.raises(DataError, match="has no video with an annotated instance"):
        PseudoClips(dataclasses.replace(source, videos=source.videos[2:]), MOVING)
