"""Named ablations: a tracker and the fields in which it differs. The only table of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABLATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "visage-no-memory": ("visage", {"memory_frames": 1}),
    "visage-no-appearance": ("visage", {"appearance_weight": 0.0}),
    "visage-appearance-only": ("visage", {"appearance_weight": 1.0}),
    "visage-released": ("visage", {"memory_weighting": "released"}),
}
"""``{name: (tracker, {field: value})}``"""
