"""Folders as they are published, and what is said where none fits; the names of the classes."""

import dataclasses

import pytest

from vistk.data.categories import OVIS, TABLES, YTVIS2019, YTVIS2021
from vistk.data.category_check import check_categories
from vistk.data.layouts import find_split
from vistk.data.ytvis import YTVIS, DataError


def tree(root, *files):
    """Empty files; a name that ends in a slash is a folder."""
    for name in files:
        path = root / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.write_text("{}")


LAYOUTS = {
    "YouTube-VIS 2019": ("ytvis2019", "valid.json", "valid/JPEGImages", "valid"),
    "YouTube-VIS 2021": ("ytvis2021", "valid/instances.json", "valid/JPEGImages", "valid"),
    "OVIS": ("ovis", "annotations_valid.json", "valid", "valid"),
    "Mask2Former": ("ytvis2019", "ytvis_2019/valid.json", "ytvis_2019/valid/JPEGImages", "valid"),
    "MinVIS 2021": ("ytvis2021", "ytvis_2021/valid.json", "ytvis_2021/valid/JPEGImages", "valid"),
    "CTVIS 2022": ("ytvis2022", "ytvis_2022/valid.json", "ytvis_2022/valid/JPEGImages", "valid"),
    "VITA OVIS": ("ovis", "ovis/annotations/annotations_valid.json", "ovis/valid", "valid"),
    "MinVIS OVIS": ("ovis", "ovis/annotations/valid.json", "ovis/valid", "valid"),
    "OVIS in a folder of data sets": ("ovis", "OVIS/annotations_valid.json", "OVIS/valid", "valid"),
    "MMTracking": (
        "ytvis2019",
        "annotations/youtube_vis_2019_valid.json",
        "valid/JPEGImages",
        "valid",
    ),
    "MMTracking's data folder": (
        "ytvis2021",
        "youtube_vis_2021/annotations/youtube_vis_2021_valid.json",
        "youtube_vis_2021/valid/JPEGImages",
        "valid",
    ),
    "MMTracking, name not said": ("", "annotations/youtube_vis_2021_train.json", "train/JPEGImages", "train"),
    "val for valid": ("ytvis2019", "val.json", "val/JPEGImages", "valid"),
    "val images only": ("ytvis2019", "valid.json", "val/JPEGImages", "valid"),
    "valid for val": ("ovis", "ovis/annotations_valid.json", "ovis/valid", "val"),
    "shared images": ("my-own", "annotations/23.json", "JPEGImages", "23"),
    "full rate, by its name": (
        "ytvis2019",
        "valid_all_frames.json",
        "valid_all_frames/JPEGImages",
        "valid_all_frames",
    ),
}


@pytest.mark.parametrize(("name", "json_name", "images", "split"), LAYOUTS.values(), ids=LAYOUTS)
def test_published_layouts(tmp_path, name, json_name, images, split):
    tree(tmp_path, json_name, f"{images}/0043f083b5/00000.jpg", "valid_all_frames/JPEGImages/x/00000.jpg")
    assert find_split(tmp_path, split, name) == (tmp_path / json_name, tmp_path / images)


def test_palette_annotations_are_not_images(tmp_path):
    tree(tmp_path, "train.json", "train/Annotations/0043f083b5/00000.png")
    with pytest.raises(FileNotFoundError, match=r"no images of split 'train' beside .*train.json: looked in"):
        find_split(tmp_path, "train", "ytvis2019")
    tree(tmp_path, "train/JPEGImages/")
    with pytest.raises(FileNotFoundError, match=r"no images of split 'train'"):  # an empty folder
        find_split(tmp_path, "train", "ytvis2019")
    tree(tmp_path, "train/JPEGImages/0043f083b5/00000.jpg")
    assert find_split(tmp_path, "train", "ytvis2019")[1] == tmp_path / "train" / "JPEGImages"


def test_the_first_of_the_documented_order_wins(tmp_path):
    names = [
        "valid.json",
        "valid/instances.json",
        "annotations_valid.json",
        "annotations/valid.json",
        "annotations/annotations_valid.json",
        "annotations/youtube_vis_2019_valid.json",
        "val.json",
        "ytvis_2019/valid.json",
    ]
    tree(tmp_path, "valid/JPEGImages/v/0.jpg", "ytvis_2019/valid/JPEGImages/v/0.jpg", *names)
    for name in names:
        assert find_split(tmp_path, "valid", "ytvis2019")[0] == tmp_path / name
        (tmp_path / name).unlink()


def test_sub_folders_are_those_of_the_data_set(tmp_path):
    for folder in ("ytvis_2019", "ytvis_2021"):
        tree(tmp_path, f"{folder}/train.json", f"{folder}/train/JPEGImages/v/0.jpg")
    assert find_split(tmp_path, "train", "ytvis2021")[0] == tmp_path / "ytvis_2021" / "train.json"
    message = (
        r"no annotations of split 'train': looked in \S+ for train.json, .*; \S+ has the folders "
        r"ytvis_2019 \(data=ytvis2019\), ytvis_2021 \(data=ytvis2021\)$"
    )
    with pytest.raises(FileNotFoundError, match=message):
        find_split(tmp_path, "train", "ytvis")
    with pytest.raises(FileNotFoundError, match="has the folders ytvis_2019"):
        find_split(tmp_path, "train", "ovis")


def test_says_all_that_it_looked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data folder .*nowhere does not exist"):
        find_split(tmp_path / "nowhere", "valid")
    (tmp_path / "YTVIS-2019").mkdir()
    with pytest.raises(FileNotFoundError) as error:
        find_split(tmp_path, "valid", "ytvis2019")
    assert str(error.value) == (
        f"no annotations of split 'valid': looked in {tmp_path} and {tmp_path}/YTVIS-2019 for "
        "valid.json, valid/instances.json, annotations_valid.json, annotations/valid.json, "
        "annotations/annotations_valid.json, annotations/youtube_vis_2019_valid.json, "
        "val.json, val/instances.json, annotations_val.json, annotations/val.json, "
        "annotations/annotations_val.json, annotations/youtube_vis_2019_val.json"
    )
    tree(tmp_path, "valid.json")
    with pytest.raises(FileNotFoundError) as error:
        find_split(tmp_path, "valid", "ytvis2019")
    assert str(error.value) == (
        f"no images of split 'valid' beside {tmp_path}/valid.json: looked in {tmp_path} for "
        "valid/JPEGImages, valid, val/JPEGImages, val, JPEGImages"
    )


@pytest.mark.parametrize("archive", ["valid.zip", "valid.tar.gz", "val.zip"])
def test_archives_that_were_not_unpacked(tmp_path, archive):
    tree(tmp_path, f"ytvis_2021/{archive}")
    message = f"no annotations .*; .*ytvis_2021/{archive} is there but was not unpacked$"
    with pytest.raises(FileNotFoundError, match=message):
        find_split(tmp_path, "valid", "ytvis2021")
    tree(tmp_path, "ytvis_2021/valid.json")
    with pytest.raises(FileNotFoundError, match=f"no images .*{archive} is there but was not unpacked$"):
        find_split(tmp_path, "valid", "ytvis2021")


def test_frames_at_full_rate_are_not_taken_silently(tmp_path):
    tree(tmp_path, "valid_all_frames/JPEGImages/v/0.jpg", "valid.json")
    with pytest.raises(
        FileNotFoundError, match=r"no images .*valid_all_frames holds the videos at full frame"
    ):
        find_split(tmp_path, "valid", "ytvis2019")
    (tmp_path / "valid.json").rename(tmp_path / "valid_all_frames.json")
    with pytest.raises(FileNotFoundError, match=r"no annotations .*give the split 'valid_all_frames'$"):
        find_split(tmp_path, "valid", "ytvis2019")


@pytest.fixture
def source(tmp_path):
    def with_categories(categories):
        return dataclasses.replace(EMPTY, json_path=tmp_path / "train.json", categories=dict(categories))

    return with_categories


EMPTY = YTVIS(None, None, (), {}, False)


@pytest.mark.parametrize("name", TABLES)
def test_categories_as_published(source, name):
    check_categories(source(TABLES[name]), name)
    check_categories(source({k: v.upper().replace("_", " ") for k, v in TABLES[name].items()}), name)


def said(source, categories, expected):
    with pytest.raises(DataError) as error:
        check_categories(source(categories), expected)
    text = str(error.value)
    assert text.count("\n") == 0
    assert text.startswith(str(source({}).json_path))
    return text.removeprefix(str(source({}).json_path))


def test_categories_of_another_data_set(source):
    assert said(source, YTVIS2021, "ytvis2019") == (
        " has the categories of ytvis2021 and ytvis2022 (1 = airplane, 2 = bear, 3 = bird, ..), "
        "data=ytvis2019 expects 1 = person, 2 = giant_panda, 3 = lizard, ..; "
        "say data=ytvis2021 or data=ytvis2022"
    )
    assert said(source, OVIS, "ytvis2021").endswith("; say data=ovis")
    check_categories(source(YTVIS2021), "ytvis2022")


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        (
            {k: v for k, v in YTVIS2019.items() if k not in (1, 7)},
            "2 of the 40 are missing (1 = person, 7 = ape)",
        ),
        (YTVIS2019 | {41: "whale"}, "1 are not among them (41 = whale)"),
        (
            {k - 1: v for k, v in YTVIS2019.items()},
            "40 of the 40 names have another id (0 = person, expected 1)",
        ),
        (
            YTVIS2019 | {1: "giant_panda", 2: "person"},
            "2 of the 40 names have another id (1 = giant_panda, expected 2)",
        ),
        (
            YTVIS2019 | {1: "whale"},
            "1 of the 40 are missing (1 = person), 1 are not among them (1 = whale)",
        ),
        (
            YTVIS2019 | {2: "person"},
            "1 of the 40 names have another id (2 = person, expected 1), 1 of the 40 are",
        ),
        (
            {k: v for k, v in YTVIS2021.items() if k != 40},
            "closest to those of ytvis2021",
        ),
    ],
)
def test_categories_that_differ_are_described(source, categories, message):
    text = said(source, categories, "ytvis2019")
    assert text.startswith(" has other categories than data=ytvis2019 expects: ")
    assert message in text
    assert text.endswith("; for data of your own say data=ytvis")
