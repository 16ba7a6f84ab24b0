"""The check: one broken thing at a time is found, named and counted; what the reader refuses is an error."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.categories import COCO, OVIS, TABLES, YTVIS2019
from vistk.data.checking.check import check
from vistk.data.checking.report import KINDS, CheckReport, Findings
from vistk.data.coco import load_coco
from vistk.data.ytvis import YTVIS, DataError
from vistk.ops.masks import encode

HEIGHT, WIDTH = 7, 23
BOX = torch.zeros(1, HEIGHT, WIDTH, dtype=torch.bool)
BOX[0, 2:5, 3:9] = True  # 18 pixels
RLE = encode(BOX)[0]
EMPTY = encode(torch.zeros_like(BOX))[0]
POLYGON = [[3, 2, 9, 2, 9, 5, 3, 5]]

Change = Callable[[dict[str, Any]], Any]


def sound() -> dict[str, Any]:
    """Two videos, two categories, two objects; nothing to report but what is natural."""
    return {
        "categories": [{"id": 1, "name": "spoon"}, {"id": 2, "name": "fork"}],
        "videos": [
            {
                "id": 11,
                "file_names": [f"a/{t}.png" for t in range(3)],
                "height": HEIGHT,
                "width": WIDTH,
                "length": 3,
            },
            {"id": 4, "file_names": ["b/0.png", "b/1.png"], "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {
                "id": 5,
                "video_id": 11,
                "category_id": 1,
                "iscrowd": 0,
                "segmentations": [dict(RLE), None, {"size": [HEIGHT, WIDTH], "counts": [23, 2, 136]}],
                "areas": [18, None, 2],
                "bboxes": [[3, 2, 6, 3], None, [3, 2, 1, 2]],
                "occlusion": ["no_occlusion", None, "severe_occlusion"],
            },
            {"id": 6, "video_id": 4, "category_id": 2, "segmentations": [None, deepcopy(POLYGON)]},
        ],
    }


def write_images(root: Path, content: dict[str, Any], shade: int = 0) -> None:
    for video in content["videos"]:
        for name in video["file_names"]:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            pixels = np.full((HEIGHT, WIDTH, 3), shade + len(name), np.uint8)
            Image.fromarray(pixels).save(root / name)


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Writes a split and its images; returns the root."""

    def write(content: Any, split: str = "train", shade: int = 0) -> Path:
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / f"{split}.json").write_text(text)
        write_images(tmp_path / split / "JPEGImages", sound(), shade)
        return tmp_path

    return write


def kinds(report: CheckReport) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for problem in report.problems:
        counts[problem.kind] += problem.count
    return dict(counts)


def test_a_sound_data_set(folder: Callable[..., Path]) -> None:
    report = check(folder(sound()))
    assert kinds(report) == {}
    assert report.ok
    (split,) = report.splits
    assert split.name == "train"
    assert split.format == "ytvis"
    expected = {"videos": 2, "frames": 5, "annotations": 2, "masks": 3, "null_frames": 2, "images_opened": 5}
    assert expected.items() <= split.counts.items()
    assert [(c.name, c.instances, c.videos) for c in split.classes] == [("spoon", 1, 1), ("fork", 1, 1)]
    assert report.to_text().splitlines()[-1] == "usable: 0 errors, 0 warnings (train)"


def second(content: dict[str, Any], name: str) -> None:
    content[name].append(deepcopy(content[name][0]))


BREAK: dict[str, tuple[str, Change]] = {
    # name: kind that is reported, and what is done to a sound file
    "video twice": ("duplicate-video-id", lambda c: second(c, "videos")),
    "annotation twice": ("duplicate-annotation-id", lambda c: second(c, "annotations")),
    "category twice": ("duplicate-category-id", lambda c: second(c, "categories")),
    "video id text": ("id-type", lambda c: c["videos"].append(c["videos"][0] | {"id": "11"})),
    "annotation id bool": ("id-type", lambda c: c["annotations"][0].update(id=True)),
    "category id float": ("id-type", lambda c: c["categories"].append({"id": 3.0, "name": "knife"})),
    "no id": ("structure", lambda c: c["annotations"][0].pop("id")),
    "no name": ("structure", lambda c: c["categories"][0].pop("name")),
    "no categories": ("structure", lambda c: c.update(categories=[])),
    "videos no list": ("structure", lambda c: c.update(videos={})),
    "entry no object": ("structure", lambda c: c["annotations"].append(7)),
    "annotations no list": ("structure", lambda c: c.update(annotations={"a": 1})),
    "no height": ("structure", lambda c: c["videos"][0].pop("height")),
    "height 0": ("structure", lambda c: c["videos"][0].update(height=0)),
    "file name number": ("structure", lambda c: c["videos"][0]["file_names"].__setitem__(1, 5)),
    "unknown video": ("unknown-video", lambda c: c["annotations"][0].update(video_id=12)),
    "unknown category": ("unknown-category", lambda c: c["annotations"][0].update(category_id=9)),
    "length": ("length", lambda c: c["videos"][0].update(length=4)),
    "segmentations short": ("length", lambda c: c["annotations"][0]["segmentations"].pop()),
    "areas short": ("length", lambda c: c["annotations"][0]["areas"].pop()),
    "occlusion long": ("length", lambda c: c["annotations"][0]["occlusion"].append(None)),
    "no segmentations": ("structure", lambda c: c["annotations"][1].pop("segmentations")),
    "crowd 2": ("crowd-value", lambda c: c["annotations"][0].update(iscrowd=2)),
    "area text": ("area-value", lambda c: c["annotations"][0]["areas"].__setitem__(0, "18")),
    "area huge": ("area-value", lambda c: c["annotations"][0]["areas"].__setitem__(0, 10**400)),
    "area nan": ("area-value", lambda c: c["annotations"][0]["areas"].__setitem__(0, float("nan"))),
    "occlusion": ("occlusion-word", lambda c: c["annotations"][0]["occlusion"].__setitem__(0, "some")),
    "rle size": ("rle-size", lambda c: c["annotations"][0]["segmentations"][0].update(size=[23, 7])),
    "rle short": ("rle-coverage", lambda c: c["annotations"][0]["segmentations"][0].update(counts="04")),
    "rle text": ("rle-coverage", lambda c: c["annotations"][0]["segmentations"][0].update(counts="<b>")),
    "rle list": ("rle-coverage", lambda c: c["annotations"][0]["segmentations"][2].update(counts=[160])),
    "rle without counts": ("segmentation", lambda c: c["annotations"][0]["segmentations"][0].pop("counts")),
    "segmentation text": ("segmentation", lambda c: c["annotations"][0]["segmentations"].__setitem__(0, "a")),
    "two points": ("polygon", lambda c: c["annotations"][1]["segmentations"].__setitem__(1, [[1, 1, 5, 5]])),
    "no polygon": ("polygon", lambda c: c["annotations"][1]["segmentations"].__setitem__(1, [])),
    "half a point": (
        "polygon",
        lambda c: c["annotations"][1]["segmentations"].__setitem__(1, [[1, 1, 5, 5, 6, 6, 7]]),
    ),
}


@pytest.mark.parametrize("name", BREAK)
def test_what_the_reader_refuses_is_an_error(name: str, folder: Callable[..., Path]) -> None:
    kind, change = BREAK[name]
    content = sound()
    change(content)
    root = folder(content)
    with pytest.raises(DataError):
        YTVIS.load(root / "train.json", root / "train" / "JPEGImages")
    report = check(root, images="none")
    assert not report.ok
    found = {problem.kind: problem for problem in report.problems}
    assert kind in found
    assert found[kind].level == "error"
    assert found[kind].count == 1
    assert len(found[kind].examples) == 1
    # One fault is one error: what follows from it is not reported as more errors.
    assert [problem.kind for problem in report.problems if problem.level == "error"] == [kind] or name in (
        "no name",
        "no categories",
        "videos no list",
        "no height",
    )


ODD: dict[str, tuple[str, str, Change]] = {
    # name: level, kind, and what is done to a sound file
    "annotation id 0": ("warning", "id-zero", lambda c: c["annotations"][0].update(id=0)),
    "category id 0": (
        "info",
        "zero-video-or-category",
        lambda c: (c["categories"][0].update(id=0), c["annotations"][0].update(category_id=0)),
    ),
    "annotation height": ("warning", "annotation-size", lambda c: c["annotations"][0].update(height=8)),
    "annotation length": ("warning", "annotation-size", lambda c: c["annotations"][0].update(length=2)),
    "boxes short": ("warning", "box-value", lambda c: c["annotations"][0]["bboxes"].pop()),
    "box of three": ("warning", "box-value", lambda c: c["annotations"][0]["bboxes"][0].pop()),
    "box small": ("warning", "box-differs", lambda c: c["annotations"][0]["bboxes"][0].__setitem__(2, 4)),
    "area": ("warning", "area-differs", lambda c: c["annotations"][0]["areas"].__setitem__(0, 27)),
    "all null": ("warning", "no-mask", lambda c: c["annotations"][1].update(segmentations=[None, None])),
    "no pixel": (
        "warning",
        "empty-mask",
        lambda c: c["annotations"][0]["segmentations"].__setitem__(0, EMPTY),
    ),
    "polygon outside": (
        "warning",
        "polygon-outside",
        lambda c: c["annotations"][1]["segmentations"][1][0].__setitem__(2, 60),
    ),
    "no frames": (
        "warning",
        "no-frames",
        lambda c: c["videos"].append({"id": 1, "file_names": [], "height": 7, "width": 23}),
    ),
    "file twice": ("warning", "repeated-file", lambda c: c["videos"][1].update(file_names=["b/0.png"] * 2)),
    "outside": (
        "warning",
        "outside-folder",
        lambda c: c["videos"][1].update(file_names=["../b.png", "b/1.png"]),
    ),
    "name twice": ("warning", "category-name", lambda c: c["categories"][1].update(name="spoon")),
    "unused": ("warning", "class-unused", lambda c: c["categories"].append({"id": 3, "name": "knife"})),
    "crowd": ("info", "crowd", lambda c: c["annotations"][0].update(iscrowd=1)),
    "one frame": (
        "info",
        "one-frame",
        lambda c: (
            c["videos"][1].update(file_names=["b/0.png"]),
            c["annotations"][1]["segmentations"].pop(0),
        ),
    ),
    "long": (
        "info",
        "long-video",
        lambda c: c["videos"].append(
            {"id": 1, "file_names": [f"c/{t}.png" for t in range(301)], "height": 7, "width": 23}
        ),
    ),
    "unannotated": ("info", "no-annotations", lambda c: c["annotations"][1].update(video_id=11) or long(c)),
    "hidden": ("info", "hidden", lambda c: c.pop("annotations")),
}


def long(content: dict[str, Any]) -> None:
    content["annotations"][1]["segmentations"].append(None)


@pytest.mark.parametrize("name", ODD)
def test_what_the_reader_takes_is_no_error(name: str, folder: Callable[..., Path]) -> None:
    level, kind, change = ODD[name]
    content = sound()
    change(content)
    root = folder(content)
    YTVIS.load(root / "train.json", root / "train" / "JPEGImages")
    report = check(root, images="none")
    assert report.ok
    found = {problem.kind: problem for problem in report.problems}
    assert kind in found
    assert found[kind].level == level
    assert found[kind].count == 1


def places(tree: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where something stands in a json tree."""
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in pairs:
        yield (*place, key)
        yield from places(value, (*place, key))


@pytest.mark.parametrize("seed", range(4))
def test_random_damage(seed: int, tmp_path: Path) -> None:
    """The check has an error exactly where the reader refuses the file, whatever is wrong with it."""
    chance = random.Random(seed)
    values = [None, 0, 1, -1, 5, 2.5, "a", "04", True, [], {}, [1], [[1, 2]], {"counts": "04"}, 11, 4]
    path = tmp_path / "damaged.json"
    verdicts = []
    for _ in range(60):
        content = sound()
        for _ in range(chance.randint(1, 2)):
            # Coordinates of polygons, the deepest places, have a test of their own.
            *above, last = chance.choice([place for place in places(content) if len(place) < 6])
            part: Any = content
            for key in above:
                part = part[key]
            if chance.random() < 0.3:
                del part[last]
            else:
                part[last] = deepcopy(chance.choice(values))
        path.write_text(json.dumps(content))
        try:
            YTVIS.load(path, tmp_path)
            usable = True
        except DataError:
            usable = False
        assert check(path, images="none", form="ytvis").ok is usable, content
        verdicts.append(usable)
    assert 5 < sum(verdicts) < 55


def test_all_problems_are_found_at_once_and_counted(folder: Callable[..., Path]) -> None:
    content = sound()
    for i in range(5):
        content["annotations"].append({"id": 50 + i, "video_id": 99, "category_id": 8, "segmentations": []})
    content["annotations"][0]["segmentations"][0]["size"] = [1, 1]
    content["videos"].append({"id": 4})
    report = check(folder(content), images="none")
    assert kinds(report) == {
        "duplicate-video-id": 1,
        "unknown-video": 5,
        "unknown-category": 5,
        "rle-size": 1,
    }
    unknown = next(problem for problem in report.problems if problem.kind == "unknown-video")
    assert unknown.examples == tuple(f"annotations[{i}] (id {48 + i}): video_id 99" for i in (2, 3, 4))
    assert report.to_text().splitlines()[-1] == "NOT usable: 12 errors, 0 warnings (train)"


def test_every_annotation_of_published_files_has_length_1(folder: Callable[..., Path]) -> None:
    content = sound()
    for annotation in content["annotations"]:
        annotation["length"] = 1
    assert kinds(check(folder(content))) == {}


def test_the_largest_difference_of_areas(folder: Callable[..., Path]) -> None:
    content = sound()
    content["annotations"][0]["areas"] = [27, None, 3]  # of 18 and 2 pixels
    (problem,) = check(folder(content), images="none").problems
    assert problem.count == 2
    assert problem.note == "at most by 50 %"
    assert problem.examples[0] == "annotations[0] (id 5), frame 0: 27 stored, 18 in the mask"


def test_areas_of_polygons_may_differ_by_their_outline(folder: Callable[..., Path]) -> None:
    content = sound()
    content["annotations"][1]["areas"] = [None, 26.5]  # 18 in the mask, outline of 18 pixels
    assert kinds(check(folder(content), images="none")) == {}
    content["annotations"][1]["areas"] = [None, 28]
    assert kinds(check(folder(content), images="none")) == {"area-differs": 1}


def test_more_masks_than_are_checked_at_once(folder: Callable[..., Path]) -> None:
    content = sound()
    content["annotations"] = [
        {"id": i + 1, "video_id": 4, "category_id": 1 + i % 2, "segmentations": [RLE, None]}
        for i in range(300)
    ]
    content["annotations"][290]["segmentations"] = [EMPTY, {"size": [HEIGHT, WIDTH], "counts": "04"}]
    report = check(folder(content), images="none")
    assert kinds(report) == {"empty-mask": 1, "rle-coverage": 1, "no-annotations": 1}
    assert report.splits[0].counts["masks"] == 301
    assert report.splits[0].counts["null_frames"] == 299


def test_coordinates_that_cannot_be_drawn(folder: Callable[..., Path]) -> None:
    content = sound()
    content["annotations"][1]["segmentations"] = [[[1, 1, 5, float("nan"), 5, 5]], [[1, 1, 1e9, 1, 5, 5]]]
    assert kinds(check(folder(content), images="none")) == {"polygon": 2}
    content["annotations"][1]["segmentations"] = [[[1, 1, 5, None, 5, 5]], [[1, 1, 5, "5", 5, 5]]]
    assert kinds(check(folder(content), images="none")) == {"polygon": 2}


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_no_json(text: str, folder: Callable[..., Path], tmp_path: Path) -> None:
    folder(sound(), "valid", shade=100)
    root = folder("{}")
    (tmp_path / "train.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    report = check(root)
    assert [(p.kind, p.split) for p in report.problems] == [
        ("structure" if text == "[]" else "not-json", "train")
    ]
    assert [split.name for split in report.splits] == ["train", "valid"]


def test_images(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder(sound())
    images = root / "train" / "JPEGImages"
    (images / "a" / "0.png").unlink()
    (images / "a" / "1.png").write_bytes(b"no image")
    Image.new("L", (WIDTH, HEIGHT)).save(images / "a" / "2.png")
    Image.new("RGB", (HEIGHT, WIDTH)).save(images / "b" / "0.png")
    Image.new("I;16", (WIDTH, HEIGHT)).save(images / "b" / "1.png")
    (images / "c").mkdir()
    Image.new("RGB", (1, 1)).save(images / "c" / "left over.jpg")
    (images / "c" / "notes.txt").write_text("no image")
    report = check(root)
    assert kinds(report) == {
        "image-missing": 1,
        "image-unreadable": 1,
        "image-size": 1,
        "image-depth": 1,
        "image-mode": 1,
        "extra-image": 1,
    }
    found = {problem.kind: problem for problem in report.problems}
    assert "7x23, the json says 23x7" in found["image-size"].examples[0]
    assert found["image-mode"].note == "I;16 1, L 1"
    assert found["extra-image"].examples[0].endswith("left over.jpg")
    assert report.splits[0].counts["images_opened"] == 3
    first = check(root, images="first")
    assert kinds(first) == {"image-missing": 1, "image-size": 1}


def test_a_truncated_image_is_found_by_decoding(folder: Callable[..., Path]) -> None:
    root = folder(sound())
    path = root / "train" / "JPEGImages" / "a" / "1.png"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    assert kinds(check(root)) == {}
    assert kinds(check(root, decode=True)) == {"image-unreadable": 1}


def test_upper_and_lower_case(folder: Callable[..., Path]) -> None:
    content = sound()
    content["videos"][0]["file_names"][1] = "A/1.PNG"
    report = check(folder(content))
    found = {problem.kind: problem for problem in report.problems}
    # What it is depends on the file system that the test runs on.
    kind = "image-missing" if "image-missing" in found else "image-case"
    assert found[kind].count == 1
    assert "a/1.png" in found[kind].examples[0]


def test_backslashes(folder: Callable[..., Path]) -> None:
    content = sound()
    content["videos"][0]["file_names"][1] = "a\\1.png"
    report = check(folder(content))
    assert kinds(report) == {"backslash": 1, "extra-image": 1}
    assert not report.ok


def test_turned_photos(folder: Callable[..., Path]) -> None:
    content = sound()
    content["videos"][0]["file_names"][1] = "a/1.jpg"
    root = folder(content)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "train" / "JPEGImages" / "a" / "1.jpg", exif=exif)
    assert kinds(check(root)) == {"image-turned": 1, "extra-image": 1}


def named(table: dict[int, str]) -> list[dict[str, Any]]:
    return [{"id": identity, "name": name} for identity, name in table.items()]


def test_which_data_set(folder: Callable[..., Path]) -> None:
    content = sound() | {"categories": named(dict(TABLES["ytvis2021"]))}
    assert check(folder(content), images="none").splits[0].dataset == ("ytvis2021", "ytvis2022")
    assert check(folder(content), images="none", data="ytvis2021").ok
    report = check(folder(content), images="none", data="ovis")
    assert kinds(report)["categories-differ"] == 39  # cow has 7 in both
    assert "category 1 is 'airplane', 'Person' in ovis" in [e for p in report.problems for e in p.examples]


def test_nearly_a_data_set(folder: Callable[..., Path]) -> None:
    names = dict(YTVIS2019) | {3: "Lizzard", 4: "Parrot"}
    report = check(folder(sound() | {"categories": named(names)}), images="none")
    near = next(p for p in report.problems if p.kind == "category-near-miss")
    assert near.note == "compared with ytvis2019"
    assert near.examples == (
        "category 3 is 'Lizzard', 'lizard' in ytvis2019",
        "category 4 is 'Parrot', 'parrot' in ytvis2019",
    )
    shifted = {identity + 1: name for identity, name in OVIS.items()}
    report = check(folder(sound() | {"categories": named(shifted)}), images="none")
    assert kinds(report)["category-near-miss"] == 26
    # Spelling does not make another data set, to the loader neither.
    lower = {identity: name.lower() for identity, name in OVIS.items()}
    assert check(folder(sound() | {"categories": named(lower)}), images="none", data="ovis").ok


def test_a_video_in_two_splits(folder: Callable[..., Path]) -> None:
    folder(sound(), "train")
    root = folder(sound(), "valid")
    report = check(root)
    assert kinds(report) == {"leak": 2}
    assert report.across[0].split == "train, valid"
    assert report.across[0].examples == ("a", "b")
    assert "train, valid together" in report.to_text()
    assert not report.ok
    assert kinds(check(root, images="none")) == {"overlap": 2}
    assert check(root, ["valid"]).ok


def test_folders_of_one_name_with_other_images(folder: Callable[..., Path]) -> None:
    folder(sound(), "train")
    report = check(folder(sound(), "valid", shade=100))
    assert kinds(report) == {"same-folder": 2}
    assert report.ok


def test_splits_share_a_folder_of_images(tmp_path: Path) -> None:
    content = sound()
    for split, video in (("train", 0), ("valid", 1)):
        part = {
            "categories": content["categories"],
            "videos": [content["videos"][video]],
            "annotations": [content["annotations"][video]],
        }
        (tmp_path / f"{split}.json").write_text(json.dumps(part))
    write_images(tmp_path / "JPEGImages", content)
    assert kinds(check(tmp_path)) == {"class-unused": 2}
    Image.new("RGB", (1, 1)).save(tmp_path / "JPEGImages" / "more.png")
    assert kinds(check(tmp_path))["extra-image"] == 1


def test_coco_stills(tmp_path: Path) -> None:
    content = {
        "categories": named(dict(COCO)),
        "images": [
            {"id": 9, "file_name": "0009.jpg", "height": HEIGHT, "width": WIDTH},
            {"id": 10, "file_name": "0010.jpg", "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 9,
                "category_id": 1,
                "segmentation": POLYGON,
                "bbox": [3, 2, 6, 3],
                "area": 18,
            },
            {"id": 2, "image_id": 9, "category_id": 3, "segmentation": RLE, "bbox": [0, 0, 1, 1], "area": 1},
            {"id": 2, "image_id": 8, "category_id": 12, "segmentation": [], "iscrowd": 1},
        ],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (tmp_path / "val2017").mkdir()
    for name in ("0009.jpg", "0010.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(tmp_path / "val2017" / name)
    report = check(tmp_path)
    assert report.splits[0].format == "coco"
    assert report.splits[0].dataset == ("coco",)
    assert report.splits[0].counts["images_opened"] == 2
    assert kinds(report) == {
        "duplicate-annotation-id": 1,
        "unknown-video": 1,
        "unknown-category": 1,
        "box-differs": 1,
        "area-differs": 1,
        "class-unused": 78,
        "crowd": 1,
        "no-annotations": 1,
    }
    assert "unknown-video" in report.to_text()


@pytest.mark.parametrize("fault", [{"segmentation": None}, {}])
def test_a_still_without_a_mask_is_an_error(fault: dict[str, Any], tmp_path: Path) -> None:
    content = {
        "categories": named(dict(COCO)),
        "images": [{"id": 9, "file_name": "0009.jpg", "height": HEIGHT, "width": WIDTH}],
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, **fault}],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    (tmp_path / "val2017").mkdir()
    report = check(tmp_path, images="none")
    assert kinds(report)["segmentation"] == 1
    with pytest.raises(DataError, match="field 'segmentation'"):
        load_coco(tmp_path, "val2017")


def test_coco_video_files_are_recognized(tmp_path: Path) -> None:
    content = {"videos": [{"id": 1, "name": "a"}], "images": [], "annotations": [], "categories": []}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(content))
    assert kinds(check(path, images="none")) == {"coco-video": 1}


def test_one_file(folder: Callable[..., Path]) -> None:
    root = folder(sound())
    report = check(root / "train.json", image_root=root / "train" / "JPEGImages")
    assert report.ok
    assert report.splits[0].counts["images_opened"] == 5


def test_a_split_without_its_images(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder(sound())
    (root / "valid.json").write_text(json.dumps(sound()))
    report = check(root)
    assert kinds(report) == {"image-folder": 1, "overlap": 2}
    assert [split.name for split in report.splits] == ["train", "valid"]
    assert check(root, images="none").ok


def test_what_cannot_be_checked(folder: Callable[..., Path], tmp_path: Path) -> None:
    root = folder(sound())
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        check(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="'minival'"):
        check(root, ["minival"])
    with pytest.raises(FileNotFoundError, match=r"no split found in .* it holds no json file"):
        check(root / "train")
    with pytest.raises(DataError, match="no splits to choose"):
        check(root / "train.json", ["train"])
    with pytest.raises(DataError, match="where are the images"):
        check(root / "train.json")
    with pytest.raises(DataError, match="single json file"):
        check(root, image_root=root)
    with pytest.raises(DataError, match="data set 'mine' has no table"):
        check(root, data="mine")
    with pytest.raises(DataError, match="format 'voc' is unknown"):
        check(root, form="voc")


def test_the_report_as_a_dict(folder: Callable[..., Path]) -> None:
    content = sound()
    content["annotations"][0]["areas"][0] = 20
    report = check(folder(content))
    loaded = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert loaded["ok"] is True
    assert loaded["verdict"] == "usable: 0 errors, 1 warning (train)"
    assert loaded["problems"][0]["kind"] == "area-differs"
    assert loaded["problems"][0]["examples"] == ["annotations[0] (id 5), frame 0: 20 stored, 18 in the mask"]
    assert loaded["splits"][0]["counts"]["masks"] == 3
    assert report.as_dict() == check(folder(content)).as_dict()


def test_examples_are_limited_but_counts_are_not() -> None:
    findings = Findings("train")
    for i in range(1000):
        findings.add("leak", "{}", i)
    findings.add("crowd", "with {braces}")
    leak, crowd = findings.problems()
    assert (leak.count, leak.examples) == (1000, ("0", "1", "2"))
    assert crowd.examples == ("with {braces}",)
    assert all(level in ("error", "warning", "info") for level, _ in KINDS.values())
