"""Named ablations: a tracker and the fields in which it differs. The only table of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ABLATIONS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    # Published for the same association: another memory, its training, and other thresholds.
    "ctvis": (
        "idol",
        {
            "select_score": 0.01,
            "nms_iou": 0.6,
            "birth_score": 0.01,
            "match_score": 0.3,
            "max_missing": 20,
            "memory": "similarity",
            "memory_frames": 10,
            "contrast": "clip",
        },
    ),
    "cavis-no-context": ("cavis", {"context": False}),
    "gated-memory-average": ("gated-memory", {"memory": "average"}),
    "gated-memory-no-memory-gate": ("gated-memory", {"presence": 0.0}),
    "gated-memory-no-query-gate": ("gated-memory", {"query_power": 0.0, "new_similarity": None}),
    "kalman-iou": ("kalman", {"similarity": "iou", "least_similarity": 0.3}),
    "kalman-no-motion": ("kalman", {"start_noise": 0.0, "velocity_noise": 0.0}),
    "tracklet-linking-no-links": ("tracklet-linking", {"link": False}),
    "visage-no-memory": ("visage", {"memory_frames": 1}),
    "visage-no-appearance": ("visage", {"appearance_weight": 0.0}),
    "visage-appearance-only": ("visage", {"appearance_weight": 1.0}),
    "visage-released": ("visage", {"memory_weighting": "released"}),
    "vita-frame-masks": ("vita", {"masks": "queries"}),
}
"""``{name: (tracker, {field: value})}``"""
