"""The cache of queries: what comes back, what is refused, what happens when somebody pulls the plug."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from stub_segmenter import StubSegmenter, random_stub
from torch import nn

from vistk.engine import cache as cache_module
from vistk.engine.cache import CacheConfig, QueryCache, identity_of
from vistk.engine.describers import describer_part, state_hash
from vistk.engine.shards import CacheError
from vistk.engine.windows import segment_windows
from vistk.models.segmenter import Segmenter, TinySegmenterConfig
from vistk.schema import ConfigError
from vistk.structures import VideoRecord
from vistk.trackers.identity import Identity
from vistk.trackers.minvis import MinVIS

CPU = torch.device("cpu")
OUTPUT = (23, 31)
DATA = {"data": "0123456789ab", "test size": [20, None]}


class Heads(Identity):
    """A tracker that describes with weights of its own."""

    def __init__(self, weight: float = 2.0) -> None:
        super().__init__(Identity.Config(), embed_dim=8, feature_channels={}, num_classes=3)
        self.weight = nn.Parameter(torch.tensor(weight))

    def describe(self, out):
        queries = super().describe(out)
        return replace(queries, vectors={"appearance": self.weight * out.embeds, **queries.vectors})


class Features(Identity):
    """A tracker that wants mask features."""

    def describe(self, out):
        return replace(super().describe(out), mask_features=out.mask_features + 0.1)


def build(cls):
    return cls(cls.Config(), embed_dim=8, feature_channels={}, num_classes=3).eval()


class Bench:
    """Videos of a stub segmenter, and caches of them."""

    def __init__(self, root) -> None:
        self.root = root / "cache"
        self.stubs = {1: random_stub(7), 12: random_stub(1), 5: random_stub(23)}
        self.videos = [
            VideoRecord(number, tuple(f"{number}/{t}.jpg" for t in range(len(stub.logits))), *OUTPUT)
            for number, stub in self.stubs.items()
        ]
        self.trackers = {"minvis": build(MinVIS), "heads": Heads(), "identity": build(Identity)}
        self.weights: nn.Module = nn.Linear(2, 3)
        self.said: list[str] = []

    def open(self, mode: str = "auto", trackers=None, **options) -> QueryCache:
        config = CacheConfig(**({"dir": str(self.root)} | options))
        chosen = self.trackers if trackers is None else trackers
        return QueryCache(config, mode, self.weights, chosen, self.videos, DATA, self.said.append)

    def live(self, video, trackers=None, window=4):
        stub = self.stubs[video.video_id]
        chosen = self.trackers if trackers is None else trackers
        return segment_windows(stub, chosen, stub.frames(), OUTPUT, window, CPU)

    def frames(self, cache, video, trackers=None):
        chosen = self.trackers if trackers is None else trackers
        windows = cache.windows(video, chosen, lambda wanted: self.live(video, wanted))
        return [(frame, window.size) for window in windows for frame in window.frames]

    def fill(self, cache) -> None:
        for video in self.videos:
            self.frames(cache, video)

    def passes(self) -> list[int]:
        return [len(stub.passes) for stub in self.stubs.values()]


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def assert_same(found, live, bits=True):
    assert len(found) == len(live)
    for (frame, size), (expected, expected_size) in zip(found, live, strict=True):
        assert size == expected_size
        assert frame.keys() == expected.keys()
        for name, queries in expected.items():
            tensors = {"logits": queries.logits, **queries.vectors}
            read = {"logits": frame[name].logits, **frame[name].vectors}
            assert read.keys() == tensors.keys()
            for key, value in tensors.items():
                assert read[key].dtype == torch.float32
                wanted = value if bits else value.half().float()
                assert torch.equal(read[key], wanted)
            assert frame[name].masks.rles == queries.masks.rles
            assert torch.equal(frame[name].masks.probability_sum, queries.masks.probability_sum)
            assert torch.equal(frame[name].masks.area, queries.masks.area)


@pytest.mark.parametrize("masks", ["rle", "logits"])
@pytest.mark.parametrize("mode", ["write", "auto"])
def test_what_is_read_is_what_was_segmented(bench, mode, masks):
    expected = {
        v.video_id: [(frame, part.size) for part in bench.live(v) for frame in part.frames]
        for v in bench.videos
    }
    cache = bench.open(mode, masks=masks)
    assert len(cache.lacking()) == 3
    for video in bench.videos:
        assert_same(bench.frames(cache, video), expected[video.video_id])
    assert (cache.read, cache.stored, cache.last, cache.lacking()) == (0, 3, "stored", [])
    before = bench.passes()
    for again in ("read", mode):
        cache = bench.open(again, masks=masks)
        for video in bench.videos:
            assert_same(bench.frames(cache, video), expected[video.video_id])
        assert (cache.read, cache.stored, cache.last) == (3, 0, "read")
    assert bench.passes() == before
    assert bench.said == []
    assert cache.num_bytes() == sum(path.stat().st_size for path in bench.root.rglob("*.safetensors"))


def test_parts_are_shared_and_read_one_by_one(bench):
    cache = bench.open()
    bench.fill(cache)
    heads = describer_part(bench.trackers["heads"])
    assert heads.startswith("heads-")
    assert cache.parts == ["masks", "query", heads]  # minvis and identity share one
    assert sorted(path.name for path in cache.folder.iterdir()) == sorted(["about.json", *cache.parts])
    shutil.rmtree(cache.folder / heads)
    only = {"minvis": bench.trackers["minvis"]}
    reading = bench.open("read", only)
    assert reading.folder == cache.folder
    (frame, _), *_ = bench.frames(reading, bench.videos[0], only)
    assert set(frame) == {"minvis"}


def test_other_heads_on_the_same_segmenter_add_a_part(bench):
    bench.fill(bench.open())
    masks = bench.open().folder / "masks" / "000001.safetensors"
    before = masks.stat().st_mtime_ns
    bench.trackers["heads"] = Heads(3.0)
    with pytest.raises(CacheError, match=r"has the parts heads-\w+, masks, query and not heads-\w+"):
        bench.open("read")
    cache = bench.open()
    bench.fill(cache)
    assert cache.stored == 3
    assert masks.stat().st_mtime_ns == before
    (frame, _), *_ = bench.frames(bench.open("read"), bench.videos[0])
    assert torch.equal(frame["heads"].vectors["appearance"], 3 * frame["heads"].vectors["query"])


def test_wrong_weights_are_refused(bench):
    bench.fill(bench.open())
    folder = bench.open().folder
    right = state_hash(bench.weights)
    bench.weights = nn.Linear(2, 3)
    with pytest.raises(CacheError) as caught:
        bench.open("read")
    assert str(caught.value) == (
        f"cache=read, but the nearest queries, {folder}, are of another kind: weights of the segmenter "
        f"({right} there, {state_hash(bench.weights)} here); cache=auto segments and stores the videos"
    )
    # not even under their name
    other = bench.open()
    shutil.copytree(folder, other.folder)
    with pytest.raises(CacheError, match=rf'key is "{folder.name}", expected "{other.folder.name}"'):
        bench.frames(bench.open("read"), bench.videos[0])


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"masks": "logits"}])
def test_another_form_is_another_cache(bench, options):
    bench.fill(bench.open())
    ((name, value),) = options.items()
    with pytest.raises(CacheError, match=rf"cache\.{name} \(.* there, {value} here\)"):
        bench.open("read", **options)


def test_an_empty_folder(bench):
    with pytest.raises(CacheError, match=r"cache=read, but .*cache holds no queries; cache=auto"):
        bench.open("read")
    (bench.root / "elsewhere").mkdir(parents=True)
    for text in ("no json", "[]"):
        (bench.root / "elsewhere" / "about.json").write_text(text)
        with pytest.raises(CacheError, match="holds no queries"):
            bench.open("read")


def test_a_video_that_is_not_there(bench):
    cache = bench.open()
    for video in bench.videos[:2]:
        bench.frames(cache, video)
    with pytest.raises(CacheError, match="lacks 1 of 3 videos, the first of them 5; cache=auto"):
        bench.open("read")


def test_other_frames_under_the_same_number(bench):
    cache = bench.open()
    bench.fill(cache)
    video = bench.videos[0]
    renamed = replace(video, file_names=("other.jpg", *video.file_names[1:]))
    with pytest.raises(CacheError, match=r"video is .*, expected .*; cache=auto segments video 1 again"):
        bench.frames(bench.open("read"), renamed)


def test_an_interrupted_write_is_resumed(bench):
    class Unplugged(BaseException):
        pass

    def interrupted(wanted):
        for number, window in enumerate(bench.live(bench.videos[2], wanted)):
            if number == 2:
                raise Unplugged
            yield window

    cache = bench.open()
    bench.frames(cache, bench.videos[0])
    with pytest.raises(Unplugged):
        list(cache.windows(bench.videos[2], bench.trackers, interrupted))
    resumed = bench.open()
    assert [video.video_id for video in resumed.lacking()] == [12, 5]
    before = bench.passes()
    bench.fill(resumed)
    assert (resumed.read, resumed.stored) == (1, 2)
    assert [after - then for after, then in zip(bench.passes(), before, strict=True)] == [0, 1, 6]


def test_parts_of_a_video_that_were_written_before_the_plug_was_pulled(bench, monkeypatch):
    write = cache_module.write_shard
    written = []

    def one_only(path, tensors, facts):
        if written:
            raise KeyboardInterrupt
        written.append(path)
        write(path, tensors, facts)

    monkeypatch.setattr(cache_module, "write_shard", one_only)
    with pytest.raises(KeyboardInterrupt):
        bench.frames(bench.open(), bench.videos[0])
    monkeypatch.undo()
    live = [(frame, part.size) for part in bench.live(bench.videos[0]) for frame in part.frames]
    before = written[0].stat().st_mtime_ns
    assert_same(bench.frames(bench.open(), bench.videos[0]), live)
    assert written[0].stat().st_mtime_ns == before
    assert not list(bench.root.rglob("*.tmp"))


@pytest.mark.parametrize("part", ["masks", "query"])
@pytest.mark.parametrize("truncated", [True, False])
def test_a_damaged_file(bench, part, truncated):
    bench.fill(bench.open())
    path = bench.open().folder / part / "000005.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content[: -100 if truncated else None])
    said = r"000005\.safetensors is (damaged: its checksum|no complete file)"
    with pytest.raises(CacheError, match=said + ".*; cache=auto segments video 5 again"):
        bench.frames(bench.open("read"), bench.videos[2])
    live = [(frame, window.size) for window in bench.live(bench.videos[2]) for frame in window.frames]
    assert_same(bench.frames(bench.open(), bench.videos[2]), live)
    (sentence,) = bench.said
    assert sentence.endswith("; video 5 is segmented again")
    assert_same(bench.frames(bench.open("read"), bench.videos[2]), live)  # it was mended


def test_float16_is_what_is_tracked_the_first_time_too(bench):
    live = [(frame, window.size) for window in bench.live(bench.videos[0]) for frame in window.frames]
    first = bench.frames(bench.open(dtype="float16"), bench.videos[0])
    assert_same(first, live, bits=False)
    assert_same(bench.frames(bench.open("auto", dtype="float16"), bench.videos[0]), live, bits=False)


def test_numbers_that_float16_does_not_hold(bench):
    stub = bench.stubs[1]
    bench.stubs[1] = StubSegmenter(stub.logits, stub.mask_logits, 1e6 * stub.embeds)
    with pytest.raises(CacheError, match=r"vectors of up to .*e\+06 do not fit into float16; say"):
        bench.frames(bench.open("write", dtype="float16"), bench.videos[0])


def test_a_budget_is_looked_at_before_the_first_video_is_written(bench):
    stub = bench.stubs[1]
    with pytest.raises(CacheError) as caught:
        bench.frames(bench.open("write", max_gb=3e-5), bench.videos[0])
    assert "cache.max_gb=3e-05" in str(caught.value)
    assert "cache.dtype=float16" in str(caught.value)
    assert not list(bench.root.rglob("*.safetensors"))
    cache = bench.open("auto", max_gb=3e-5)
    live = [(frame, window.size) for window in bench.live(bench.videos[0]) for frame in window.frames]
    for _ in range(2):
        assert_same(bench.frames(cache, bench.videos[0]), live)
    assert (len(bench.said), cache.last, cache.stored) == (1, "live", 0)
    assert bench.said[0].endswith("; what the cache lacks is segmented, and not stored")
    assert len(stub.passes) > 2
    assert not list(bench.root.rglob("*.safetensors"))


def test_the_estimate_of_a_budget(bench):
    cache = bench.open("write", max_gb=1e-9)
    with pytest.raises(CacheError) as caught:
        bench.frames(cache, bench.videos[0])
    said = float(str(caught.value).split("about ")[1].split(" GB")[0]) * 1e9
    bench.fill(bench.open("write"))
    payload = cache.num_bytes() - 3 * 3 * 600  # the headers
    assert said == pytest.approx(payload, rel=0.2)


def test_mask_features_are_stored_when_asked_for(bench):
    trackers = {"minvis": bench.trackers["minvis"], "anew": build(Features)}
    with pytest.raises(CacheError, match=r"row anew .* only with cache\.mask_features=true"):
        bench.frames(bench.open("write", trackers), bench.videos[0], trackers)
    cache = bench.open("write", trackers, mask_features=True)
    found = bench.frames(cache, bench.videos[0], trackers)
    assert all(torch.equal(f["anew"].mask_features, torch.full((2, 5, 7), 0.1)) for f, _ in found)
    assert all(f["minvis"].mask_features is None for f, _ in found)
    # reading takes what is there
    bench.frames(bench.open("auto", trackers), bench.videos[0], trackers)
    assert cache.folder == bench.open("auto", trackers).folder


def test_two_runs_write_at_the_same_time(bench):
    caches = [bench.open(), bench.open()]

    def work(number):
        for video in bench.videos:
            bench.frames(caches[number], video)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1)))
    assert bench.open("read").lacking() == []
    live = [(frame, window.size) for window in bench.live(bench.videos[2]) for frame in window.frames]
    assert_same(bench.frames(bench.open("read"), bench.videos[2]), live)
    assert not list(bench.root.rglob("*.tmp"))


def test_a_video_without_frames(bench):
    bench.videos.append(VideoRecord(99, (), *OUTPUT))
    bench.fill(bench.open())
    assert bench.frames(bench.open("read"), bench.videos[-1]) == []


def test_the_key_stands_for_all_that_decides():
    config = CacheConfig()
    torch.manual_seed(0)
    segmenter = Segmenter(TinySegmenterConfig(), 4)
    plain = identity_of(segmenter, config, DATA)
    assert json.loads(json.dumps(plain)) == plain
    assert plain == identity_of(segmenter, CacheConfig(dir="elsewhere", max_gb=1), DATA)
    segmenter.config = replace(segmenter.config, points=3, backbone_pretrained=True)
    other = identity_of(segmenter, config, {**DATA, "data": "ba"})
    segmenter.pixel_decoder.requires_grad_(False)
    with torch.no_grad():
        next(segmenter.parameters()).view(-1)[0] += 1e-3
    moved = identity_of(segmenter, config, {**DATA, "data": "ba"})
    assert {k for k in plain if plain[k] != other[k]} == {"segmenter.points", "data"}
    assert {k for k in plain if other[k] != moved[k]} == {"weights of the segmenter"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"dtype": "float8"}, r"cache: dtype is 'float8', expected one of float32, float16; nearest is"),
        ({"masks": "png"}, r"cache: masks is 'png', expected one of rle, logits"),
        ({"max_gb": 0.0}, r"cache.max_gb is 0.0, expected more than 0"),
        ({"max_gb": float("nan")}, r"cache.max_gb is nan"),
    ],
)
def test_configurations_that_are_none(values, said):
    with pytest.raises(ConfigError, match=said):
        CacheConfig(**values)
