"""The local validation split: by hand on few videos, by its promises on many."""

import dataclasses
import hashlib

import numpy as np
import pytest

from vistk.data.categories import OVIS, YTVIS2019
from vistk.data.holdout import ClassShare, count_classes, describe, digest, split_videos, video_name
from vistk.data.ytvis import YTVIS, DataError
from vistk.structures import InstanceAnnotation, VideoRecord


def make(videos, categories=None):
    """A data set from ``{name: category ids}``; a negative id is a crowd of that class."""
    records, number = [], 0
    for i, (name, ids) in enumerate(videos.items()):
        annotations = []
        for category in ids:
            annotations.append(InstanceAnnotation(number, abs(category), category < 0, (None,), (None,)))
            number += 1
        records.append(VideoRecord(i, (f"{name}/00000.jpg",), 7, 23, tuple(annotations)))
    categories = categories or dict.fromkeys(sorted({abs(c) for ids in videos.values() for c in ids}), "x")
    return YTVIS("train.json", "images", tuple(records), categories, True)


def names(source):
    return [video_name(video) for video in source.videos]


def by_digest(found):
    return sorted(found, key=lambda name: hashlib.sha256(name.encode()).hexdigest())


def test_the_lowest_digests_are_held_out():
    # sha256: d 18ac.., b 3e23.., c 2e7d.., e 3f79.., f 252f.., a ca97..
    assert by_digest("abcdef") == ["d", "f", "c", "b", "e", "a"]
    train, held_out = split_videos(make({name: [1] for name in "abcdef"}), 1 / 3)
    assert names(held_out) == ["d", "f"]
    assert names(train) == ["a", "b", "c", "e"]


def test_the_rarest_class_comes_first_and_counts_for_the_next():
    # Class 2 (a, e): one of two, the lower digest, e. Class 1 (all): two of six, so e and one more of
    # those that are not settled: d. f, lower than e, is not needed any more.
    videos = {name: [1] for name in "abcdef"} | {"a": [1, 2], "e": [2, 1]}
    assert names(split_videos(make(videos), 1 / 3)[1]) == ["d", "e"]


def test_at_least_one_on_each_side_and_halves_up():
    for n, share, expected in [(2, 0.01, 1), (2, 0.99, 1), (3, 0.5, 2), (10, 0.15, 2), (10, 0.14, 1)]:
        train, held_out = split_videos(make({f"v{i}": [5] for i in range(n)}), share)
        assert (len(train.videos), len(held_out.videos)) == (n - expected, expected)


def test_a_class_of_one_video_stays_in_training():
    videos = {"d": [1, 2], "f": [1], "c": [1]}  # d has the lowest digest, but is all that class 2 has
    assert names(split_videos(make(videos), 1 / 3)[1]) == ["f"]


def test_a_class_that_others_left_without_is_given_one():
    # Class 3 (d, f) holds out d. Class 4 (f, c): f is settled as training, so c. Class 5 (f, a): likewise a.
    # Class 6 (b, e, c): c is enough.
    videos = {"d": [3], "f": [3, 4, 5], "c": [4, 6], "a": [5], "b": [6], "e": [6]}
    assert names(split_videos(make(videos), 0.2)[1]) == ["d", "c", "a"]
    # Class 3 (d, f) holds out d, class 4 (c, b) c, so that all of class 5 (f, b) is settled. Class 3 needs
    # f and class 4 needs b in training: nothing can be moved.
    videos = {"d": [3], "f": [3, 5], "c": [4], "b": [4, 5]}
    train, held_out = split_videos(make(videos), 0.2)
    assert names(held_out) == ["d", "c"]
    # Class 4 (c, b, a) holds out c; all of class 5 (f, b, a) is settled. Class 3 needs f, so b is moved.
    train, held_out = split_videos(make(videos | {"b": [4, 5], "a": [4, 5]}), 0.2)
    assert names(held_out) == ["d", "c", "b"]
    assert count_classes(train, held_out)[5] == ClassShare(2, 2, 1, 1)


def test_crowds_count_for_no_class_and_videos_without_instances_are_a_class():
    videos = {"d": [-1], "f": [], "c": [1], "b": [1]}
    assert names(split_videos(make(videos), 0.5)[1]) == ["d", "c"]


def test_names():
    def name(*file_names):
        return video_name(VideoRecord(1, file_names, 7, 23))

    assert name("0043f083b5/00000.jpg", "other/1.jpg") == "0043f083b5"
    assert name("MOT17-02/img1/000001.jpg") == "MOT17-02/img1"
    assert name("./a/0.jpg") == "a"
    assert name("clip_00000.jpg") == "clip_00000.jpg"


def test_videos_of_one_folder_stay_together_and_empty_videos_in_training():
    source = make({f"v{i}": [1] for i in range(7)})
    again = [dataclasses.replace(v, video_id=v.video_id + 100) for v in source.videos]
    empty = VideoRecord(83, (), 7, 23)
    source = dataclasses.replace(source, videos=(*source.videos, empty, *again))
    train, held_out = split_videos(source, 0.3)
    assert len(held_out.videos) == 4  # two names
    assert not set(names(held_out)) & {video_name(v) for v in train.videos if len(v)}
    assert empty in train.videos


def large(categories, videos, per_video, seed=0):
    """Classes of very different frequency, several a video."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(categories) + 1) ** 0.8
    ids = rng.permutation(list(categories))
    counts = 1 + rng.poisson(per_video - 1, videos)
    content = {
        hashlib.sha1(f"{seed}/{i}".encode()).hexdigest()[:10]: [
            int(c) for c in rng.choice(ids, counts[i], p=weights / weights.sum())
        ]
        for i in range(videos)
    }
    return make(content, categories)


@pytest.mark.parametrize(
    ("categories", "videos", "per_video"), [(YTVIS2019, 2238, 1.7), (OVIS, 607, 5.8), (OVIS, 83, 3)]
)
def test_promises_at_real_sizes(categories, videos, per_video):
    source = large(categories, videos, per_video)
    share = 0.15
    train, held_out = split_videos(source, share)
    order = {video.video_id: i for i, video in enumerate(source.videos)}
    for side in (train, held_out):
        places = [order[video.video_id] for video in side.videos]
        assert places == sorted(places)
    assert len(train.videos) + len(held_out.videos) == videos
    assert not set(names(train)) & set(names(held_out))
    assert len(held_out.videos) == pytest.approx(share * videos, rel=0.2 if videos > 100 else 0.5)
    for count in count_classes(train, held_out).values():
        n = count.train_videos + count.held_out_videos
        if n >= 2:
            assert count.train_videos >= 1
            assert count.held_out_videos >= 1
        assert abs(count.held_out_videos - share * n) <= max(3, 0.06 * n)


def test_neither_order_nor_ids_matter():
    source = large(OVIS, 101, 3)
    held_out = split_videos(source, 0.2)[1]
    shuffled = [source.videos[i] for i in np.random.default_rng(1).permutation(101)]
    renumbered = tuple(
        dataclasses.replace(v, video_id=1000 - i, annotations=v.annotations[::-1])
        for i, v in enumerate(shuffled)
    )
    other = split_videos(dataclasses.replace(source, videos=renumbered), 0.2)[1]
    assert set(names(other)) == set(names(held_out))
    assert digest(other) == digest(held_out)


def test_more_videos_of_one_class_hardly_change_the_others():
    source = make({f"{k}-{i}": [k] for k in (1, 2, 3) for i in range(20 + k)})
    more = make({name: [int(name[0])] for name in names(source)} | {f"new-{i}": [2] for i in range(50)})
    before = {name for name in names(split_videos(source, 0.2)[1]) if not name.startswith("2-")}
    after = {name for name in names(split_videos(more, 0.2)[1]) if name[:2] in ("1-", "3-")}
    assert before == after


def test_one_line_for_the_card():
    train, held_out = split_videos(
        make({name: [1] for name in "abcdef"} | {"x": [4, 4, -4]}, {1: "a", 4: "b"}), 1 / 3
    )
    assert count_classes(train, held_out) == {1: ClassShare(4, 4, 2, 2), 4: ClassShare(1, 2, 0, 0)}
    expected = hashlib.sha256(b"d\nf").hexdigest()[:12]
    assert describe(train, held_out, 1 / 3) == (
        "local split: 0.333333 of 7 training videos held out by name hash (2 videos, 1 of 2 classes), "
        f"digest {expected}"
    )


def test_what_cannot_be_split():
    with pytest.raises(ValueError, match="share is 1, expected a number between 0 and 1"):
        split_videos(make({"a": [1], "b": [1]}), 1)
    with pytest.raises(
        DataError, match=r"train.json has no class that occurs in two of its 2 videos, so none"
    ):
        split_videos(make({"a": [1], "b": [2]}), 0.5)
    with pytest.raises(DataError, match=r"train.json has no class that occurs in two of its 0 videos"):
        split_videos(make({}), 0.5)
    with pytest.raises(DataError, match=r"train.json has no annotations"):
        split_videos(dataclasses.replace(make({"a": [1], "b": [1]}), has_annotations=False), 0.5)
