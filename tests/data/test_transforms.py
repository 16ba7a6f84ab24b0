"""Augmentation: all frames alike, masks with images, sizes by hand."""

import dataclasses

import numpy as np
import pytest
import torch

from vistk.data.config import DataConfig
from vistk.data.sampling import Stream
from vistk.data.transforms import (
    ClipTransform,
    resize_for_test,
    resize_images,
    resized_size,
    write_planes,
)
from vistk.ops.masks import encode
from vistk.ops.runs import MaskBox, run_ends, run_lengths

ALL_ON = DataConfig(
    train_short_sides=[23, 40, 83],
    train_max_side=97,
    crop=0.7,
    crop_short_sides=[50, 60],
    crop_range=[31, 49],
    colour_jitter=0.3,
)


@pytest.mark.parametrize(
    ("size", "short", "longest", "expected"),
    [
        ((720, 1280), 360, 768, (360, 640)),
        ((1280, 720), 360, 768, (640, 360)),
        ((720, 1280), 640, 768, (432, 768)),  # held back by the longer side
        ((64, 96), 64, 96, (64, 96)),
        ((1, 7), 3, 1000, (3, 21)),
        ((1, 83), 23, 10, (1, 10)),  # a side never vanishes
    ],
)
def test_resized_size(size, short, longest, expected):
    assert resized_size(*size, short, longest) == expected


def whole(height, width, size, flip=False):
    """A transform that only resizes and flips."""
    return ClipTransform((0, 0, height, width), size, flip)


def moved_images(transform, images):
    frames = [transform.frame(image, t, len(images)) for t, image in enumerate(images)]
    return transform.colours(torch.stack(frames))


def moved_masks(transform, masks):
    """``(T, H, W)`` bool masks of one instance, transformed."""
    out, visible = transform.masks([encode(masks)], len(masks))
    assert visible.tolist() == [out[0].any((1, 2)).tolist()]
    return torch.from_numpy(out[0])


def test_masks_take_the_nearest_pixel():
    row = torch.tensor([[[True, False, False, True, True]]])
    assert moved_masks(whole(1, 5, (1, 10)), row)[0, 0].tolist() == [True] * 2 + [False] * 4 + [True] * 4
    # centres of two new pixels lie at 1.25 and 3.75 of five old ones
    assert moved_masks(whole(1, 5, (1, 2)), row)[0, 0].tolist() == [False, True]
    none, visible = whole(5, 7, (7, 23)).masks([], 3)
    assert none.shape == (0, 3, 7, 23)
    assert visible.shape == (0, 3)


def test_absent_and_lost_masks_are_not_visible():
    dot = torch.zeros(1, 41, 20, dtype=torch.bool)
    dot[0, 0, 0] = True
    masks, visible = whole(41, 20, (7, 3)).masks([[None, *encode(dot)], [*encode(~dot), None]], 2)
    assert visible.tolist() == [[False, False], [True, False]]  # no new pixel's centre meets the corner
    assert masks.any((2, 3)).tolist() == visible.tolist()


@pytest.mark.parametrize("size", [(1, 1), (1, 83), (83, 1), (7, 23), (40, 31)])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_the_box_of_a_mask_holds_all_of_it(size, density):
    masks = torch.rand(4, *size, generator=torch.Generator().manual_seed(1)) < density
    masks[1, :, : size[1] // 2] = False
    masks[2, : size[0] // 2] = False
    for rle, mask in zip(encode(masks), masks.numpy(), strict=True):
        assert run_lengths(rle["counts"]).sum() == size[0] * size[1]
        box = MaskBox(rle)
        filled = np.zeros(size, dtype=bool)
        width, height = box.pixels.shape
        filled[box.top : box.top + height, box.left : box.left + width] = box.pixels.T
        assert np.array_equal(filled, mask)
        if mask.any():
            assert box.pixels.any(0)[[0, -1]].all()
            assert box.pixels.any(1)[[0, -1]].all()


def test_ends_of_runs_by_hand():
    """Masks of four pixels, columns first: 0110, 1000, 0000."""
    masks = torch.tensor([[[0, 1], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]], dtype=torch.bool)
    ends, bounds = run_ends([rle["counts"] for rle in encode(masks)])
    assert ends.tolist() == [1, 3, 4, 0, 1, 4, 4]
    assert bounds.tolist() == [0, 3, 6, 7]


@pytest.mark.parametrize("size", [(1, 1), (1, 83), (83, 1), (7, 5), (40, 31), (53, 90)])
@pytest.mark.parametrize("density", [0.02, 0.5, 0.98, 1.0])
@pytest.mark.parametrize("flip", [False, True])
def test_masks_of_a_moving_window_are_looked_up_pixel_by_pixel(size, density, flip):
    top, left, height, width = window = (3, 11, 23, 41)
    transform = ClipTransform(window, size, flip, drift=(7, -9))
    masks = torch.rand(4, 37, 61, generator=torch.Generator().manual_seed(0)) < density
    masks[1, :13] = False
    masks[2, :, 29:] = False
    rows = [(2 * i + 1) * height // (2 * size[0]) for i in range(size[0])]
    columns = [(2 * i + 1) * width // (2 * size[1]) for i in range(size[1])]
    found = moved_masks(transform, masks)
    for t, (down, right) in enumerate([(0, 0), (2, -3), (5, -6), (7, -9)]):
        expected = masks[t][top + down :, left + right :][rows][:, columns]
        assert torch.equal(found[t], expected.flip(-1) if flip else expected)


def test_a_long_run_through_several_columns_is_drawn_whole():
    mask = torch.zeros(1, 7, 5, dtype=torch.bool)
    mask[0, 3:, 1] = mask[0, :, 2] = mask[0, :2, 3] = True
    assert torch.equal(moved_masks(whole(7, 5, (7, 5)), mask), mask)
    assert torch.equal(
        moved_masks(whole(7, 5, (14, 15)), mask), mask.repeat_interleave(2, 1).repeat_interleave(3, 2)
    )


@pytest.mark.parametrize("size", [(1, 1), (7, 23), (23, 1)])
def test_planes_whatever_the_order_in_memory(size):
    words = torch.randint(0, 256, (2 * size[0], size[1], 4), dtype=torch.uint8).permute(2, 0, 1)
    for image in (words[:3, ::2], words[:3, : size[0]].flip(-1), words[1:, : size[0]].contiguous()):
        out = np.empty((3, *size), dtype=np.uint8)
        write_planes(out, image)
        assert np.array_equal(out, image.numpy())


@pytest.mark.parametrize("size", [(40, 31), (7, 90), (64, 83)])
def test_frames_are_the_same_whatever_the_order_in_memory(size):
    words = torch.randint(0, 256, (64, 83, 4), dtype=torch.uint8).permute(2, 0, 1)[:3]
    for window in ((0, 0, 64, 83), (5, 7, *size), (5, 7, 41, 60)):
        transform = ClipTransform(window, size, True)
        assert torch.equal(transform.frame(words, 0, 1), transform.frame(words.contiguous(), 0, 1))


def test_images_of_the_same_size_are_left_alone():
    images = torch.randint(0, 256, (2, 3, 7, 23), dtype=torch.uint8)
    assert resize_images(images, (7, 23)) is images


def test_resized_images_keep_constant_colours_and_dimensions():
    images = torch.full((2, 5, 3, 7, 23), 83, dtype=torch.uint8)
    assert torch.equal(resize_images(images, (3, 40)), torch.full((2, 5, 3, 3, 40), 83, dtype=torch.uint8))
    assert torch.equal(resize_images(images[0, 0], (1, 1)), torch.full((3, 1, 1), 83, dtype=torch.uint8))


@pytest.mark.parametrize("size", [(27, 1), (1, 27), (1, 1), (1, 2), (40, 31), (3, 7)])
def test_resized_images_have_the_weights_of_a_triangle(size):
    def weights(new, old):
        scale = old / new
        centres = (np.arange(new)[:, None] + 0.5) * scale
        found = np.maximum(0, 1 - np.abs(np.arange(old) + 0.5 - centres) / max(1, scale))
        return torch.from_numpy(found / found.sum(1, keepdims=True))

    rng = torch.Generator().manual_seed(0)
    for old in ((7, 2), (23, 41), (1, 83)):
        images = torch.randint(0, 256, (2, 3, *old), dtype=torch.uint8, generator=rng)
        exact = weights(size[0], old[0]) @ images.double() @ weights(size[1], old[1]).T
        for given in (images, images.contiguous(memory_format=torch.channels_last)):
            out = resize_images(given, size)
            assert out.dtype == torch.uint8
            assert (out.double() - exact).abs().max() < 1.6  # two roundings, one along each axis
        assert torch.equal(resize_images(images[1], size), out[1])


def test_resize_for_test():
    config = DataConfig(test_short_side=14, test_max_side=40)
    assert resize_for_test(torch.zeros(2, 3, 7, 23, dtype=torch.uint8), config).shape == (2, 3, 12, 40)


def test_every_frame_of_a_clip_is_changed_alike():
    frame = torch.randint(
        0, 256, (1, 3, 64, 83), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    clip = frame.expand(4, 3, 64, 83)
    sizes, flips = set(), set()
    for key in range(40):
        transform = ClipTransform.draw(Stream("test", key), ALL_ON, 64, 83)
        out = moved_images(transform, clip)
        assert out.dtype == torch.uint8
        assert out.shape[-2:] == transform.size
        assert torch.equal(out, out[:1].expand_as(out))
        sizes.add(transform.size)
        flips.add(transform.flip)
    assert len(sizes) > 5
    assert flips == {True, False}


def test_masks_follow_the_images_exactly():
    """Each marked pixel is a 3x3 block, so that enlarging by a whole factor repeats it without a blend."""
    config = DataConfig(train_short_sides=[126], train_max_side=10_000, colour_jitter=0.0, crop=0.0)
    generator = torch.Generator().manual_seed(0)
    for key in range(10):
        mask = torch.rand(3, 63, 69, generator=generator) < 0.3
        images = mask[:, None].to(torch.uint8).mul(255).repeat(1, 3, 1, 1)
        transform = ClipTransform.draw(Stream("align", key), config, 63, 69)
        assert transform.size == (126, 138)
        shown = moved_images(transform, images)[:, 0]
        moved = moved_masks(transform, mask)
        # bilinear weights at factor two are 3/4 and 1/4: the nearest pixel always has the majority...
        # ... along each axis (9/16 of the whole), so the image is above one half exactly on the mask
        assert torch.equal(shown > 127, moved)


def test_a_crop_keeps_masks_and_images_together():
    """Without interpolation: crops and flips move image values and mask pixels to the same places."""
    config = DataConfig(colour_jitter=0.0, crop=1.0, crop_short_sides=[23], crop_range=[7, 19])
    numbers = torch.arange(23 * 31).view(1, 23, 31)
    images = torch.stack([numbers % 256, numbers // 256, numbers * 0], 1).to(torch.uint8)
    windows = set()
    for key in range(20):
        drawn = ClipTransform.draw(Stream("crop", key), config, 23, 31)
        top, left, height, width = drawn.window
        assert 7 <= height <= 19
        assert 7 <= width <= 19
        assert 0 <= top <= 23 - height
        assert 0 <= left <= 31 - width
        windows.add(drawn.window)
        transform = ClipTransform(drawn.window, (height, width), drawn.flip)
        out = moved_images(transform, images).long()
        found = out[:, 0] + 256 * out[:, 1]
        for mark in (0, 7 * 31 + 11, 12 * 31 + 20):
            assert torch.equal(moved_masks(transform, numbers == mark), found == mark)
    assert len(windows) > 10


def test_a_drifting_window_moves_in_a_straight_line():
    config = dataclasses.replace(ALL_ON, crop=1.0, crop_drift=True)
    numbers = torch.arange(64 * 83).view(1, 64, 83).expand(4, 64, 83)
    images = torch.stack([numbers % 256, numbers // 256, numbers * 0], 1).to(torch.uint8)
    moves = set()
    for key in range(30):
        drawn = ClipTransform.draw(Stream("drift", key), config, 64, 83)
        still = ClipTransform.draw(
            Stream("drift", key), dataclasses.replace(config, crop_drift=False), 64, 83
        )
        assert still.window == drawn.window  # the first frame's
        assert still.drift == (0, 0)
        windows = [drawn.window_at(t, 4) for t in range(4)]
        for t, (top, left, height, width) in enumerate(windows):
            assert (height, width) == drawn.window[2:]
            assert 0 <= top <= 64 - height
            assert 0 <= left <= 83 - width
            assert abs(top - drawn.window[0] - drawn.drift[0] * t / 3) <= 0.5
            assert abs(left - drawn.window[1] - drawn.drift[1] * t / 3) <= 0.5
        assert windows[0] == drawn.window_at(0, 1) == drawn.window
        moves.add(drawn.drift)
        transform = dataclasses.replace(drawn, size=drawn.window[2:], brightness=1, contrast=1, saturation=1)
        out = moved_images(transform, images).long()
        found = out[:, 0] + 256 * out[:, 1]
        assert found.min(-1).values.min(-1).values.tolist() == [top * 83 + left for top, left, *_ in windows]
        mark = 31 * 83 + 40
        assert torch.equal(moved_masks(transform, numbers == mark), found == mark)
    assert len(moves) > 20


def test_a_flip_is_exact():
    transform = ClipTransform((0, 0, 7, 23), (7, 23), True)
    images = torch.randint(0, 256, (2, 3, 7, 23), dtype=torch.uint8)
    mask = images[:, 0] > 99
    assert torch.equal(moved_images(transform, images), images.flip(-1))
    assert torch.equal(moved_masks(transform, mask), mask.flip(-1))


def test_colour_by_hand():
    images = torch.tensor([[100, 50, 0], [200, 100, 250]], dtype=torch.uint8).view(2, 3, 1, 1)
    keep = ((0, 0, 1, 1), (1, 1), False)
    assert ClipTransform(*keep, brightness=1.2).colours(images).flatten().tolist() == [
        120,
        60,
        0,
        240,
        120,
        255,
    ]
    # luma: .299*100 + .587*50 = 59.25; .299*200 + .587*100 + .114*250 = 147; mean of the clip 103.125
    by_contrast = ClipTransform(*keep, contrast=0.5).colours(images).flatten().tolist()
    assert by_contrast == [102, 77, 52, 152, 102, 177]
    by_saturation = ClipTransform(*keep, saturation=0.0).colours(images).flatten().tolist()
    assert by_saturation == [59, 59, 59, 147, 147, 147]


def test_jitter_stays_within_its_strength():
    for key in range(20):
        transform = ClipTransform.draw(Stream(key), DataConfig(colour_jitter=0.1), 64, 96)
        assert all(0.9 <= f <= 1.1 for f in (transform.brightness, transform.contrast, transform.saturation))
        plain = ClipTransform.draw(Stream(key), DataConfig(colour_jitter=0.0), 64, 96)
        assert (plain.brightness, plain.contrast, plain.saturation) == (1, 1, 1)
