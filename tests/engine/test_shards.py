"""Files of tensors: what comes back, and what is refused."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from vistk.engine import shards
from vistk.engine.shards import ShardError, read_shard, write_shard

TENSORS = {
    "half": torch.arange(6, dtype=torch.float16).view(2, 3),
    "wide": torch.tensor([[1e-300, 2.0]], dtype=torch.float64),
    "bytes": torch.tensor([0, 255], dtype=torch.uint8),
    "nothing": torch.zeros(0, 7),
}
FACTS = {"key": "ab12", "sizes": [[1, 2], [3, 4]]}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "part" / "000001.safetensors"
    write_shard(path, TENSORS, FACTS)
    return path


def test_what_was_written_is_read(path):
    tensors, facts = read_shard(path, {"key": "ab12"})
    assert facts == FACTS
    assert tensors.keys() == TENSORS.keys()
    for name, value in TENSORS.items():
        assert tensors[name].dtype == value.dtype
        assert torch.equal(tensors[name], value)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_views_are_stored_as_they_look(tmp_path):
    value = torch.arange(12.0).view(3, 4)
    write_shard(tmp_path / "a", {"x": value.T, "y": value[1:]}, {})
    read, _ = read_shard(tmp_path / "a", {})
    assert torch.equal(read["x"], value.T)
    assert torch.equal(read["y"], value[1:])


@pytest.mark.parametrize("place", ["tensor", "header", "length"])
def test_one_flipped_bit_is_noticed(path, place):
    content = bytearray(path.read_bytes())
    at = {"tensor": len(content) - 1, "header": content.index(b"ab12"), "length": 7}[place]
    content[at] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"000001\.safetensors is (damaged|no complete file)"):
        read_shard(path, {})


@pytest.mark.parametrize("kept", [0, 5, 40, -1])
def test_a_truncated_file_is_noticed(path, kept):
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ShardError, match="no complete file of queries"):
        read_shard(path, {})


def test_a_file_of_something_else(tmp_path):
    save_file({"x": torch.ones(2)}, tmp_path / "weights.safetensors")
    with pytest.raises(ShardError, match=r"damaged: its checksum is .*, expected None"):
        read_shard(tmp_path / "weights.safetensors", {})
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_shard(tmp_path / "missing.safetensors", {})


def test_a_file_that_is_not_what_it_should_be(path):
    with pytest.raises(ShardError, match=r'key is "ab12", expected "cd34"'):
        read_shard(path, {"key": "cd34"})
    with pytest.raises(ShardError, match=r'part is null, expected "masks"'):
        read_shard(path, {"part": "masks"})
    read_shard(path, {"sizes": ((1, 2), (3, 4))})  # tuples are lists in a file


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_write_leaves_the_old_file(path, monkeypatch, error):
    before = path.read_bytes()

    def interrupted(target, state, header):
        raise error

    monkeypatch.setattr(shards, "write_safetensors", interrupted)
    with pytest.raises(error):
        write_shard(path, {"half": torch.ones(1)}, FACTS)
    assert path.read_bytes() == before
