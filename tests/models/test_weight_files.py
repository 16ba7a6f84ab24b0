"""Weights from files of every kind; nothing that a file says is run."""

from __future__ import annotations

import io
import json
import os
import pickle
import warnings
from collections import OrderedDict

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vistk.models.weight_files import CheckpointError, files_of, read_state


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(3, 7, generator=generator),
        "a.bias": torch.randn(1, generator=generator).half(),
        "index": torch.arange(23),
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "empty": torch.zeros(0, 4),
        "mask": torch.tensor([True, False]),
    }


def assert_same(found, expected) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


def arrays_of(state):
    return {name: value.numpy() for name, value in state.items()}


class TestPyTorch:
    @pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
    @pytest.mark.parametrize("modern", [True, False])
    def test_plain_state_dict(self, tmp_path, state, suffix, modern):
        path = tmp_path / f"w{suffix}"
        torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=modern)
        file = read_state(path)
        assert_same(file.state, state)
        assert file.format == ("PyTorch" if modern else "PyTorch before 1.6")
        assert file.source == str(path)

    def test_training_checkpoint(self, tmp_path, state):
        module = torch.nn.Linear(3, 2)
        optimiser = torch.optim.AdamW(module.parameters())
        module(torch.ones(1, 3)).sum().backward()
        optimiser.step()
        tree = {
            "model": state,
            "optimizer": optimiser.state_dict(),
            "scheduler": {"base_lrs": [np.float64(1e-4)], "last_epoch": np.int64(7)},
            "trainer": {"iteration": 19999, "hooks": {"x": np.arange(3, dtype=np.float32)}},
            "iteration": 19999,
            "__author__": "someone",
        }
        torch.save(tree, tmp_path / "model_final.pth")
        file = read_state(tmp_path / "model_final.pth")
        assert_same(file.state, state)
        assert file.metadata == {"iteration": 19999, "__author__": "someone"}

    def test_under_state_dict(self, tmp_path, state):
        torch.save({"state_dict": state, "epoch": 3}, tmp_path / "w.pth")
        assert_same(read_state(tmp_path / "w.pth").state, state)

    def test_arrays_of_numpy(self, tmp_path, state):
        torch.save({"model": arrays_of(state)}, tmp_path / "w.pth")
        assert_same(read_state(tmp_path / "w.pth").state, state)

    def test_a_class_beside_the_weights_is_named(self, tmp_path, state):
        torch.save({"model": state, "cfg": Odd()}, tmp_path / "w.pth")
        with pytest.raises(
            CheckpointError, match=r"w\.pth: names \S*test_weight_files\.Odd, which is neither"
        ):
            read_state(tmp_path / "w.pth")

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("save", "message"),
        [
            (
                lambda p: torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), p),
                "a program of Torch",
            ),
            (
                lambda p: torch.save({"a": torch.ones(1)}, p, pickle_protocol=4),
                r"PyTorch weights \(Unsupported",
            ),
            (
                lambda p: torch.save(torch.nn.Linear(2, 3), p),
                r"names torch\.nn\.modules\.linear\.Linear, which",
            ),
        ],
    )
    def test_other_things_that_pytorch_writes(self, tmp_path, save, message):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            save(str(tmp_path / "w.pt"))
        with pytest.raises(CheckpointError, match=message) as caught:
            read_state(tmp_path / "w.pt")
        assert "weights_only" not in str(caught.value)  # no advice to load it unchecked

    @pytest.mark.parametrize("modern", [True, False])
    def test_truncated(self, tmp_path, state, modern):
        path = tmp_path / "w.pth"
        torch.save(state, path, _use_new_zipfile_serialization=modern)
        whole = path.read_bytes()
        for size in (100, len(whole) // 2, len(whole) - 7):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=r"w\.pth: not a complete file of PyTorch weights"):
                read_state(path)


class TestPickle:
    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_model_zoo(self, tmp_path, state, protocol):
        tree = {"model": arrays_of(state), "__author__": "Facebook", "matching_heuristics": True}
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(tree, protocol))
        file = read_state(tmp_path / "w.pkl")
        assert_same(file.state, state)
        assert file.format == "pickle"
        assert file.metadata == {"__author__": "Facebook", "matching_heuristics": True}

    def test_names_of_numpy_1_and_2(self, tmp_path, state):
        for core in (b"numpy.core", b"numpy._core"):
            text = pickle.dumps(arrays_of(state), 2)
            text = text.replace(b"numpy._core", b"numpy.core").replace(b"numpy.core", core)
            assert core in text
            (tmp_path / "w.pkl").write_bytes(text)
            assert_same(read_state(tmp_path / "w.pkl").state, state)

    @pytest.mark.parametrize("protocol", [2, 5])
    def test_other_memory_layouts(self, tmp_path, protocol):
        values = np.arange(21, dtype=np.float32).reshape(3, 7)
        tree = {
            "fortran": np.asfortranarray(values),
            "swapped": values.astype(">f4"),
            "strided": values[:, ::2],
            "scalar array": np.array(3.0),
        }
        (tmp_path / "w.pkl").write_bytes(pickle.dumps(tree, protocol))
        for found in (read_state(tmp_path / "w.pkl").state, read_state(tree).state):
            assert torch.equal(found["fortran"], torch.from_numpy(values))
            assert torch.equal(found["swapped"], torch.from_numpy(values))
            assert torch.equal(found["strided"], torch.from_numpy(values[:, ::2].copy()))
            assert found["scalar array"].shape == ()
            assert found["scalar array"] == 3

    def test_arrays_of_python_2(self, tmp_path):
        (tmp_path / "w.pkl").write_bytes(
            b"\x80\x02}U\x01wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
            b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02i1K\x00K\x01\x87R"
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x01\xfetbs."
        )
        assert read_state(tmp_path / "w.pkl").state["w"].tolist() == [1, -2]

    @pytest.mark.parametrize(
        ("array", "what"),
        [
            (np.array([1, "x"], dtype=object), "arrays of type 'O8'"),
            (np.zeros(2, dtype=[("x", "f4")]), "arrays of type 'V4'"),
            (np.array(["text"]), "arrays of type 'U4'"),
            (np.array([1j]), "arrays of type 'c16'"),
        ],
    )
    def test_arrays_of_other_things(self, tmp_path, array, what):
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"w": array}}, 4))
        with pytest.raises(CheckpointError, match=rf"w\.pkl: not a complete pickle \({what}"):
            read_state(tmp_path / "w.pkl")

    def test_truncated(self, tmp_path, state):
        whole = pickle.dumps({"model": arrays_of(state)})
        for size in (3, len(whole) // 2, len(whole) - 1):
            (tmp_path / "w.pkl").write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=r"w\.pkl: not a complete pickle"):
                read_state(tmp_path / "w.pkl")

    def test_too_few_numbers(self, tmp_path):
        text = pickle.dumps({"w": np.zeros(4, np.float32)}, 2).replace(b"K\x04\x85", b"K\x05\x85")
        (tmp_path / "w.pkl").write_bytes(text)
        with pytest.raises(CheckpointError, match=r"not a complete pickle \(cannot reshape"):
            read_state(tmp_path / "w.pkl")


class Odd:
    """A class that is no tensor."""


class Evil:
    """What an attacker would pickle."""

    def __init__(self, flag) -> None:
        self.flag = flag

    def __reduce__(self):
        return os.system, (f"touch {self.flag}",)


class TestNothingRuns:
    @pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
    def test_in_a_pickle(self, tmp_path, state, protocol):
        flag = tmp_path / "flag"
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": arrays_of(state), "x": Evil(flag)}, protocol))
        with pytest.raises(CheckpointError) as caught:
            read_state(tmp_path / "w.pkl")
        assert not flag.exists()
        assert "w.pkl" in str(caught.value)
        if protocol > 1:  # the text protocols are of no format that is read
            assert "names posix.system, which is neither a number nor an array" in str(caught.value)

    @pytest.mark.parametrize("modern", [True, False])
    def test_in_a_file_of_pytorch(self, tmp_path, state, modern):
        flag = tmp_path / "flag"
        torch.save(
            {"model": state, "x": Evil(flag)}, tmp_path / "w.pth", _use_new_zipfile_serialization=modern
        )
        with pytest.raises(CheckpointError, match=r"w\.pth: .*posix"):
            read_state(tmp_path / "w.pth")
        assert not flag.exists()

    def test_in_a_pickled_tensor(self, tmp_path):
        """Plain pickles of tensors hold files of PyTorch, loaded without any check: refused as a whole."""
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"model": {"w": torch.ones(3)}}))
        with pytest.raises(CheckpointError, match=r"names torch\.\S+, which is neither"):
            read_state(tmp_path / "w.pkl")

    def test_globals_that_reach_further(self, tmp_path):
        """Attributes of admitted names are refused like everything else."""
        for name in (
            b"numpy\nload",
            b"builtins\neval",
            b"numpy.core.multiarray\nfromfile",
            b"_codecs\nlookup",
        ):
            (tmp_path / "w.pkl").write_bytes(b"\x80\x02c" + name + b"\n.")
            with pytest.raises(CheckpointError, match=r"names .*, which is neither"):
                read_state(tmp_path / "w.pkl")

    def test_the_next_file_is_read_as_before(self, tmp_path, state):
        good = pickle.dumps({"model": arrays_of(state)}, 2)
        # BUILD on the stand-in for _reconstruct: sets attributes of the function
        bad = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\n}X\x08\x00\x00\x00__name__X\x01\x00\x00\x00xsb."
        (tmp_path / "bad.pkl").write_bytes(bad)
        (tmp_path / "good.pkl").write_bytes(good)
        with pytest.raises(CheckpointError):
            read_state(tmp_path / "bad.pkl")
        assert_same(read_state(tmp_path / "good.pkl").state, state)


class TestSafetensors:
    def test_one_file(self, tmp_path, state):
        save_file(state, tmp_path / "w.safetensors", metadata={"format": "pt", "words": '["a=1"]'})
        file = read_state(tmp_path / "w.safetensors")
        assert_same(file.state, state)
        assert file.metadata == {"format": "pt", "words": ["a=1"]}
        assert file.format == "safetensors"

    def test_by_content_not_by_name(self, tmp_path, state):
        save_file(state, tmp_path / "w.pth")
        assert_same(read_state(str(tmp_path / "w.pth")).state, state)

    def test_a_header_whose_length_begins_as_a_pickle(self, tmp_path):
        """The header is padded to a multiple of eight bytes: 128 or 640 of them start with 0x80."""
        for padding in range(0, 400, 4):
            save_file({"w": torch.ones(2)}, tmp_path / "w.bin", metadata={"words": "x" * padding})
            if (tmp_path / "w.bin").read_bytes()[0] == 0x80:
                assert read_state(tmp_path / "w.bin").state["w"].tolist() == [1, 1]
                return
        raise AssertionError("no header began with 0x80")

    def test_truncated(self, tmp_path, state):
        path = tmp_path / "w.safetensors"
        save_file(state, path)
        whole = path.read_bytes()
        for size in (5, 40, len(whole) - 1):
            path.write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match="not a complete safetensors file"):
                read_state(path)

    def sharded(self, folder, state):
        names = sorted(state)
        where = {name: f"model-{1 + i % 2}.safetensors" for i, name in enumerate(names)}
        for shard in set(where.values()):
            save_file({n: state[n] for n in names if where[n] == shard}, folder / shard)
        index = folder / "model.safetensors.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where}))
        return index

    def test_sharded(self, tmp_path, state):
        index = self.sharded(tmp_path, state)
        for source in (index, tmp_path):
            file = read_state(source)
            assert_same(file.state, state)
            assert file.format == "2 files with an index"

    def test_files_of_a_folder(self, tmp_path, state):
        """What a card hashes: all that is read."""
        index = self.sharded(tmp_path, state)
        shards = sorted(path for path in tmp_path.iterdir() if path != index)
        assert len(shards) == 2
        assert files_of(tmp_path) == files_of(index) == (index, *shards)
        assert files_of(shards[0]) == (shards[0],)
        save_file(state, tmp_path / "model.safetensors")
        assert files_of(tmp_path) == (tmp_path / "model.safetensors",)

    def test_a_shard_is_missing(self, tmp_path, state):
        self.sharded(tmp_path, state)
        (tmp_path / "model-2.safetensors").unlink()
        with pytest.raises(CheckpointError, match=r"model-2\.safetensors: no such file"):
            read_state(tmp_path)

    def test_a_shard_lacks_an_entry(self, tmp_path, state):
        self.sharded(tmp_path, state)
        save_file({"index": torch.ones(1)}, tmp_path / "model-1.safetensors")
        with pytest.raises(CheckpointError, match="entries are not in its files, the first is"):
            read_state(tmp_path)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "not an index"),
            ("{}", "not an index"),
            ("[]", "not an index"),
            ('{"weight_map": {"a": 3}}', "not an index"),
            ('{"weight_map": {"a": "../w.safetensors"}}', "other things than files of weights beside it"),
            ('{"weight_map": {"a": ".."}}', "other things than files of weights beside it"),
            ('{"weight_map": {"a": "model.safetensors.index.json"}}', "other things than files of weights"),
        ],
    )
    def test_a_bad_index(self, tmp_path, text, message):
        (tmp_path / "model.safetensors.index.json").write_text(text)
        with pytest.raises(CheckpointError, match=message):
            read_state(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "an empty file"),
        (b"\n<!DOCTYPE html><html>..", "a web page, so the download has failed"),
        (b"<HTML><body>Quota exceeded</body></HTML>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:..", "a pointer of Git LFS"),
        (b"hello world", "starts with b'hello wo'"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.pkl", "w.safetensors"])
def test_what_is_no_weights(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    if name == "w.safetensors" and content.startswith(b"hello"):
        message = "not a complete safetensors file"
    with pytest.raises(CheckpointError, match=message) as caught:
        read_state(tmp_path / name)
    assert str(caught.value).startswith(f"weights {tmp_path / name}: ")
    assert "\n" not in str(caught.value)


def test_missing_file_and_folder_without_weights(tmp_path):
    with pytest.raises(CheckpointError, match="no such file"):
        read_state(tmp_path / "none.pth")
    with pytest.raises(
        CheckpointError, match=r"a folder without weights, expected one of model\.safetensors"
    ):
        read_state(tmp_path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1, 2], "holds a list, expected a state dict"),
        ({}, "holds no weights"),
        ({"model": {}}, "holds no weights"),
        ({"epoch": 3}, "entry 'epoch' is a int, expected a state dict of tensors"),
        ({"model": {"a": torch.ones(1), "b": "text"}}, "entry 'b' of 'model' is a str"),
    ],
)
def test_trees_without_weights(tmp_path, tree, message):
    torch.save(tree, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        read_state(tmp_path / "w.pth")


def test_in_memory(state):
    for tree in (state, {"model": state, "iteration": 3}, arrays_of(state)):
        file = read_state(tree)
        assert_same(file.state, state)
        assert file.format == "in memory"
    assert read_state({"model": state, "iteration": 3}).metadata == {"iteration": 3}


def test_arrays_that_cannot_be_written_are_copied():
    array = np.arange(3.0)
    array.flags.writeable = False
    read_state({"w": array}).state["w"].add_(1)
    assert array.tolist() == [0, 1, 2]


def test_a_zip_that_is_no_weights(tmp_path):
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3))
    (tmp_path / "w.pth").write_bytes(buffer.getvalue())
    with pytest.raises(CheckpointError, match="not a complete file of PyTorch weights"):
        read_state(tmp_path / "w.pth")
