"""The archive that the evaluation servers of YouTube-VIS and OVIS take."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

from vistk.evaluation.files import EvaluationFileError
from vistk.files import replacing

MEMBER = "results.json"
"""The only file in the archive; the servers look for this name."""

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date that zip has


def write_submission(results_path: str | Path, zip_path: str | Path) -> Path:
    """Pack a results file for upload: one member, ``results.json``, whatever the file is called.

    Equal results give equal bytes (with one version of zlib): date and permissions are fixed. The
    archive is whole or absent.

    Raises:
        FileNotFoundError: there is no results file.
        EvaluationFileError: it does not hold a json list.
    """
    results_path = Path(results_path)
    if not results_path.is_file():
        raise FileNotFoundError(f"{results_path}: no such results file, expected a json file")
    with results_path.open("rb") as source:
        start = source.read(64).lstrip()[:1]
        if start != b"[":
            raise EvaluationFileError(f"{results_path}: begins with {start!r}, expected a list of results")
        source.seek(0)
        member = zipfile.ZipInfo(MEMBER, _EPOCH)
        member.compress_type = zipfile.ZIP_DEFLATED
        member.create_system = 3  # the same on Windows: permissions as Unix has them
        member.external_attr = 0o644 << 16
        member.file_size = results_path.stat().st_size  # lets zipfile choose the form for large files
        with (
            replacing(zip_path) as temporary,
            zipfile.ZipFile(temporary, "w") as archive,
            archive.open(member, "w") as target,
        ):
            shutil.copyfileobj(source, target, 1 << 20)
    return Path(zip_path)
