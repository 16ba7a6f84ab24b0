"""COCO stills: what is read, which classes are learnt, what is refused and in which words."""

import copy
import json
import math
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from vistk.data.categories import COCO_TO, TABLES
from vistk.data.coco import CLASS_MAPS, find_coco, load_coco
from vistk.data.stills import StillRecords, with_targets
from vistk.data.ytvis import YTVIS, DataError
from vistk.ops.masks import decode, to_rle

BOX = [2, 3, 7, 3, 7, 7, 2, 7]  # 5 x 4 pixels
DOT = [0, 0, 1, 0, 1, 1, 0, 1]
CROWD = {"size": [20, 23], "counts": [0, 20, 420, 20]}  # the first and the last column
CONTENT = {
    "info": {"year": 2017},
    "images": [
        {"id": 9, "file_name": "9.jpg", "height": 20, "width": 23, "license": 1},
        {"id": 4, "file_name": "4.png", "height": 7, "width": 31},
        {"id": 30, "file_name": "30.jpg", "height": 20, "width": 23},
        {"id": 31, "file_name": "31.jpg", "height": 20, "width": 23},
    ],
    # Person, zebra and sofa: YouTube-VIS 2019 has the first two.
    "annotations": [
        {"id": 5, "image_id": 4, "category_id": 63, "iscrowd": 0, "area": 1.5, "segmentation": [DOT]},
        {"id": 7, "image_id": 9, "category_id": 24, "iscrowd": 0, "area": 21.0, "segmentation": [BOX, DOT]},
        {"id": 6, "image_id": 9, "category_id": 1, "iscrowd": 1, "area": 40, "segmentation": CROWD},
        {"id": 8, "image_id": 9, "category_id": 63, "segmentation": [BOX]},
        {"id": 2, "image_id": 30, "category_id": 1, "iscrowd": 1, "area": 40, "segmentation": CROWD},
    ],
    "categories": [
        {"id": 63, "name": "couch", "supercategory": "furniture"},
        {"id": 1, "name": "person"},
        {"id": 24, "name": "zebra"},
    ],
}


def write(root, content=CONTENT, name="instances_train2017"):
    for folder in ("annotations", "train2017"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "annotations" / f"{name}.json").write_text(json.dumps(content))
    return root


def test_stills_are_videos_of_one_frame(tmp_path):
    source = load_coco(write(tmp_path), "train2017")
    assert isinstance(source, YTVIS)
    assert source.categories == TABLES["coco"]
    assert source.num_classes == 80
    assert source.has_annotations
    assert source.image_root == tmp_path / "train2017"
    assert [v.video_id for v in source.videos] == [9, 4, 30, 31]
    assert [(v.file_names, v.height, v.width, len(v)) for v in source.videos][:2] == [
        (("9.jpg",), 20, 23, 1),
        (("4.png",), 7, 31, 1),
    ]
    zebra, crowd, couch = source.videos[0].annotations  # in the file's order
    assert [(a.id, a.category_id, a.iscrowd, a.areas) for a in (zebra, crowd, couch)] == [
        (7, 24, False, (21.0,)),
        (6, 1, True, (40.0,)),
        (8, 63, False, (20.0,)),  # counted, as the file has none
    ]
    assert zebra.segmentations == (to_rle([BOX, DOT], 20, 23),)
    assert source.instance_mask(source.videos[0], couch, 0).nonzero().tolist() == [
        [y, x] for y in range(3, 7) for x in range(2, 7)
    ]
    columns = torch.zeros(20, 23, dtype=torch.bool)
    columns[:, [0, 22]] = True
    assert np.array_equal(decode(source.frame_rles(source.videos[0], 0)[1]), columns)
    assert source.videos[3].annotations == ()


def test_classes_are_mapped_and_others_dropped(tmp_path):
    source = load_coco(write(tmp_path), "train2017", "ytvis2019")
    assert source.categories == TABLES["ytvis2019"]
    assert [[(a.id, a.category_id) for a in v.annotations] for v in source.videos] == [
        [(7, 30), (6, 1)],  # zebra and person of YouTube-VIS 2019
        [],
        [(2, 1)],
        [],
    ]
    assert source.videos[0].annotations[0].segmentations == (to_rle([BOX, DOT], 20, 23),)
    assert source.videos[2].annotations[0].segmentations == (to_rle(CROWD, 20, 23),)
    # OVIS has no other classes of these; 2022 has those of 2021
    assert [a.category_id for a in load_coco(tmp_path, "train2017", "ovis").videos[0].annotations] == [10, 1]
    new = load_coco(tmp_path, "train2017", "ytvis2022")
    assert [a.category_id for a in new.videos[0].annotations] == [40, 26]
    assert new.categories == TABLES["ytvis2021"]


def test_class_maps_lead_into_the_tables():
    assert set(CLASS_MAPS) == set(TABLES)
    for name, mapped in CLASS_MAPS.items():
        assert set(mapped) <= set(TABLES["coco"])
        assert set(mapped.values()) <= set(TABLES[name])
    assert CLASS_MAPS["ytvis2022"] == COCO_TO["ytvis2021"]


def test_files_with_the_target_classes_are_taken_as_they_are(tmp_path):
    content = copy.deepcopy(CONTENT)
    content["categories"] = [{"id": i, "name": name} for i, name in TABLES["ytvis2019"].items()]
    for annotation, category in zip(content["annotations"], (30, 30, 1, 2, 1), strict=True):
        annotation["category_id"] = category
    write(tmp_path, content, "coco2ytvis2019_train")
    for split in ("train2017", "coco2ytvis2019_train"):
        source = load_coco(tmp_path, split, "ytvis2019")
        assert [a.category_id for a in source.videos[0].annotations] == [30, 1, 2]
        assert source.image_root == tmp_path / "train2017"
    with pytest.raises(DataError, match=r"other categories than COCO's or those of ovis .*1 = person"):
        load_coco(tmp_path, "coco2ytvis2019_train", "ovis")


def test_stills_without_targets_are_left_out_of_training(tmp_path):
    write(tmp_path)
    assert [v.video_id for v in with_targets(load_coco(tmp_path, "train2017"))] == [9, 4]
    assert [v.video_id for v in with_targets(load_coco(tmp_path, "train2017", "ytvis2019"))] == [9]
    content = CONTENT | {"annotations": CONTENT["annotations"][:1]}
    source = load_coco(write(tmp_path, content), "train2017", "ytvis2019")
    with pytest.raises(DataError, match=r"train2017\.json has no video with an annotated instance"):
        with_targets(source)


def test_records_are_a_sequence_that_shares_its_arrays(tmp_path):
    records = load_coco(write(tmp_path), "train2017").videos
    assert isinstance(records, StillRecords)
    assert len(records) == 4
    assert records[-1].video_id == 31
    part = records[1:3]
    assert [v.video_id for v in part] == [4, 30]
    assert part[1] == records[2]
    assert part.annotations.polygons.coordinates is records.annotations.polygons.coordinates
    with pytest.raises(IndexError):
        records[4]
    copied = pickle.loads(pickle.dumps(records))
    assert list(copied) == list(records)


def test_a_file_without_annotations(tmp_path):
    content = {key: CONTENT[key] for key in ("images", "categories")}
    source = load_coco(write(tmp_path, content), "train2017", "ytvis2019")
    assert not source.has_annotations
    assert [v.annotations for v in source.videos] == [()] * 4


def test_grey_and_cmyk_images_are_rgb(tmp_path):
    write(tmp_path)
    Image.new("L", (23, 20), 83).save(tmp_path / "train2017" / "9.jpg")
    Image.new("CMYK", (23, 20), (0, 255, 255, 0)).save(tmp_path / "train2017" / "30.jpg")
    source = load_coco(tmp_path, "train2017")
    assert source.read_frame(source.videos[0], 0).unique().tolist() == [83]
    red = source.read_frame(source.videos[2], 0)
    assert red.shape == (3, 20, 23)
    assert red[0].float().mean() > 200
    assert red[1:].float().mean() < 50


@pytest.mark.parametrize("folder", ["", "coco", "COCO"])
def test_layouts(tmp_path, folder):
    root = write(tmp_path / folder)
    assert find_coco(tmp_path, "train2017") == (
        root / "annotations" / "instances_train2017.json",
        root / "train2017",
    )
    (root / "train2017").rmdir()
    (root / "images" / "train2017").mkdir(parents=True)
    assert find_coco(tmp_path, "train2017")[1] == root / "images" / "train2017"


def test_what_was_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data folder .*nowhere does not exist"):
        load_coco(tmp_path / "nowhere", "train2017")
    with pytest.raises(
        FileNotFoundError,
        match=r"'val2017': looked in .*annotations/instances_val2017\.json, annotations/coco2ovis_val",
    ):
        load_coco(tmp_path, "val2017", "ovis")
    write(tmp_path, name="instances_val2017")
    with pytest.raises(
        FileNotFoundError, match=r"no images of split 'val2017' .* for val2017, images/val2017"
    ):
        load_coco(tmp_path, "val2017")


def change(*path, to=None, drop=False):
    content = copy.deepcopy(CONTENT)
    place = content
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "found a list, expected an object with 'images'"),
        (change("videos", to=[]), "is a file of videos, expected a COCO file of stills"),
        (change("images", drop=True), "field 'images' is missing, expected a list"),
        (change("annotations", to=3), "field 'annotations' is 3, expected a list"),
        (change("categories", drop=True), "field 'categories' is missing, expected a list"),
        (change("categories", 1, "name", to=4), r"categories\[1\]: field 'name' is 4, expected a string"),
        (change("images", 1, "id", drop=True), r"images\[1\]: field 'id' is missing, expected an integer"),
        (change("images", 1, "id", to="4"), r"images\[1\]: field 'id' is '4', expected an integer"),
        (change("images", 1, "id", to=2**70), r"images\[1\]: field 'id' is \d+, expected an integer"),
        (change("images", 1, "width", to=0), r"images\[1\]: field 'width' is 0, expected a positive integer"),
        (change("images", 1, "height", to=2.5), r"images\[1\]: field 'height' is 2.5, expected a positive"),
        (change("images", 1, "file_name", to=None), r"images\[1\]: field 'file_name' is None, expected a st"),
        (change("images", 1, "file_name", drop=True), r"images\[1\]: field 'file_name' is missing, expected"),
        (change("images", 1, to=7), r"images\[1\]: found something else than an object with 'file_name'"),
        (change("images", 2, "id", to=9), r"images\[2\]: field 'id' is 9 a second time, expected unique ids"),
        (change("annotations", 3, "id", to=5), r"annotations\[3\]: field 'id' is 5 a second time"),
        (change("annotations", 1, "image_id", drop=True), r"annotations\[1\]: field 'image_id' is missing"),
        (
            change("annotations", 1, "image_id", to=8),
            r"\[1\] \(id 7, image 8\): field 'image_id' is 8, expec",
        ),
        (
            change("annotations", 1, "category_id", to=2),
            r"\[1\] \(id 7, .*'category_id' is 2, expected the id",
        ),
        (change("annotations", 1, "category_id", to=None), r"annotations\[1\]: field 'category_id' is None"),
        (
            change("annotations", 1, "iscrowd", to=2),
            r"annotations\[1\]: field 'iscrowd' is 2, expected 0 or 1",
        ),
        (
            change("annotations", 1, "area", to="a"),
            r"annotations\[1\]: field 'area' is 'a', expected a finite number or null",
        ),
        (change("annotations", 1, "area", to=math.inf), r"annotations\[1\]: field 'area' is inf, expected"),
        (change("annotations", 1, "area", to=math.nan), r"annotations\[1\]: field 'area' is nan, expected"),
        (change("annotations", 1, "area", to=10**400), r"annotations\[1\]: field 'area' is 10+\.\.\., expec"),
        (
            change("annotations", 1, "segmentation", to=[[10**400] * 6]),
            r"\[1\] \(id 7\): field 'segmentation'",
        ),
        (change("annotations", 1, "segmentation", drop=True), r"\[1\]: field 'segmentation' is missing"),
        (change("annotations", 1, "segmentation", to=None), r"\[1\] \(id 7\): .*a segmentation is NoneType"),
        (change("annotations", 1, "segmentation", to=[]), r"\[1\] \(id 7\): .*an empty list of polygons"),
        (change("annotations", 1, "segmentation", to=[[1, 2]]), r"\(id 7\): .*at least three points"),
        (change("annotations", 1, "segmentation", to=[["a"] * 6]), r"\[1\] \(id 7\): field 'segmentation'"),
        (change("annotations", 1, "segmentation", to=[[1e9] * 6]), r"\(id 7, .* the coordinate 1000000000.0"),
        (change("annotations", 2, "segmentation", "size", to=[23, 20]), r"\[23, 20\], expected \[20, 23\]"),
        (
            change("annotations", 2, "segmentation", "size", to=20),
            r"RLE size is 20, expected \[height, width",
        ),
        (
            change("annotations", 2, "segmentation", "counts", to=[1]),
            r"\(id 6\): .*covers 1 pixels, the frame",
        ),
        (
            change("annotations", 2, "segmentation", "counts", to="11"),
            r"\(id 6, .*cover 2 pixels, expected 460",
        ),
        (change("info", to={"image_id": 1}), r"annotations\[0\]: field 'id' is missing"),
    ],
)
def test_broken_files_are_one_sentence(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(DataError, match=message) as error:
        load_coco(tmp_path, "train2017")
    assert "instances_train2017.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_not_json(tmp_path):
    write(tmp_path)
    for text in (b'{"images": [', b"\xff\xfe{}", b'{"images": ' + b"[" * 100_000):
        (tmp_path / "annotations" / "instances_train2017.json").write_bytes(text)
        with pytest.raises(DataError, match=r"instances_train2017\.json is not json"):
            load_coco(tmp_path, "train2017")


def test_unknown_classes(tmp_path):
    with pytest.raises(
        DataError, match=r"no map onto the classes of 'lvis', expected one of coco, ytvis2019"
    ):
        load_coco(write(tmp_path), "train2017", "lvis")
