"""A file read in pieces is the file read at once, wherever the pieces end."""

import json

import pytest

from vistk.data import json_stream
from vistk.data.json_stream import load_json

CONTENT = {
    "info": {"year": 2021, "nested": [[], {}, [1, [2.5]]]},
    "numbers": [0, -7, 1.25, -1e-05, 12345678901234567890, 1e300, True, None, False],
    "text": 'quotes " and \\ and \n and ünïcode 熊',
    "empty": [],
    "none": {},
    "annotations": [{"id": i, "segmentations": [{"counts": [i] * i}, None]} for i in range(7)],
    "last": 83,
}


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 23, 83, 10_000])
@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_pieces_of_any_size(tmp_path, monkeypatch, chunk, indent, ascii_only):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    for value in (CONTENT, {}, [1, 2], [], 17, -1.5e10, "text", None):
        text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
        path.write_text(f" \n{text}\r\n\t", encoding="utf-8")
        assert load_json(path) == value
    path.write_text('{"a": [1e+5,2E-05,3.25e2,-0.5,4], "b":1e+5}')
    assert load_json(path) == {"a": [1e5, 2e-5, 325.0, -0.5, 4], "b": 1e5}
    path.write_bytes(b"\xef\xbb\xbf" + '{"bär": "熊"}'.encode())  # a byte order mark
    assert load_json(path) == {"bär": "熊"}


def test_the_hook_sees_what_json_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "CHUNK", 23)
    path = tmp_path / "a.json"
    path.write_text(json.dumps(CONTENT))

    def hook(entry):
        return len(entry["counts"]) if "counts" in entry else entry

    found = load_json(path, hook)
    assert [a["segmentations"] for a in found["annotations"]] == [[i, None] for i in range(7)]
    assert found == json.loads(path.read_text(), object_hook=hook)


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "{",
        '{"a"',
        '{"a": ',
        '{"a": [1, 2',
        '{"a": [1 2]}',
        '{"a": [1, 2]} {',
        '{"a" 1}',
        "{1: 2}",
        '{"a": tru}',
        '{"a": 1,\n "b": [1,\n 2,\n x]}',
        '{"a": [{"b": 1}\n, {"b": }]}',
        '{"a": "never ends',
        "[1, 2",
        "nothing",
    ],
)
def test_errors_have_their_place_in_the_file(tmp_path, monkeypatch, chunk, text):
    monkeypatch.setattr(json_stream, "CHUNK", chunk)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(json.JSONDecodeError) as expected:
        json.loads(text)
    with pytest.raises(json.JSONDecodeError) as error:
        load_json(path)
    assert str(error.value) == str(expected.value)
    assert (error.value.lineno, error.value.colno, error.value.pos) == (
        expected.value.lineno,
        expected.value.colno,
        expected.value.pos,
    )


@pytest.mark.parametrize("text", [b'{"a": "\xff"}', b'{"a": "\xe7\x86', b'{"a": 1}\xe7'])
def test_bytes_that_are_not_utf8(tmp_path, monkeypatch, text):
    monkeypatch.setattr(json_stream, "CHUNK", 3)
    path = tmp_path / "a.json"
    path.write_bytes(text)
    with pytest.raises(UnicodeDecodeError):
        load_json(path)


def test_a_byte_order_mark_is_one_at_the_beginning_only(tmp_path, monkeypatch):
    path = tmp_path / "file.json"
    path.write_bytes(b'["abcd", "' + "\ufeffé".encode() + b'"]')
    for chunk in range(1, 16):
        monkeypatch.setattr(json_stream, "CHUNK", chunk)
        assert json_stream.load_json(path) == ["abcd", "\ufeffé"]
    path.write_bytes(b"\xef\xbb\xbf[1]")
    for chunk in range(1, 8):
        monkeypatch.setattr(json_stream, "CHUNK", chunk)
        assert json_stream.load_json(path) == [1]
