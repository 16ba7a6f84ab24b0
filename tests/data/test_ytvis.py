"""The reader: encodings against masks made by hand, and one clear sentence for every broken file."""

import json
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from vistk.data.ytvis import YTVIS, DataError

HEIGHT, WIDTH = 7, 23
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[2:5, 3:9] = True  # 18 pixels


def compressed(mask):
    rle = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(rle["size"]), "counts": rle["counts"].decode()}


def uncompressed(mask):
    column_major = mask.T.reshape(-1)
    edges = np.flatnonzero(np.diff(column_major.astype(int))) + 1
    runs = np.diff([0, *edges, column_major.size]).tolist()
    return {"size": list(mask.shape), "counts": ([0] if column_major[0] else []) + runs}


def masks_of(data, video, t):
    """All masks of a frame, ``(N, H, W)``."""
    return torch.stack([data.instance_mask(video, annotation, t) for annotation in video.annotations])


POLYGON = [[3, 2, 9, 2, 9, 5, 3, 5]]


@pytest.fixture
def content():
    """Two categories out of order, a video with three frames and two objects, and one without annotations."""
    return {
        "categories": [{"id": 7, "name": "cat"}, {"id": 2, "name": "bird"}],
        "videos": [
            {
                "id": 11,
                "file_names": ["a/0.png", "a/1.png", "a/2.png"],
                "height": HEIGHT,
                "width": WIDTH,
                "length": 3,
            },
            {"id": 4, "file_names": ["b/0.png"], "height": HEIGHT, "width": WIDTH},
        ],
        "annotations": [
            {
                "id": 0,
                "video_id": 11,
                "category_id": 7,
                "segmentations": [compressed(BOX), None, uncompressed(BOX)],
                "areas": [18, None, 18],
                "bboxes": [[3, 2, 6, 3], None, [3, 2, 6, 3]],
                "occlusion": ["no_occlusion", None, "severe_occlusion"],
            },
            {"id": 1, "video_id": 11, "category_id": 2, "iscrowd": 1, "segmentations": [None, POLYGON, None]},
        ],
    }


@pytest.fixture
def write(tmp_path):
    def write(content):
        path = tmp_path / "train.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        (tmp_path / "JPEGImages" / "a").mkdir(parents=True, exist_ok=True)
        return path, tmp_path / "JPEGImages"

    return write


def test_reads_what_the_file_says(content, write):
    data = YTVIS.load(*write(content))
    assert [v.video_id for v in data.videos] == [11, 4]
    assert list(data.categories.items()) == [(2, "bird"), (7, "cat")]
    assert data.category_ids == [2, 7]
    assert data.num_classes == 2
    assert data.has_annotations
    cat, bird = data.videos[0].annotations
    assert (cat.id, cat.category_id, cat.iscrowd) == (0, 7, False)
    assert cat.occlusion == ("no_occlusion", None, "severe_occlusion")
    assert cat.areas == (18, None, 18)
    assert (bird.id, bird.iscrowd, bird.occlusion) == (1, True, None)
    assert data.videos[1].annotations == ()


@pytest.mark.parametrize(
    "encoding",
    [
        compressed(BOX),
        compressed(BOX) | {"counts": compressed(BOX)["counts"]},
        uncompressed(BOX),
        POLYGON,
        # the same box in two parts that share an edge
        [[3, 2, 6, 2, 6, 5, 3, 5], [6, 2, 9, 2, 9, 5, 6, 5]],
    ],
    ids=["compressed", "text", "uncompressed", "polygon", "two-polygons"],
)
def test_every_encoding_gives_the_mask(content, write, encoding):
    content["annotations"][0]["segmentations"] = [None, None, encoding]
    data = YTVIS.load(*write(content))
    video = data.videos[0]
    masks = masks_of(data, video, 2)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, torch.from_numpy(np.stack([BOX, np.zeros_like(BOX)])))
    assert not masks_of(data, video, 0).any()
    assert data.frame_rles(video, 2)[0]["counts"] == compressed(BOX)["counts"]


def test_an_rle_that_starts_with_a_one(content, write):
    corner = np.zeros((HEIGHT, WIDTH), bool)
    corner[:3, 0] = True
    content["annotations"][0]["segmentations"][0] = uncompressed(corner)
    data = YTVIS.load(*write(content))
    assert uncompressed(corner)["counts"][0] == 0
    assert torch.equal(masks_of(data, data.videos[0], 0)[0], torch.from_numpy(corner))


def test_missing_areas_are_counted(content, write):
    content["annotations"][0]["areas"] = None
    data = YTVIS.load(*write(content))
    assert data.videos[0].annotations[0].areas == (18.0, None, 18.0)
    assert data.videos[0].annotations[1].areas == (None, 18.0, None)


@pytest.mark.parametrize("annotations", [KeyError, None, []], ids=["missing", "null", "empty"])
def test_a_split_without_annotations(content, write, annotations):
    data = YTVIS.load(*write(at(content, ["annotations"], annotations)))
    assert not data.has_annotations
    assert [video.annotations for video in data.videos] == [(), ()]
    assert data.frame_rles(data.videos[0], 0) == ()


def test_a_video_without_frames(content, write):
    content["videos"][1]["file_names"] = []
    assert len(YTVIS.load(*write(content)).videos[1]) == 0


def test_reads_a_frame(content, write):
    path, images = write(content)
    pixels = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    Image.fromarray(pixels).save(images / "a" / "1.png")
    data = YTVIS.load(path, images)
    frame = data.read_frame(data.videos[0], 1)
    assert frame.dtype == torch.uint8
    assert torch.equal(frame, torch.from_numpy(pixels).permute(2, 0, 1))


def test_a_grey_frame_has_three_channels(content, write):
    path, images = write(content)
    Image.new("L", (WIDTH, HEIGHT), 83).save(images / "a" / "0.png")
    data = YTVIS.load(path, images)
    assert torch.equal(
        data.read_frame(data.videos[0], 0), torch.full((3, HEIGHT, WIDTH), 83, dtype=torch.uint8)
    )


def at(content, keys, value):
    """A copy with one value replaced, or deleted where ``value`` is ``KeyError``."""
    content = deepcopy(content)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if value is KeyError:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    return content


ANNOTATION = r"annotations\[0\] \(id 0\) of video 11: "


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["videos"], KeyError, r"train.json: field 'videos' is missing, expected a list"),
        (["videos"], {}, r"train.json: field 'videos' is \{\}, expected a list"),
        (["videos", 1], 5, r"videos\[1\]: found a int, expected an object"),
        (["videos", 0, "id"], "11", r"videos\[0\]: field 'id' is '11', expected an integer"),
        (["videos", 1, "id"], 11, r"videos\[1\] \(id 11\): field 'id' is given a second time"),
        (
            ["videos", 0, "file_names"],
            KeyError,
            r"videos\[0\] \(id 11\): field 'file_names' is missing, expected",
        ),
        (["videos", 0, "file_names", 1], 3, r"field 'file_names' holds 3, expected strings"),
        (["videos", 0, "length"], 4, r"videos\[0\] \(id 11\): field 'length' is 4, expected 3"),
        (["videos", 0, "height"], KeyError, r"field 'height' is missing, expected a positive integer"),
        (["videos", 0, "width"], 0, r"height and width are 7 and 0, expected positive"),
        (["categories"], [], r"field 'categories' is empty"),
        (["categories", 1, "id"], 7, r"categories\[1\]: field 'id' is 7 a second time"),
        (["categories", 0, "name"], None, r"categories\[0\]: field 'name' is None, expected a string"),
        (["annotations", 1, "id"], 0, r"annotations\[1\] \(id 0\): field 'id' is given a second time"),
        (["annotations", 0, "id"], True, r"annotations\[0\]: field 'id' is True, expected an integer"),
        (["annotations", 0, "video_id"], 5, r"\(id 0\): field 'video_id' is 5, expected the id of one"),
        (
            ["annotations", 0, "category_id"],
            1,
            ANNOTATION + "field 'category_id' is 1, expected the id of one of",
        ),
        (["annotations", 0, "iscrowd"], 2, ANNOTATION + "field 'iscrowd' is 2, expected 0 or 1"),
        (
            ["annotations", 0, "segmentations"],
            [None],
            ANNOTATION + "field 'segmentations' has 1 entries, expected 3",
        ),
        (["annotations", 0, "segmentations"], KeyError, ANNOTATION + "field 'segmentations' is missing"),
        (["annotations", 0, "areas"], [18], ANNOTATION + "field 'areas' has 1 entries, expected 3"),
        (
            ["annotations", 0, "areas", 2],
            "18",
            ANNOTATION + "field 'areas', frame 2 is '18', expected a finite number or null",
        ),
        (
            ["annotations", 0, "areas", 0],
            float("nan"),
            ANNOTATION + "field 'areas', frame 0 is nan, expected",
        ),
        (
            ["annotations", 0, "areas", 2],
            float("inf"),
            ANNOTATION + "field 'areas', frame 2 is inf, expected",
        ),
        (["annotations", 0, "areas", 0], 10**400, ANNOTATION + "field 'areas', frame 0 is 10+"),
        (["annotations"], {}, r"train.json: field 'annotations' is \{\}, expected a list"),
        (
            ["annotations", 0, "occlusion", 2],
            1,
            ANNOTATION + "field 'occlusion', frame 2 is 1, expected null",
        ),
        (
            ["annotations", 0, "occlusion", 0],
            "severe",
            ANNOTATION + "field 'occlusion', frame 0 is 'severe', expected null or one of no_occlusion, "
            "slight_occlusion, severe_occlusion$",
        ),
        (
            ["annotations", 0, "segmentations", 2, "size"],
            [WIDTH, HEIGHT],
            ANNOTATION + r"field 'segmentations', frame 2: RLE size is \[23, 7\], the video is \[7, 23\]",
        ),
        (["annotations", 0, "segmentations", 2, "size"], 7, ANNOTATION + "field 'segmentations', frame 2: "),
        (
            ["annotations", 0, "segmentations", 2, "counts"],
            [5, 5],
            ANNOTATION
            + "field 'segmentations', frame 2: uncompressed RLE covers 10 pixels, the frame has 161",
        ),
        (
            ["annotations", 0, "segmentations", 1],
            [[1, 2, 3]],
            ANNOTATION + "field 'segmentations', frame 1: a polygon needs at least three points",
        ),
        (
            ["annotations", 0, "segmentations", 1],
            1.5,
            ANNOTATION + "field 'segmentations', frame 1: a segmentation is",
        ),
    ],
)
def test_a_broken_entry_is_named(content, write, keys, value, message):
    with pytest.raises(DataError, match=message) as error:
        YTVIS.load(*write(at(content, keys, value)))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not json"),
        ("[]", "found a list, expected an object"),
        ('{"videos": ' + "[" * 100_000, "is not json: its lists and objects are nested too deeply"),
    ],
)
def test_a_file_that_is_no_data_set(write, text, message):
    with pytest.raises(DataError, match=message):
        YTVIS.load(*write(text))


def test_missing_file_and_folder(content, write, tmp_path):
    path, _ = write(content)
    with pytest.raises(FileNotFoundError, match=r"annotation file .*nowhere.json does not exist"):
        YTVIS.load(tmp_path / "nowhere.json", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"image folder .*nowhere does not exist"):
        YTVIS.load(path, tmp_path / "nowhere")


def test_bad_images(content, write):
    path, images = write(content)
    data = YTVIS.load(path, images)
    video = data.videos[0]
    with pytest.raises(FileNotFoundError, match=r"0.png \(video 11, frame 0\) does not exist"):
        data.read_frame(video, 0)
    Image.new("RGB", (HEIGHT, WIDTH)).save(images / "a" / "0.png")
    with pytest.raises(DataError, match=r"\(video 11, frame 0\) is 7x23 pixels, train.json says 23x7"):
        data.read_frame(video, 0)
    (images / "a" / "1.png").write_text("not an image")
    with pytest.raises(DataError, match=r"1.png \(video 11, frame 1\) is not an image"):
        data.read_frame(video, 1)
    whole = images / "a" / "2.png"
    noise = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    for suffix in ("png", "jpeg"):
        Image.fromarray(noise).save(whole, format=suffix)
        whole.write_bytes(whole.read_bytes()[:-80])
        with pytest.raises(DataError, match=r"2.png \(video 11, frame 2\) cannot be decoded"):
            data.read_frame(video, 2)


@pytest.mark.parametrize(
    ("counts", "found"),
    [
        (compressed(BOX[:, :-1])["counts"], "cover 154 pixels"),
        ("1", "cover 1 pixels"),
        ("PPPPPPPP", "are not a compressed RLE"),
        ("", "are not a compressed RLE"),
    ],
)
@pytest.mark.parametrize("areas", [[18, None, 18], None])
def test_counts_that_do_not_cover_the_frame_are_named(content, write, counts, found, areas):
    entry = content["annotations"][0]
    entry["areas"] = areas
    entry["segmentations"] = [compressed(BOX), None, compressed(BOX) | {"counts": counts}]
    message = ANNOTATION + f"field 'segmentations', frame 2: the counts {found}, expected 161 pixels$"
    with pytest.raises(DataError, match=message) as error:
        YTVIS.load(*write(content))
    assert "train.json" in str(error.value)


def test_ovis_files_are_read_as_published(content, write):
    """Occlusion with nulls, wholly null, or missing; fields that this reader does not know."""
    content["videos"][0] |= {"ori_id": "2592056", "license": 1, "flickr_url": "", "coco_url": ""}
    content |= {"info": {"version": "1.0"}, "licenses": [{}]}
    first, second = content["annotations"]
    first |= {"ori_id": 3, "is_crowd": None, "length": 3}
    second["occlusion"] = [None, None, None]
    third = first | {"id": 2, "occlusion": None}
    del (fourth := first | {"id": 3})["occlusion"]
    content["annotations"] += [third, fourth]
    found = [a.occlusion for a in YTVIS.load(*write(content)).videos[0].annotations]
    assert found == [("no_occlusion", None, "severe_occlusion"), (None, None, None), None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {
                "videos": [{"id": 1, "name": "a"}],
                "images": [{"id": 1, "video_id": 1, "file_name": "a/0.jpg"}],
            },
            r"train.json is a COCO video file \(frames listed in 'images'.*'vistk data convert coco-video'",
        ),
        (
            {"images": [{"id": 1, "file_name": "0.jpg"}], "videos": None},
            r"is a COCO file of stills \(no 'videos'",
        ),
    ],
)
def test_other_forms_are_named(content, write, change, message):
    with pytest.raises(DataError, match=message):
        YTVIS.load(*write({k: v for k, v in (content | change).items() if v is not None}))


def test_a_list_of_images_beside_videos_is_ignored(content, write):
    assert len(YTVIS.load(*write(content | {"images": [{"id": 1}]})).videos) == 2
