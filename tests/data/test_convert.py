"""Conversions: small inputs written by hand, read back with the reader, compared pixel by pixel."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.checking.check import check
from vistk.data.converting.coco_video import CocoVideo, convert_coco_video
from vistk.data.converting.masks import MaskFolders, convert_masks
from vistk.data.converting.mots import MotsFolders, convert_mots
from vistk.data.converting.write import Conversion, Destination
from vistk.data.ytvis import YTVIS, DataError
from vistk.ops.masks import encode

HEIGHT, WIDTH = 7, 23


def blank() -> np.ndarray:
    return np.zeros((HEIGHT, WIDTH), np.uint8)


def painted(*boxes: tuple[int, int, int, int, int]) -> np.ndarray:
    """A mask of boxes: value, top, bottom, left, right."""
    mask = blank()
    for value, top, bottom, left, right in boxes:
        mask[top:bottom, left:right] = value
    return mask


def write_frame(path: Path, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    shade = sum(map(ord, path.stem + path.parent.name)) % 256
    Image.new("RGB", size, (shade, 0, 255 - shade)).save(path)
    return path


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(mask)
    if mask.ndim == 2 and mask.dtype == np.uint8:
        image = image.convert("L")
        image.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, *[7] * 759])  # the values are indices
    image.save(path)


def load(conversion: Conversion) -> YTVIS:
    """Reads it back; the check must have nothing against it."""
    report = check(conversion.json_path, image_root=conversion.image_root)
    assert report.ok
    assert not [p for p in report.problems if p.level == "warning"], report.to_text()
    return YTVIS.load(conversion.json_path, conversion.image_root)


def tube(data: YTVIS, video: int, instance: int) -> np.ndarray:
    """``(T, H, W)`` masks of an instance."""
    record = data.videos[video]
    annotation = record.annotations[instance]
    return torch.stack([data.instance_mask(record, annotation, t) for t in range(len(record))]).numpy()


# --- folders of masks ---------------------------------------------------------------------------------

# Object 3 leaves and returns, object 7 is there in the last frame alone; ids are not contiguous.
CRAB = [
    painted((3, 1, 4, 2, 9), (255, 6, 7, 0, 23)),
    painted((255, 0, 1, 0, 4)),
    painted((3, 2, 5, 3, 10), (7, 0, 7, 22, 23)),
]


@pytest.fixture
def davis(tmp_path: Path) -> Path:
    """Three videos: one with objects, one of a single frame, one whose masks are empty."""
    source = tmp_path / "davis"
    for t, mask in enumerate(CRAB):
        write_frame(source / "JPEGImages" / "480p" / "crab" / f"{t:05d}.jpg")
        write_mask(source / "Annotations" / "480p" / "crab" / f"{t:05d}.png", mask)
    write_frame(source / "JPEGImages" / "480p" / "ant" / "00000.jpg")
    write_mask(source / "Annotations" / "480p" / "ant" / "00000.png", painted((1, 0, 7, 0, 23)))
    for t in range(2):
        write_frame(source / "JPEGImages" / "480p" / "sky" / f"{t:05d}.jpg")
        write_mask(source / "Annotations" / "480p" / "sky" / f"{t:05d}.png", blank())
    return source


def test_masks(davis: Path, tmp_path: Path) -> None:
    conversion = convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    data = load(conversion)
    assert data.categories == {1: "object"}
    assert [video.file_names[0] for video in data.videos] == [
        "ant/00000.jpg",
        "crab/00000.jpg",
        "sky/00000.jpg",
    ]
    assert [len(video.annotations) for video in data.videos] == [1, 2, 0]
    assert tube(data, 0, 0).all()
    for instance, value in enumerate((3, 7)):
        assert np.array_equal(tube(data, 1, instance), np.stack(CRAB) == value)
    present = [[m is not None for m in a.segmentations] for a in data.videos[1].annotations]
    assert present == [[True, False, True], [False, False, True]]
    content = json.loads(conversion.json_path.read_text())
    assert [a["source_id"] for a in content["annotations"]] == [1, 3, 7]
    assert content["annotations"][1]["areas"] == [21, None, 21]
    assert content["annotations"][1]["bboxes"] == [[2, 1, 7, 3], None, [3, 2, 7, 3]]
    assert dict(conversion.counts) == {"videos": 3, "frames": 6, "objects": 3, "masks": 4}
    assert "left out" not in conversion.to_text()


def test_images_are_links_or_copies(davis: Path, tmp_path: Path) -> None:
    linked = convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    copied = convert_masks(MaskFolders(davis), Destination(tmp_path / "out", "valid", copy=True))
    assert linked.image_root == tmp_path / "out" / "train" / "JPEGImages"
    original = davis / "JPEGImages" / "480p" / "crab" / "00001.jpg"
    for conversion, link in ((linked, True), (copied, False)):
        image = conversion.image_root / "crab" / "00001.jpg"
        assert image.is_symlink() is link
        assert image.read_bytes() == original.read_bytes()
    strip = [json.loads(c.json_path.read_text()) for c in (linked, copied)]
    assert strip[0] == strip[1]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "train",
        "train.json",
        "valid",
        "valid.json",
    ]


def test_links_hold_from_anywhere(davis: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conversion = convert_masks(MaskFolders(Path("davis")), Destination(Path("out")))
    monkeypatch.chdir(davis)
    assert (tmp_path / conversion.image_root / "ant" / "00000.jpg").read_bytes()


def test_frames_without_a_mask_file(davis: Path, tmp_path: Path) -> None:
    (davis / "Annotations" / "480p" / "crab" / "00001.png").unlink()
    data = load(convert_masks(MaskFolders(davis), Destination(tmp_path / "kept")))
    assert data.videos[1].file_names == ("crab/00000.jpg", "crab/00002.jpg")
    assert np.array_equal(tube(data, 1, 0), np.stack([CRAB[0], CRAB[2]]) == 3)
    data = load(convert_masks(MaskFolders(davis, all_frames=True), Destination(tmp_path / "all")))
    assert len(data.videos[1]) == 3
    assert [m is None for m in data.videos[1].annotations[0].segmentations] == [False, True, False]


def test_videos_without_masks_are_left_out(davis: Path, tmp_path: Path) -> None:
    write_frame(davis / "JPEGImages" / "480p" / "test" / "00000.jpg")
    write_frame(davis / "JPEGImages" / "480p" / "vast" / "00000.jpg")
    (davis / "Annotations" / "480p" / "vast").mkdir()
    conversion = convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    assert len(load(conversion).videos) == 3
    assert conversion.dropped == {"videos without a mask file": 1, "videos without an annotated frame": 1}
    assert "left out: 1 videos without a mask file" in conversion.to_text()


def test_one_resolution_is_chosen(davis: Path, tmp_path: Path) -> None:
    full = davis / "JPEGImages" / "Full-Resolution" / "crab" / "00000.jpg"
    write_frame(full, (2 * WIDTH, 2 * HEIGHT))
    with pytest.raises(DataError, match=r"several resolutions \(480p, Full-Resolution\)"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    data = load(convert_masks(MaskFolders(davis, resolution="480p"), Destination(tmp_path / "out")))
    assert len(data.videos) == 3
    with pytest.raises(FileNotFoundError, match=r"1080p does not exist; .* holds 480p, Full-Resolution"):
        convert_masks(MaskFolders(davis, resolution="1080p"), Destination(tmp_path / "other"))


def test_void(davis: Path, tmp_path: Path) -> None:
    data = load(convert_masks(MaskFolders(davis, void=None), Destination(tmp_path / "none")))
    assert np.array_equal(tube(data, 1, 2), np.stack(CRAB) == 255)
    data = load(convert_masks(MaskFolders(davis, void=7), Destination(tmp_path / "seven")))
    assert len(data.videos[1].annotations) == 2  # 3 and 255
    write_mask(davis / "Annotations" / "480p" / "ant" / "00000.png", painted((255, 0, 3, 0, 9)))
    with pytest.raises(DataError, match=r"ant.00000\.png: the only value beside 0 is 255.*--void none"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    assert not (tmp_path / "out" / "train.json").exists()


def test_youtube_vos(davis: Path, tmp_path: Path) -> None:
    meta = {
        "videos": {
            "crab": {
                "objects": {
                    "3": {"category": "snail", "frames": ["00000"]},
                    "7": {"category": "crab", "frames": []},
                    "9": {"category": "crab", "frames": []},
                }
            },
            "ant": {"objects": {"1": {"category": "ant", "frames": ["00000"]}}},
            "sky": {"objects": {}},
        }
    }
    (davis / "meta.json").write_text(json.dumps(meta))
    conversion = convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    data = load(conversion)
    assert data.categories == {1: "ant", 2: "crab", 3: "snail"}
    assert [a.category_id for a in data.videos[1].annotations] == [3, 2]
    assert conversion.dropped["objects with a class but no mask"] == 1
    names = ["crab", "snail", "bee", "ant"]
    data = YTVIS.load(
        *_paths(convert_masks(MaskFolders(davis, categories=names), Destination(tmp_path / "named")))
    )
    assert data.categories == {1: "crab", 2: "snail", 3: "bee", 4: "ant"}
    assert [a.category_id for a in data.videos[1].annotations] == [2, 1]
    with pytest.raises(DataError, match="video ant, object 1: class 'ant' is not a category"):
        convert_masks(MaskFolders(davis, categories="ytvis2019"), Destination(tmp_path / "t"))
    del meta["videos"]["crab"]["objects"]["7"]  # type: ignore[attr-defined]
    (davis / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(DataError, match=r"video crab, object 7 has no class \(named: 3, 9\)"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "t"))


def _paths(conversion: Conversion) -> tuple[Path, Path]:
    return conversion.json_path, conversion.image_root


def test_classes_of_a_file(davis: Path, tmp_path: Path) -> None:
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"crab": {"3": "b", "7": "a"}, "ant": {"1": "a"}}))
    data = load(convert_masks(MaskFolders(davis, classes=classes), Destination(tmp_path / "out")))
    assert data.categories == {1: "a", 2: "b"}
    assert [[a.category_id for a in v.annotations] for v in data.videos] == [[1], [2, 1], []]
    for wrong in ({"crab": ["b"]}, {"videos": {"crab": {"objects": 5}}}, {"videos": {"crab": ["b"]}}):
        classes.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=r"classes\.json: expected \{video"):
            convert_masks(MaskFolders(davis, classes=classes), Destination(tmp_path / "no"))


@pytest.mark.parametrize("categories", ["ytvis2019", ["crab", "ant"]])
def test_several_categories_need_to_know_the_objects(
    categories: str | list[str], davis: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="several categories, but no file says of which one an object is"):
        convert_masks(MaskFolders(davis, categories=categories), Destination(tmp_path / "out"))
    one = convert_masks(MaskFolders(davis, categories=["animal"]), Destination(tmp_path / "out"))
    assert load(one).categories == {1: "animal"}


def test_colours_are_objects(davis: Path, tmp_path: Path) -> None:
    red, white = (224, 0, 0), (255, 255, 255)
    for t, mask in enumerate(CRAB):
        coloured = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        coloured[mask == 3] = red
        coloured[mask == 7] = white
        write_mask(davis / "Annotations" / "480p" / "crab" / f"{t:05d}.png", coloured)
    conversion = convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    data = load(conversion)
    assert np.array_equal(tube(data, 1, 0), np.stack(CRAB) == 3)
    assert np.array_equal(tube(data, 1, 1), np.stack(CRAB) == 7)
    ids = [a["source_id"] for a in json.loads(conversion.json_path.read_text())["annotations"]]
    assert ids == [1, "#e00000", "#ffffff"]


def test_photos_are_no_masks(davis: Path, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8)
    video = davis / "JPEGImages" / "480p" / "noise"
    write_frame(video / "0.jpg", (20, 20))
    write_mask(davis / "Annotations" / "480p" / "noise" / "0.png", noise)
    with pytest.raises(DataError, match=r"noise.0\.png has \d+ colours"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))


def test_more_than_255_objects_in_16_bits(tmp_path: Path) -> None:
    mask = np.arange(HEIGHT * WIDTH, dtype=np.uint16).reshape(HEIGHT, WIDTH) * 4
    write_frame(tmp_path / "in" / "JPEGImages" / "v" / "0.jpg")
    write_mask(tmp_path / "in" / "Annotations" / "v" / "0.png", mask)
    data = load(convert_masks(MaskFolders(tmp_path / "in", void=None), Destination(tmp_path / "out")))
    assert len(data.videos[0].annotations) == HEIGHT * WIDTH - 1
    assert np.array_equal(tube(data, 0, 100)[0], mask == 404)


def test_a_mask_of_another_size(davis: Path, tmp_path: Path) -> None:
    write_mask(davis / "Annotations" / "480p" / "crab" / "00001.png", np.zeros((5, 9), np.uint8))
    with pytest.raises(DataError, match=r"00001\.png is 9x5 pixels, 00001\.jpg of video crab is 23x7"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))


def test_frames_of_two_sizes(davis: Path, tmp_path: Path) -> None:
    write_frame(davis / "JPEGImages" / "480p" / "crab" / "00002.jpg", (24, 7))
    with pytest.raises(DataError, match=r"video crab: 00000\.jpg is 23x7 pixels, 00002\.jpg is 24x7"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_masks_without_images(davis: Path, tmp_path: Path) -> None:
    image = davis / "JPEGImages" / "480p" / "crab" / "00002.jpg"
    image.unlink()
    with pytest.raises(FileNotFoundError, match=r"00002\.png has no image in .*crab"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))
    write_mask(davis / "Annotations" / "480p" / "ghost" / "0.png", blank())
    with pytest.raises(FileNotFoundError, match="ghost has no images"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out"))


def test_some_of_the_videos(davis: Path, tmp_path: Path) -> None:
    data = load(convert_masks(MaskFolders(davis, videos=["sky", "ant", "ant"]), Destination(tmp_path / "o")))
    assert [video.file_names[0] for video in data.videos] == ["ant/00000.jpg", "sky/00000.jpg"]
    with pytest.raises(DataError, match=r"1 of 2 videos asked for are not in .* the first is 'bee'"):
        convert_masks(MaskFolders(davis, videos=["ant", "bee"]), Destination(tmp_path / "p"))


# --- what is written ----------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_it_is_a_conversion(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = convert_masks(MaskFolders(davis), Destination(out)).json_path.read_text()
    with pytest.raises(DataError, match=r"train\.json exists; .*--overwrite"):
        convert_masks(MaskFolders(davis, videos=["ant"]), Destination(out))
    assert (out / "train.json").read_text() == first
    replaced = convert_masks(MaskFolders(davis, videos=["ant"]), Destination(out, overwrite=True))
    assert [video.file_names for video in load(replaced).videos] == [("ant/00000.jpg",)]
    assert sorted(os.listdir(out)) == ["train", "train.json"]
    assert os.listdir(out / "train" / "JPEGImages") == ["ant"]
    (out / "train.json").write_text(json.dumps({"info": {}, "videos": []}))
    with pytest.raises(DataError, match="was not written by 'vistk data convert'"):
        convert_masks(MaskFolders(davis), Destination(out, overwrite=True))
    (out / "valid").mkdir()
    with pytest.raises(DataError, match="was not written by"):
        convert_masks(MaskFolders(davis), Destination(out, "valid", overwrite=True))


def test_a_failure_leaves_the_old_conversion(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    old = convert_masks(MaskFolders(davis), Destination(out))
    text = old.json_path.read_text()
    (davis / "Annotations" / "480p" / "sky" / "00001.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"sky.00001\.png is not an image"):
        convert_masks(MaskFolders(davis), Destination(out, overwrite=True))
    assert old.json_path.read_text() == text
    assert len(load(old).videos) == 3
    assert sorted(os.listdir(out)) == ["train", "train.json"]


def test_the_source_is_not_overwritten(davis: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    convert_masks(MaskFolders(davis), Destination(out, copy=True))
    write_mask(out / "train" / "Annotations" / "ant" / "00000.png", painted((1, 0, 1, 0, 1)))
    with pytest.raises(DataError, match="lies in the folder that is to be overwritten"):
        convert_masks(MaskFolders(out / "train"), Destination(out, overwrite=True))
    assert (out / "train" / "JPEGImages" / "ant" / "00000.jpg").is_file()


@pytest.mark.parametrize("split", ["", "a/b", "..", ".hidden"])
def test_names_of_splits(split: str, davis: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not the name of a folder"):
        convert_masks(MaskFolders(davis), Destination(tmp_path / "out", split))


def test_there_must_be_a_video(tmp_path: Path) -> None:
    for name in ("JPEGImages", "Annotations"):
        (tmp_path / "in" / name).mkdir(parents=True)
    with pytest.raises(DataError, match="holds no video that can be converted"):
        convert_masks(MaskFolders(tmp_path / "in"), Destination(tmp_path / "out"))


# --- MOTS ---------------------------------------------------------------------------------------------

CAR, WALKER, REGION = (painted((1, 1, 4, left, left + 5)) > 0 for left in (2, 9, 17))


def line(frame: int, object_id: int, class_id: int, mask: np.ndarray) -> str:
    rle = encode(torch.from_numpy(mask)[None])[0]
    return f"{frame} {object_id} {class_id} {HEIGHT} {WIDTH} {rle['counts']}"


def write_mots(root: Path, lines: Sequence[str], first: int) -> Path:
    """Three images numbered from ``first`` on, in the folders of KITTI MOTS."""
    for t in range(3):
        write_frame(root / "training" / "image_02" / "0002" / f"{first + t:06d}.png")
    (root / "instances_txt").mkdir(exist_ok=True)
    (root / "instances_txt" / "0002.txt").write_text("\n".join(lines) + "\n")
    return root


def kitti(tmp_path: Path, first: int = 0) -> Path:
    lines = [
        line(first, 1005, 1, CAR),
        line(first, 10000, 10, REGION),
        line(first + 2, 2000, 2, WALKER),
        line(first + 2, 1005, 1, CAR),
        line(first + 2, 10000, 10, REGION),
        "",
    ]
    return write_mots(tmp_path / "mots", lines, first)


@pytest.mark.parametrize("first", [0, 1])
def test_mots(first: int, tmp_path: Path) -> None:
    root = kitti(tmp_path, first)
    write_frame(root / "training" / "image_02" / "0003" / "000000.png")
    (root / "instances_txt" / "0003.txt").write_text("")
    conversion = convert_mots(MotsFolders(root), Destination(tmp_path / "out"))
    data = load(conversion)
    assert data.categories == {1: "car", 2: "pedestrian"}
    assert [len(video) for video in data.videos] == [3, 1]
    assert [a.category_id for a in data.videos[0].annotations] == [1, 2]
    nothing = np.zeros_like(CAR)
    assert np.array_equal(tube(data, 0, 0), np.stack([CAR, nothing, CAR]))
    assert np.array_equal(tube(data, 0, 1), np.stack([nothing, nothing, WALKER]))
    assert data.videos[1].annotations == ()
    assert conversion.dropped == {"masks of regions to be ignored": 2}


def test_mots_regions_as_crowds(tmp_path: Path) -> None:
    root = kitti(tmp_path)
    other = painted((1, 5, 7, 0, 4)) > 0
    text = root / "instances_txt" / "0002.txt"
    text.write_text(text.read_text() + line(2, 10000, 10, other))
    conversion = convert_mots(MotsFolders(root, ignore="crowd"), Destination(tmp_path / "out"))
    data = load(conversion)
    crowds = [a for a in data.videos[0].annotations if a.iscrowd]
    assert [a.category_id for a in crowds] == [1, 2]
    for instance in (2, 3):
        expected = np.stack([REGION, np.zeros_like(CAR), REGION | other])
        assert np.array_equal(tube(data, 0, instance), expected)
    assert not any(conversion.dropped.values())


def test_mots_challenge_folders(tmp_path: Path) -> None:
    for t in (1, 2):
        write_frame(tmp_path / "train" / "MOTS20-02" / "img1" / f"{t:06d}.jpg")
    text = tmp_path / "train" / "MOTS20-02" / "gt" / "gt.txt"
    text.parent.mkdir()
    text.write_text(line(2, 2017, 2, WALKER))
    data = load(convert_mots(MotsFolders(tmp_path / "train"), Destination(tmp_path / "out")))
    assert data.categories == {2: "pedestrian"}
    assert data.videos[0].file_names == ("MOTS20-02/000001.jpg", "MOTS20-02/000002.jpg")
    assert np.array_equal(tube(data, 0, 0)[1], WALKER)


def test_mots_numbers_of_frames(tmp_path: Path) -> None:
    root = kitti(tmp_path, 0)
    text = root / "instances_txt" / "0002.txt"
    text.write_text(line(3, 1001, 1, CAR))
    with pytest.raises(DataError, match=r"0002\.txt, line 1: frame 3 has no image, .* 0 to 2; --first-frame"):
        convert_mots(MotsFolders(root), Destination(tmp_path / "out"))
    data = load(convert_mots(MotsFolders(root, first_frame=1), Destination(tmp_path / "out")))
    assert np.array_equal(tube(data, 0, 0)[2], CAR)
    image = root / "training" / "image_02" / "0002" / "000001.png"
    image.rename(image.with_name("one.png"))
    with pytest.raises(DataError, match=r"one\.png is not named by its number"):
        convert_mots(MotsFolders(root), Destination(tmp_path / "no"))


def test_mots_classes(tmp_path: Path) -> None:
    root = kitti(tmp_path)
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"1": "auto", "2": "walker", "3": "rider"}))
    data = YTVIS.load(
        *_paths(convert_mots(MotsFolders(root, classes=classes), Destination(tmp_path / "out")))
    )
    assert data.categories == {1: "auto", 2: "walker", 3: "rider"}
    classes.write_text(json.dumps({"1": "auto"}))
    with pytest.raises(DataError, match=r"line 3: class 2 has no name \(named: 1 auto\)"):
        convert_mots(MotsFolders(root, classes=classes), Destination(tmp_path / "no"))
    classes.write_text("[1]")
    with pytest.raises(DataError, match=r"classes\.json: expected json \{class id: name\}"):
        convert_mots(MotsFolders(root, classes=classes), Destination(tmp_path / "no"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("0 1001 1 7 23", "line 2: 5 fields, expected 6"),
        ("0 a 1 7 23 x", "line 2: '0 a 1 7 23', expected five integers"),
        ("0 2001 1 7 23 x", "line 2: object 2001 of class 1, expected an id of 1000 x class"),
        ("0 1001 1 7 23 04", "line 2: the counts cover 4 pixels, expected 161"),
        (line(1, 1005, 1, np.zeros((HEIGHT, WIDTH), bool)), None),
        (line(0, 1005, 1, CAR), "line 2: object 1005 has a second mask in frame 0"),
        ("0 1001 1 1 4 04", "line 2: the mask is 4x1 pixels, the images are 23x7"),
    ],
)
def test_mots_lines(wrong: str, message: str | None, tmp_path: Path) -> None:
    root = write_mots(tmp_path / "mots", [line(0, 1005, 1, CAR), wrong], 0)
    if message is None:  # a mask without a pixel is none
        data = load(convert_mots(MotsFolders(root), Destination(tmp_path / "out")))
        assert [m is None for m in data.videos[0].annotations[0].segmentations] == [False, True, True]
        return
    with pytest.raises(DataError, match=message) as raised:
        convert_mots(MotsFolders(root), Destination(tmp_path / "out"))
    assert "0002.txt" in str(raised.value)


def test_objects_without_a_pixel_are_left_out(tmp_path: Path) -> None:
    root = write_mots(tmp_path / "mots", [line(0, 1005, 1, CAR), line(0, 1006, 1, CAR & WALKER)], 0)
    conversion = convert_mots(MotsFolders(root), Destination(tmp_path / "out"))
    assert [len(video.annotations) for video in load(conversion).videos] == [1]
    assert conversion.dropped == {"objects without a pixel": 1}


def test_mots_without_text_or_images(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no MOTS text in"):
        convert_mots(MotsFolders(tmp_path / "empty"), Destination(tmp_path / "out"))
    root = kitti(tmp_path)
    (root / "training").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match=r"no images of video 0002: .*give --images"):
        convert_mots(MotsFolders(root), Destination(tmp_path / "out"))
    folders = MotsFolders(root, images=tmp_path / "elsewhere" / "image_02")
    assert len(load(convert_mots(folders, Destination(tmp_path / "out"))).videos) == 1


# --- COCO video ---------------------------------------------------------------------------------------

POLYGON = [[3, 2, 9, 2, 9, 5, 3, 5]]  # rows 2..4, columns 3..8


def coco_content(frame_key: str = "frame_id", track_key: str = "instance_id") -> dict[str, Any]:
    """Video 8 with frames out of order and a track that leaves and returns; video 3 without objects."""
    counts = encode(torch.from_numpy(WALKER)[None])[0]
    images = [
        {"id": 31, "video_id": 8, frame_key: 2, "file_name": "v8/c.jpg"},
        {"id": 30, "video_id": 8, frame_key: 0, "file_name": "v8/a.jpg", "height": 7, "width": 23},
        {"id": 32, "video_id": 8, frame_key: 1, "file_name": "v8/b.jpg", "height": 7, "width": 23},
        {"id": 5, "video_id": 3, frame_key: 10, "file_name": "v3/a.jpg"},
    ]
    annotations = [
        {"id": 1, "image_id": 31, "category_id": 4, track_key: 77, "segmentation": counts},
        {"id": 2, "image_id": 30, "category_id": 4, track_key: 77, "segmentation": POLYGON},
        {"id": 3, "image_id": 32, "category_id": 2, track_key: 6, "segmentation": POLYGON, "iscrowd": 1},
        {"id": 4, "image_id": 32, "category_id": 2, track_key: 9, "segmentation": [], "bbox": [0, 0, 2, 2]},
    ]
    return {
        "videos": [{"id": 8, "name": "city/v8"}, {"id": 3, "name": "v3"}],
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 4, "name": "bus"}, {"id": 2, "name": "van"}],
    }


def write_coco(tmp_path: Path, content: dict[str, Any]) -> CocoVideo:
    for name in ("v8/a.jpg", "v8/b.jpg", "v8/c.jpg", "v3/a.jpg"):
        write_frame(tmp_path / "data" / name)
    (tmp_path / "train.json").write_text(json.dumps(content))
    return CocoVideo(tmp_path / "train.json", tmp_path / "data")


@pytest.mark.parametrize("keys", [("frame_id", "instance_id"), ("frame_index", "track_id")])
def test_coco_video(keys: tuple[str, str], tmp_path: Path) -> None:
    coco = write_coco(tmp_path, coco_content(*keys))
    conversion = convert_coco_video(coco, Destination(tmp_path / "out"))
    data = load(conversion)
    assert data.categories == {2: "van", 4: "bus"}
    assert [video.video_id for video in data.videos] == [3, 8]
    assert data.videos[1].file_names == ("city/v8/a.jpg", "city/v8/b.jpg", "city/v8/c.jpg")
    assert data.videos[0].annotations == ()
    box = painted((1, 2, 5, 3, 9)) > 0
    nothing = np.zeros_like(box)
    assert [(a.category_id, a.iscrowd) for a in data.videos[1].annotations] == [(2, True), (4, False)]
    assert np.array_equal(tube(data, 1, 0), np.stack([nothing, box, nothing]))
    assert np.array_equal(tube(data, 1, 1), np.stack([box, nothing, WALKER]))
    assert conversion.dropped == {"annotations without a mask": 1}


def change(content: dict[str, Any], name: str, index: int, values: dict[str, Any]) -> dict[str, Any]:
    content[name][index] = {k: v for k, v in (content[name][index] | values).items() if v is not ...}
    return content


@pytest.mark.parametrize(
    ("name", "index", "values", "message"),
    [
        ("images", 0, {"video_id": 9}, r"images\[0\]: 'video_id' is 9"),
        ("images", 0, {"frame_id": 1}, r"images\[2\]: frame 1 of video 8 is given a second time"),
        ("images", 0, {"frame_id": ...}, r"images\[0\]: neither 'frame_id' nor 'frame_index', found"),
        ("images", 0, {"id": 30}, r"images\[1\]: 'id' is 30 a second time"),
        ("images", 0, {"height": 8}, r"images\[0\]: 23x8 pixels, the images of video city/v8 are 23x7"),
        ("images", 0, {"file_name": "/a.jpg"}, r"images\[0\]: 'file_name' is '/a.jpg'"),
        ("images", 0, {"file_name": "v8/a.jpg"}, r"two images would both be city/v8/a\.jpg"),
        ("annotations", 0, {"image_id": 99}, r"annotations\[0\]: 'image_id' is 99"),
        ("annotations", 0, {"category_id": 1}, r"annotations\[0\]: 'category_id' is 1"),
        ("annotations", 0, {"category_id": 2}, r"annotations\[1\]: track 77 is of category 4, before"),
        ("annotations", 0, {"image_id": 30}, r"annotations\[1\]: track 77 has a second mask in image 30"),
        ("annotations", 0, {"instance_id": ...}, r"annotations\[0\]: neither 'instance_id' nor 'track_id'"),
        ("annotations", 0, {"iscrowd": "0"}, r"annotations\[0\]: 'iscrowd' is '0', expected 0 or 1"),
        ("annotations", 0, {"segmentation": [[1, 2]]}, r"annotations\[0\]: a polygon needs at least three"),
        (
            "annotations",
            0,
            {"segmentation": {"size": [7, 23], "counts": "04"}},
            r"annotations\[0\]: the counts cover 4 pixels",
        ),
        ("videos", 0, {"name": "../v8"}, r"video name '\.\./v8' leads out"),
        ("categories", 0, {"id": 2}, r"categories\[1\]: 'id' is 2 a second time"),
        ("categories", 0, {"id": "4"}, r"categories\[0\]: 'id' is '4', expected an integer"),
    ],
)
def test_coco_video_faults(
    name: str, index: int, values: dict[str, Any], message: str, tmp_path: Path
) -> None:
    coco = write_coco(tmp_path, change(coco_content(), name, index, values))
    with pytest.raises(DataError, match=message):
        convert_coco_video(coco, Destination(tmp_path / "out"))
    assert not (tmp_path / "out" / "train.json").exists()


def test_coco_video_files(tmp_path: Path) -> None:
    content = coco_content()
    coco = write_coco(tmp_path, content)
    (tmp_path / "data" / "v8" / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"b\.jpg does not exist"):
        convert_coco_video(coco, Destination(tmp_path / "out"))
    only = CocoVideo(coco.source, coco.images, ["v3"])
    assert [v.video_id for v in load(convert_coco_video(only, Destination(tmp_path / "out"))).videos] == [3]
    for entry in content["annotations"]:
        entry["segmentation"] = None
    coco = write_coco(tmp_path, content)
    with pytest.raises(DataError, match="none of the 4 annotations has a 'segmentation', only boxes"):
        convert_coco_video(coco, Destination(tmp_path / "boxes"))
    coco.source.write_text("{")
    with pytest.raises(DataError, match="is not json"):
        convert_coco_video(coco, Destination(tmp_path / "boxes"))
    coco.source.write_text("{}")
    with pytest.raises(DataError, match="is no COCO video file"):
        convert_coco_video(coco, Destination(tmp_path / "boxes"))
