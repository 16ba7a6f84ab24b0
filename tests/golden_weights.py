"""State dicts whose every value follows from a published parameter name (``golden/weights_recipe.py``)."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"

_spec = importlib.util.spec_from_file_location("weights_recipe", GOLDEN / "weights_recipe.py")
assert _spec is not None
assert _spec.loader is not None
weights_recipe = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(weights_recipe)


def golden_state(shapes: Mapping[str, tuple[int, ...]], prefix: str = "") -> dict[str, Tensor]:
    """The recipe's value of every name."""
    return {
        name: torch.from_numpy(weights_recipe.golden_array(name, shape, prefix))
        for name, shape in shapes.items()
    }


def published_state(names: str) -> dict[str, Tensor]:
    """All floating entries of a published checkpoint, under their published names."""
    entries = json.loads((GOLDEN / "names" / f"{names}_state_dict.json").read_text())
    wanted = {name: tuple(shape) for name, shape, dtype in entries if dtype == "float32"}
    wanted.pop("criterion.empty_weight", None)
    return golden_state(wanted)
