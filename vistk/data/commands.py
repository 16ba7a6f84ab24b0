"""``vistk data check`` and ``vistk data convert``: arguments and printing."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vistk.data.converting.write import Conversion, Destination


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk data``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    text = "go through a data set and report everything that would bite later"
    _check_arguments(actions.add_parser("check", help=text, description=text))
    text = "turn another format into the YouTube-VIS form"
    convert = actions.add_parser("convert", help=text, description=text)
    formats = convert.add_subparsers(dest="format", required=True, metavar="format")
    for name, help_text, add in (
        ("masks", "folders of PNG masks: DAVIS, YouTube-VOS", _masks_arguments),
        ("mots", "MOTS text files: KITTI MOTS, MOTSChallenge", _mots_arguments),
        ("coco-video", "COCO video json: MMTracking, TAO, BDD100K", _coco_arguments),
    ):
        of_format = formats.add_parser(name, help=help_text, description=help_text)
        add(of_format)
        _destination_arguments(of_format)


def run(args: argparse.Namespace) -> int:
    """``vistk data``: 0, or 1 where a check found errors. Raises what the library raises."""
    return _check(args) if args.action == "check" else _convert(args)


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Exit code: 0 usable (warnings allowed), 1 errors found, 2 could not be checked."
    parser.add_argument("root", metavar="DIR", type=Path, help="folder of a data set, or one json file")
    parser.add_argument(
        "--split", nargs="+", default=[], metavar="NAME", help="splits to check (default: all found)"
    )
    parser.add_argument("--image-root", metavar="DIR", type=Path, help="images of a json file")
    parser.add_argument(
        "--images",
        choices=("all", "first", "none"),
        default="all",
        help="open all images, the first of each video, or none (default %(default)s)",
    )
    parser.add_argument(
        "--decode", action="store_true", help="decode the images: slower, finds truncated files"
    )
    parser.add_argument(
        "--format", choices=("ytvis", "coco"), help="of the json files (default: by their content)"
    )
    parser.add_argument(
        "--data", metavar="NAME", help="expected categories: ytvis2019, ytvis2021, ytvis2022, ovis or coco"
    )
    parser.add_argument("--json", metavar="OUT.json", type=Path, help="write the report")


def _check(args: argparse.Namespace) -> int:
    import json

    from vistk.data.checking.check import check
    from vistk.files import write_text

    report = check(
        args.root,
        args.split,
        image_root=args.image_root,
        images=args.images,
        decode=args.decode,
        form=args.format,
        data=args.data,
        progress=True,
    )
    if args.json:
        write_text(args.json, json.dumps(report.as_dict(), indent=2) + "\n")
    print(report.to_text(), end="")
    return 0 if report.ok else 1


def _destination_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", default="train", metavar="NAME", help="to write (default %(default)s)")
    parser.add_argument("--copy", action="store_true", help="copy the images; else they are linked to")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier conversion")
    parser.add_argument(
        "--videos",
        metavar="FILE",
        type=Path,
        help="names of the videos to convert, one a line (default: all)",
    )


def _masks_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", type=Path, help="folder with JPEGImages and Annotations")
    parser.add_argument("--images", default="JPEGImages", metavar="NAME", help="folder (default %(default)s)")
    parser.add_argument(
        "--annotations", default="Annotations", metavar="NAME", help="folder (default %(default)s)"
    )
    parser.add_argument("--resolution", metavar="NAME", help="folder between these and the videos: 480p")
    parser.add_argument(
        "--classes",
        metavar="FILE",
        type=Path,
        help="json {video: {object id: class}} (default: the meta.json of YouTube-VOS if there; else all "
        "objects are of one class, 'object')",
    )
    parser.add_argument(
        "--categories",
        metavar="NAMES",
        help="class names in the order of their ids, with commas, or a data set: ytvis2019 (default: the "
        "classes by name); give the same to all splits",
    )
    parser.add_argument(
        "--void",
        default="255",
        metavar="VALUE",
        help="of pixels that belong to nothing, or 'none' (default %(default)s)",
    )
    parser.add_argument(
        "--all-frames", action="store_true", help="keep frames without a mask file, with null masks"
    )


def _mots_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="IN", type=Path, help="folder with <video>.txt, instances_txt or <video>/gt/gt.txt"
    )
    parser.add_argument(
        "--images", metavar="DIR", type=Path, help="folder of the videos (default: looked for)"
    )
    parser.add_argument(
        "--classes", metavar="FILE", type=Path, help="json {class id: name} (default: 1 car, 2 pedestrian)"
    )
    parser.add_argument(
        "--first-frame",
        type=int,
        metavar="N",
        help="number of the first image in the text (default: images are named by their number)",
    )
    parser.add_argument(
        "--ignore",
        choices=("drop", "crowd"),
        default="drop",
        help="what becomes of regions to be ignored: nothing, or a crowd in each class (default %(default)s)",
    )


def _coco_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.json", type=Path, help="COCO video file")
    parser.add_argument(
        "--images", metavar="DIR", type=Path, required=True, help="folder that its file names are relative to"
    )


def _convert(args: argparse.Namespace) -> int:
    from vistk.data.checking.check import check
    from vistk.data.converting.write import Destination

    destination = Destination(args.out, args.split, copy=args.copy, overwrite=args.overwrite)
    conversion = _CONVERTERS[args.format](args, destination)
    print(conversion.to_text(), end="")
    report = check(conversion.json_path, image_root=conversion.image_root, images="first")
    print(report.to_text(), end="")
    return 0 if report.ok else 1


def _names(path: Path | None) -> Sequence[str] | None:
    """The lines of a file that are not empty."""
    from vistk.data.ytvis import DataError

    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise FileNotFoundError(f"list of videos {path} does not exist") from None
    except UnicodeDecodeError as error:
        raise DataError(f"list of videos {path} is not text: {error}") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def _convert_masks(args: argparse.Namespace, destination: Destination) -> Conversion:
    from vistk.data.categories import TABLES
    from vistk.data.converting.masks import MaskFolders, convert_masks
    from vistk.data.ytvis import DataError

    if args.void != "none" and not args.void.isdecimal():
        raise DataError(f"--void is {args.void!r}, expected a value of pixels, or none")
    names = args.categories
    folders = MaskFolders(
        args.source,
        images=args.images,
        annotations=args.annotations,
        resolution=args.resolution,
        classes=args.classes,
        categories=[name.strip() for name in names.split(",")] if names and names not in TABLES else names,
        videos=_names(args.videos),
        void=None if args.void == "none" else int(args.void),
        all_frames=args.all_frames,
    )
    return convert_masks(folders, destination, progress=True)


def _convert_mots(args: argparse.Namespace, destination: Destination) -> Conversion:
    from vistk.data.converting.mots import MotsFolders, convert_mots

    folders = MotsFolders(
        args.source,
        images=args.images,
        classes=args.classes,
        videos=_names(args.videos),
        first_frame=args.first_frame,
        ignore=args.ignore,
    )
    return convert_mots(folders, destination, progress=True)


def _convert_coco(args: argparse.Namespace, destination: Destination) -> Conversion:
    from vistk.data.converting.coco_video import CocoVideo, convert_coco_video

    coco = CocoVideo(args.source, args.images, _names(args.videos))
    return convert_coco_video(coco, destination, progress=True)


_CONVERTERS = {"masks": _convert_masks, "mots": _convert_mots, "coco-video": _convert_coco}
