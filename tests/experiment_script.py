"""``experiments/run.py``, imported without being on the path."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "run_script", Path(__file__).parents[1] / "experiments" / "run.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
experiment_main = _module.main
