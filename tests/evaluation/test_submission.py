"""The archive for the servers."""

import os
import zipfile

import pytest

from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.submission import write_submission

TEXT = '[{"video_id": 1, "score": 0.5, "category_id": 23, "segmentations": [null]}]' * 83


def test_one_member_whatever_the_file_is_called(tmp_path):
    results = tmp_path / "visage.json"
    results.write_text(TEXT)
    path = write_submission(results, tmp_path / "new" / "out.zip")
    assert path == tmp_path / "new" / "out.zip"
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        (member,) = archive.infolist()
        assert member.filename == "results.json"
        assert member.compress_type == zipfile.ZIP_DEFLATED
        assert member.date_time == (1980, 1, 1, 0, 0, 0)
        assert member.external_attr >> 16 == 0o644
        assert archive.read(member).decode() == TEXT
    assert path.stat().st_size < len(TEXT) / 5
    assert [entry.name for entry in path.parent.iterdir()] == ["out.zip"]


def test_equal_results_equal_bytes(tmp_path):
    archives = []
    for i, mode in enumerate((0o600, 0o755)):
        results = tmp_path / f"{i}.json"
        results.write_text(TEXT)
        results.chmod(mode)
        os.utime(results, (1e9 * (i + 1), 1e9 * (i + 1)))
        archives.append(write_submission(results, tmp_path / f"{i}.zip").read_bytes())
    assert archives[0] == archives[1]


def test_an_old_archive_survives_an_error(tmp_path):
    results, path = tmp_path / "results.json", tmp_path / "out.zip"
    path.write_bytes(b"old")
    with pytest.raises(FileNotFoundError, match=r"results.json: no such results file"):
        write_submission(results, path)
    results.write_text(' {"videos": []}')
    with pytest.raises(
        EvaluationFileError, match=r"results.json: begins with b'{', expected a list of results"
    ):
        write_submission(results, path)
    results.write_text("")
    with pytest.raises(EvaluationFileError, match="begins with b''"):
        write_submission(results, path)
    assert path.read_bytes() == b"old"
