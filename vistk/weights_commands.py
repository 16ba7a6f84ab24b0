"""``vistk weights inspect`` and ``vistk weights convert``: arguments and printing."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path

from vistk.models.description import describe_state
from vistk.models.weight_files import CheckpointError, WeightFile, read_state
from vistk.presets import PRESETS
from vistk.published import LAYOUTS, convert, fits


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``vistk weights``."""
    actions = parser.add_subparsers(dest="action", required=True, metavar="action")
    text = "write a published model's weights in another layout"
    action = actions.add_parser("convert", help=text, description=text)
    action.add_argument("source", metavar="IN", help="file or folder of weights, in any known layout")
    action.add_argument("target", metavar="OUT", help="new file: .safetensors, .pth, .pkl or .bin")
    action.add_argument("--preset", required=True, metavar="NAME", help=f"one of {', '.join(PRESETS)}")
    action.add_argument("--layout", choices=LAYOUTS, help="names in OUT (default: by its suffix)")
    text = "say what a file of weights holds"
    action = actions.add_parser("inspect", help=text, description=text)
    action.add_argument("source", metavar="FILE", help="file or folder of weights, in any known layout")


def run(arguments: argparse.Namespace) -> int:
    """``vistk weights``; returns the exit code. Raises what the library raises."""
    if arguments.action == "convert":
        print(convert(arguments.source, arguments.target, arguments.preset, arguments.layout))
        print(f"written: {arguments.target}")
    else:
        print(inspect(arguments.source))
    return 0


def inspect(source: str | Path) -> str:
    """What a file of weights holds, in lines to read; one with unknown names is described as far as can be.

    Raises:
        CheckpointError: the file cannot be read.
    """
    file = read_state(source)
    numbers = Counter(str(value.dtype).removeprefix("torch.") for value in file.state.values())
    rows = {
        "format": file.format,
        "entries": f"{len(file.state):,}",
        "numbers": f"{sum(value.numel() for value in file.state.values()):,}",
        "types": ", ".join(f"{kind} ({count})" for kind, count in numbers.most_common()),
    }
    try:
        description = describe_state(file.state, file.source)
    except CheckpointError:
        rows["holds"] = f"names that are not known here: {', '.join(list(file.state)[:3])}, .."
    else:
        named = [name for name, preset in PRESETS.items() if fits(description, preset, file.categories)]
        rows |= {
            "holds": str(description),
            "names": description.family,
            "segmenter": description.words or "no option of segmenter= fits",
            "presets": ", ".join(named) or "none fits",
        }
    rows |= _facts(file)
    width = max(map(len, rows))
    return "\n".join([file.source, *(f"  {key:<{width}}  {value}" for key, value in rows.items())])


def _facts(file: WeightFile) -> dict[str, str]:
    """The metadata, each on one short line."""
    lines = {}
    for key, value in file.metadata.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        lines[f"says {key}"] = text if len(text) <= 100 else f"{text[:97]}..."
    return lines
