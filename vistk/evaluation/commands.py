"""``vistk evaluate``: arguments and printing."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from vistk.evaluation.breakdowns import ATTRIBUTES
from vistk.evaluation.files import EvaluationFileError
from vistk.evaluation.parts import PARTS, find_parts
from vistk.evaluation.printing import Printable
from vistk.evaluation.quoted import data_sets
from vistk.evaluation.report import DEFAULT_METRICS, METRICS, SWEEP, evaluate
from vistk.evaluation.scores import SCORE_THRESHOLD, Truth
from vistk.evaluation.subjects import DataSet, named_results
from vistk.evaluation.ytvis_ap import AREA_RANGES, MAX_DETECTIONS, APOptions

TABLE_SUFFIXES = {".md": "to_markdown", ".tex": "to_latex", ".csv": "to_csv"}

Number = TypeVar("Number", int, float)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk evaluate``."""
    parser.usage = (
        "vistk evaluate GT.json RESULTS.json [MORE.json ..] [--data GT2.json RESULTS2.json ..] [options]"
    )
    parser.epilog = (
        "More than one results file gives a comparison with paired differences to the first. Where names "
        "that follow from the paths do not do, every file may be NAME=FILE. Exit code: 0, or 2 after a "
        "one-line error."
    )
    parser.add_argument(
        "files",
        metavar="FILE",
        nargs="*",
        help="annotations in the YouTube-VIS form, then one or several lists of predictions",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        nargs="+",
        action="append",
        default=[],
        help="one more data set, its annotations first, then results: side by side with the others; "
        "may be repeated",
    )
    parser.add_argument(
        "--metrics",
        type=words,
        default=DEFAULT_METRICS,
        metavar="LIST",
        help=f"some of {','.join(METRICS)} (default {','.join(DEFAULT_METRICS)}): ap with recall, hota with "
        "IDF1 and CLEAR, what each kind of error costs, what an oracle would gain",
    )
    parser.add_argument(
        "--by",
        type=words,
        default=(),
        metavar="LIST",
        help=f"AP, recall and association by groups of instances: some of {','.join(ATTRIBUTES)}",
    )
    parser.add_argument(
        "--score-threshold",
        type=_thresholds,
        default=(SCORE_THRESHOLD,),
        metavar="LIST",
        help="smallest score that counts for HOTA, IDF1 and CLEAR; several with commas, of which breakdowns "
        f"and differences take the first; or 'sweep', {min(SWEEP):g} to {max(SWEEP):g}, of which they take "
        f"{SWEEP[0]:g} (default {SCORE_THRESHOLD:g})",
    )
    _add_ap_options(parser)
    parser.add_argument(
        "--parts",
        nargs=len(PARTS),
        metavar=("SHORT.json", "LONG.json"),
        help="annotations of the short and of the long videos of YouTube-VIS 2022, which are scored apart, "
        "with the mean of both (default: gt_short.json and gt_long.json beside the annotations, if there)",
    )
    parser.add_argument("--no-parts", action="store_true", help="score all videos as one, whatever is there")
    parser.add_argument(
        "--bootstrap",
        type=at_least(0),
        metavar="N",
        help="95 %% intervals from N resamples of the videos (default: 1000 with several results files, "
        "which are compared on the same resamples; none with one)",
    )
    parser.add_argument("--seed", type=at_least(0), default=0, help="of the resampling (default %(default)s)")
    parser.add_argument(
        "--quoted",
        action="store_true",
        help=f"add published numbers, marked as quoted: of {', '.join(data_sets())}, as the classes tell, or "
        "as the name in NAME=GT.json does",
    )
    add_output_arguments(parser)
    parser.add_argument(
        "--lenient", action="store_true", help="leave out and count entries that cannot be used"
    )


def _add_ap_options(parser: argparse.ArgumentParser) -> None:
    areas = (f"{name}:{low:g}:{high:g}" for name, (low, high) in AREA_RANGES.items() if name != "all")
    parser.add_argument(
        "--max-detections",
        type=_numbers(int),
        default=MAX_DETECTIONS,
        metavar="LIST",
        help="limits on the predictions per video and class: AR is at each, AP at the last (default "
        f"{','.join(map(str, MAX_DETECTIONS))})",
    )
    parser.add_argument(
        "--iou-thresholds", type=_numbers(float), metavar="LIST", help="of AP (default 0.5,0.55,..,0.95)"
    )
    parser.add_argument(
        "--area-ranges",
        type=_areas,
        metavar="LIST",
        help=f"NAME:LOW:HIGH in pixels, mean area of an instance (default {','.join(areas)})",
    )
    parser.add_argument("--no-categories", action="store_true", help="take all classes for one")


def add_output_arguments(parser: argparse.ArgumentParser) -> None:
    """Where to write what is printed, and by how many processes it is worked out."""
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write all numbers in full precision")
    parser.add_argument(
        "--table",
        metavar="OUT.md",
        action="append",
        default=[],
        type=table_path,
        help="write the tables: .md, .tex (booktabs), or all numbers as .csv; may be repeated",
    )
    parser.add_argument(
        "--jobs", type=at_least(1), default=1, metavar="N", help="processes (default %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """``vistk evaluate``: prints the tables and writes the files. Raises what the library raises."""
    given = _data_sets(arguments)
    require_outputs(arguments, [path for one in given for path in _inputs(one)])
    resamples = arguments.bootstrap
    if resamples is None:
        resamples = 1000 if any(len(named_results(one.results)) > 1 for one in given) else 0
    report = evaluate(
        given,
        metrics=arguments.metrics,
        by=arguments.by,
        score_threshold=arguments.score_threshold,
        options=_options(arguments),
        bootstrap=resamples,
        seed=arguments.seed,
        lenient=arguments.lenient,
        quote=arguments.quoted,
        jobs=arguments.jobs,
        progress=True,
    )
    write_outputs(report, arguments)
    return 0


def _data_sets(arguments: argparse.Namespace) -> list[DataSet]:
    given = [_data_set(files) for files in [arguments.files, *arguments.data] if files]
    if not given:
        raise EvaluationFileError("no file, expected annotations and results: GT.json RESULTS.json")
    parts: dict[str, Truth] | bool = not arguments.no_parts
    if arguments.parts:
        if len(given) > 1 or arguments.no_parts:
            raise EvaluationFileError("--parts: expected one data set, and no --no-parts")
        parts = dict(zip(PARTS, arguments.parts, strict=True))
    return [replace(one, parts=parts) for one in given]


def _data_set(files: Sequence[str]) -> DataSet:
    """Annotations and results, which may have names."""
    (name, truth), *results = map(_named, files)
    if not results:
        raise EvaluationFileError(f"{truth}: no results file after it, expected GT.json RESULTS.json")
    paths = [path for _, path in results]
    for path in (truth, *paths):
        if Path(path).is_dir():
            raise EvaluationFileError(f"{path}: found a folder, expected a json file")
    if not any(own for own, _ in results):
        return DataSet(truth, paths, name)
    unnamed = iter(named_results([path for own, path in results if own is None]))
    names = [own or next(unnamed) for own, _ in results]
    again = next((own for i, own in enumerate(names) if own in names[:i]), None)
    if again is not None:
        raise EvaluationFileError(f"{again}: name of two results files, expected different ones")
    return DataSet(truth, dict(zip(names, paths, strict=True)), name)


def _named(word: str) -> tuple[str | None, str]:
    """``NAME=FILE``, unless that is a file."""
    name, sign, path = word.partition("=")
    if sign and name and path and "/" not in name and not Path(word).exists():
        return name, path
    return None, word


def _inputs(given: DataSet) -> list[Path]:
    """The files that are read."""
    truth = Path(str(given.ground_truth))
    if isinstance(given.parts, Mapping):
        parts = given.parts
    else:
        parts = find_parts(truth) if given.parts and truth.is_file() else {}
    return [Path(str(file)) for file in (truth, *named_results(given.results).values(), *parts.values())]


def require_outputs(arguments: argparse.Namespace, inputs: Iterable[Path]) -> None:
    """Raises where a file that :func:`add_output_arguments` names cannot be meant: it is one of those that
    are read, a folder, or to be written twice.
    """
    taken = {path.resolve(): "read" for path in inputs}
    for path in (*([arguments.json] if arguments.json else []), *arguments.table):
        if path.is_dir():
            raise EvaluationFileError(f"{path}: found a folder, expected the name of a file to write")
        if path.resolve() in taken:
            raise EvaluationFileError(f"{path}: is {taken[path.resolve()]}, expected another file to write")
        taken[path.resolve()] = "to be written already"


def _options(arguments: argparse.Namespace) -> APOptions:
    chosen = {
        "max_detections": arguments.max_detections,
        "iou_thresholds": arguments.iou_thresholds,
        "area_ranges": arguments.area_ranges,
    }
    try:
        return APOptions(
            use_categories=not arguments.no_categories,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    except ValueError as error:
        raise EvaluationFileError(str(error)) from error


def write_outputs(report: Printable, arguments: argparse.Namespace) -> None:
    """Writes the files that :func:`add_output_arguments` asked for, and prints the tables: also where a file
    cannot be written, as they took long.
    """
    try:
        if arguments.json:
            report.to_json(arguments.json)
        for path in arguments.table:
            getattr(report, TABLE_SUFFIXES[path.suffix])(path)
    finally:
        print(report.to_markdown(), end="")


def table_path(text: str) -> Path:
    """A file of tables, by its suffix."""
    path = Path(text)
    if path.suffix not in TABLE_SUFFIXES:
        raise argparse.ArgumentTypeError(f"{text}: expected a name that ends in {', '.join(TABLE_SUFFIXES)}")
    return path


def words(text: str) -> tuple[str, ...]:
    """Words with commas between them."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _thresholds(text: str) -> tuple[float, ...]:
    if text == "sweep":
        return SWEEP
    try:
        values = tuple(float(word) for word in text.split(","))
    except ValueError:
        values = (float("nan"),)
    if not all(map(math.isfinite, values)):
        raise argparse.ArgumentTypeError(f"found {text!r}, expected finite numbers with commas, or 'sweep'")
    return values


def _numbers(kind: Callable[[str], Number]) -> Callable[[str], tuple[Number, ...]]:
    """Reads numbers with commas between them."""

    def read(text: str) -> tuple[Number, ...]:
        try:
            return tuple(kind(word) for word in text.split(","))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected numbers with commas") from error

    return read


def _areas(text: str) -> dict[str, tuple[float, float]]:
    """All areas, and the ranges that are named."""
    given: dict[str, tuple[float, float]] = {}
    for word in words(text):
        name, *ends = word.split(":")
        try:
            low, high = map(float, ends)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"found {word!r}, expected NAME:LOW:HIGH in pixels") from error
        if name in given:
            raise argparse.ArgumentTypeError(f"found {name!r} twice, expected different names")
        given[name] = low, high
    return {"all": AREA_RANGES["all"]} | given


def at_least(least: int) -> Callable[[str], int]:
    """Reads a whole number that is no smaller."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number, at least {least}")
        return value

    return read
