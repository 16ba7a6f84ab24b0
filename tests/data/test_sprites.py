"""Drawing: shapes by area, composition by hand, textures apart."""

import numpy as np
import pytest

from vistk.data.sampling import Stream
from vistk.data.sprites import (
    CLASSES,
    COLOURS,
    PIXEL,
    TURN,
    Sprite,
    Texture,
    compose,
    draw_background,
    draw_sprite,
    textures,
)

TEXTURE = Texture(0, 0, 1)


def test_held_out_textures_are_disjoint_and_every_colour_is_trained():
    training, validation = textures(False), textures(True)
    assert not {t.pair for t in training} & {t.pair for t in validation}
    assert len(training) + len(validation) == 5 * 10 * 9
    for group in (training, validation):
        assert {t.first for t in group} == {t.second for t in group} == set(range(len(COLOURS)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("disc", np.pi / 4),  # times the square of the size
        ("square", (2 * 0.44) ** 2),
        ("triangle", 3 * np.sqrt(3) * 0.33**2),
    ],
)
@pytest.mark.parametrize("angle", [0, 7, 23])
def test_areas_of_shapes(name, expected, angle):
    sprite = draw_sprite(CLASSES.index(name), 60, angle, TEXTURE)
    assert sprite.solid.sum() == pytest.approx(expected * 60**2, rel=0.02)


@pytest.mark.parametrize("shape", range(len(CLASSES)))
@pytest.mark.parametrize("size", [10, 16, 27])
def test_a_sprite_fits_its_array_at_any_angle(shape, size):
    for angle in range(TURN):
        solid = draw_sprite(shape, size, angle, TEXTURE).solid
        assert not np.concatenate([solid[0], solid[-1], solid[:, 0], solid[:, -1]]).any()
        assert 0.45 * size**2 < solid.sum() < size**2
        assert solid[solid.shape[0] // 2, solid.shape[1] // 2]


def test_a_star_has_five_points_and_dents():
    solid = draw_sprite(CLASSES.index("star"), 80, 0, TEXTURE).solid
    middle = solid.shape[0] // 2
    radii = []
    for k in range(10):  # points at multiples of 72 degrees, dents between
        direction = np.array([np.sin(2 * np.pi * k / 10), np.cos(2 * np.pi * k / 10)])
        inside = [r for r in range(middle) if solid[tuple(np.rint(middle + r * direction).astype(int))]]
        radii.append(max(inside))
    assert min(radii[0::2]) > 1.5 * max(radii[1::2])


def test_textures_are_seen_inside_and_rims_outside():
    for shape in range(len(CLASSES)):
        sprite = draw_sprite(shape, 27, 0, Texture(4, 2, 5))
        middle = sprite.solid.shape[0] // 2
        assert sprite.colour[middle, middle + 3].tolist() == COLOURS[5].tolist()
        assert sprite.colour[middle, middle - 3].tolist() == COLOURS[2].tolist()
    rims = [draw_sprite(s, 27, 0, TEXTURE).colour.reshape(-1, 3).tolist() for s in range(len(CLASSES))]
    assert [235, 30, 30] in rims[0]
    assert [235, 30, 30] not in rims[1]


def block(side, value):
    alpha = np.full((side, side, 1), PIXEL, np.int64)
    return Sprite(np.full((side, side, 3), value, np.int64), alpha, np.ones((side, side), bool))


def test_composition_by_hand():
    background = np.full((7, 11, 3), 9, np.int64)
    sprites = [block(3, 100), block(5, 200), block(3, 50)]
    # the second covers columns 2..6 of rows 1..5 and hides a part of the first; the third is absent
    centres = np.array([[2, 3], [4, 3], [9, 3]]) * PIXEL + PIXEL // 2
    frame, visible, whole = compose(background, sprites, centres, np.array([True, True, False]))
    assert frame.dtype == np.uint8
    assert frame[3, :, 0].tolist() == [9, 100, 200, 200, 200, 200, 200, 9, 9, 9, 9]
    assert visible.sum((1, 2)).tolist() == [3, 25, 0]
    assert whole.tolist() == [9, 25, 0]
    assert background.max() == 9


@pytest.mark.parametrize(
    ("centre", "pixels"), [((0, 0), 4), ((10, 6), 4), ((-1, 3), 3), ((-2, 3), 0), ((50, 50), 0), ((5, 7), 3)]
)
def test_objects_at_and_beyond_the_border(centre, pixels):
    background = np.zeros((7, 11, 3), np.int64)
    _, visible, whole = compose(background, [block(3, 80)], np.array([centre]) * PIXEL, np.array([True]))
    assert visible.sum() == whole[0] == pixels


def test_half_covered_pixels_are_mixed():
    half = Sprite(np.full((1, 1, 3), 50), np.full((1, 1, 1), PIXEL // 2), np.ones((1, 1), bool))
    frame, _, _ = compose(np.full((1, 1, 3), 100), [half], np.zeros((1, 2), np.int64), np.array([True]))
    assert frame[0, 0].tolist() == [100, 100, 100]  # half of 100 under 50, which is premultiplied


@pytest.mark.parametrize(("height", "width"), [(64, 96), (23, 83), (83, 23)])
def test_backgrounds_are_muted_and_varied(height, width):
    images = [draw_background(Stream("background", k), height, width) for k in range(8)]
    for image in images:
        assert image.shape == (height, width, 3)
        assert image.min() >= 0
        assert image.max() <= 255
        assert 2 < image.std((0, 1)).mean() < 30
    assert len({tuple(image.mean((0, 1)).astype(int)) for image in images}) == 8
