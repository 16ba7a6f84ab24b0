"""Which trackers share what they say of a frame."""

from __future__ import annotations

import linecache
import sys
import types
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from vistk.engine.describers import describer_part, shared_describers, state_hash
from vistk.trackers.identity import Identity
from vistk.trackers.minvis import MinVIS
from vistk.trackers.visage import VISAGE, VISAGEConfig

SIZES = {"embed_dim": 8, "feature_channels": {"res3": 8, "res4": 8, "res5": 8}, "num_classes": 2}


def visage(seed: int = 0, **knobs) -> VISAGE:
    torch.manual_seed(seed)
    return VISAGE(VISAGEConfig(**knobs), **SIZES)


@dataclass
class ScaledConfig:
    scale: float = 1.0
    threshold: float = 0.5


class Scaled(Identity):
    """Describes by a setting, without any weight."""

    Config = ScaledConfig
    association_fields = ("threshold",)

    def describe(self, out):
        return super().describe(out)


def test_knobs_of_association_are_shared_and_nothing_else():
    trackers = {
        "a": visage(),
        "knob": visage(memory_frames=1, appearance_weight=0.5),
        "other weights": visage(seed=1),
        "other shapes": visage(hidden_dim=4),
        "minvis": MinVIS(MinVIS.Config(), **SIZES),
        "knob again": visage(memory_weighting="released"),
    }
    assert shared_describers(trackers) == {name: name for name in trackers} | {"knob": "a", "knob again": "a"}
    parts = {name: describer_part(tracker) for name, tracker in trackers.items()}
    assert parts["a"] == parts["knob"] == parts["knob again"]
    assert len(set(parts.values())) == 4
    assert parts["minvis"] == describer_part(Identity(Identity.Config(), **SIZES)) == "query"


@pytest.mark.parametrize(("field", "same"), [("scale", False), ("threshold", True)])
def test_settings_without_weights(field, same):
    a, b = Scaled(ScaledConfig(), **SIZES), Scaled(ScaledConfig(**{field: 2.0}), **SIZES)
    assert (shared_describers({"a": a, "b": b})["b"] == "a") is same
    assert (describer_part(a) == describer_part(b)) is same
    assert describer_part(a).startswith("scaled-")


def test_a_part_is_the_same_wherever_its_weights_come_from():
    a, b = visage(0), visage(1)
    assert describer_part(a) != describer_part(b)
    b.load_state_dict(a.state_dict())
    assert describer_part(a) == describer_part(b.eval().requires_grad_(False))


def test_the_hash_of_weights_knows_names_shapes_and_types():
    base = nn.Linear(2, 3)
    hashes = {state_hash(base), state_hash(base, "name"), state_hash(nn.Sequential(base))}
    assert state_hash(base) in hashes
    hashes.add(state_hash(base.half()))
    with torch.no_grad():
        base.bias[0] += 1
    hashes.add(state_hash(base))
    assert len(hashes) == 5


@pytest.mark.parametrize("in_a_file", [True, False])
def test_a_describe_of_other_code_is_another_part(in_a_file):
    """As after an edit: module, name, settings and weights are the same. The text of a class in a notebook
    is out of reach, that of its functions is not.
    """
    parts = set()
    for factor in (1, 5):
        lines = [
            "from vistk.trackers.minvis import MinVIS",
            "class Edited(MinVIS):",
            "    def describe(self, out):",
            f"        return super().describe(out.map(lambda x: {factor} * x))",
        ]
        name = f"<edited {factor}>"
        linecache.cache[name] = (1, None, [f"{line}\n" for line in lines], name)
        module = types.ModuleType("edited")
        if in_a_file:
            module.__file__ = name
        sys.modules["edited"] = module
        exec(compile("\n".join(lines), name, "exec"), module.__dict__)
        tracker = module.Edited(MinVIS.Config(), embed_dim=8, feature_channels={}, num_classes=2)
        parts.add(describer_part(tracker))
    del sys.modules["edited"]
    assert len(parts) == 2
