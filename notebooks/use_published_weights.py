# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     notebook_metadata_filter: kernelspec,jupytext,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Use published weights
#
# From an official checkpoint to a scored prediction: what is in the file, the model that it makes,
# a video, an evaluation, and the file in another layout. The example is VISAGE on ResNet-50,
# trained on YouTube-VIS 2019; a list of all models is below.
#
# **No weights come with this project.** If `VISTK_WEIGHTS` names an official file, this notebook
# uses it. Otherwise it writes one with the official names and shapes and *random numbers*:
# everything works as with the real one, but the predictions are noise.

# %%
import os
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

import vistk
from vistk.data.config import SyntheticConfig
from vistk.data.synthetic import frames_of
from vistk.evaluation import evaluate
from vistk.models.checkpoints import CheckpointError
from vistk.models.published_names import to_detectron2
from vistk.models.segmenter import Segmenter
from vistk.presets import PRESETS, Preset
from vistk.published import convert
from vistk.trackers.registry import get_tracker
from vistk.viz.overlay import Shown, draw
from vistk.viz.strips import film_strip
from vistk.weights_commands import inspect

if Path.cwd().name == "notebooks":
    os.chdir("..")  # paths are those of the README

pd.DataFrame(
    [
        (
            preset.name,
            preset.segmenter,
            preset.tracker,
            preset.keep_top,
            preset.rescore,
            preset.test_short_side,
        )
        for preset in PRESETS.values()
    ],
    columns=["preset", "network", "tracker", "kept", "rescored", "short side in testing"],
).set_index("preset")


# %%
def write_random_checkpoint(path: Path, preset: Preset) -> None:
    """A file as the published code writes it, with its names, and random numbers."""
    torch.manual_seed(0)
    segmenter = Segmenter(preset.segmenter_config(), preset.num_classes)
    cls, config = get_tracker(preset.tracker)
    tracker = cls(
        config,
        embed_dim=segmenter.embed_dim,
        feature_channels=segmenter.feature_channels,
        num_classes=preset.num_classes,
    )
    state = {f"segmenter.{name}": value for name, value in segmenter.state_dict().items()}
    state |= {f"tracker.{name}": value for name, value in tracker.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"model": to_detectron2(state)}, path)


preset = PRESETS["visage-r50-ytvis2019"]
weights = Path(os.environ.get("VISTK_WEIGHTS", "runs/notebooks/published/visage_r50_ytvis19.pth"))
official = "VISTK_WEIGHTS" in os.environ
if not official:
    write_random_checkpoint(weights, preset)

# %% [markdown]
# ## What is in the file
#
# The same as `vistk weights inspect FILE`. Files are recognised by their content (Detectron2,
# Transformers, this project), and pickles are read by a reader that builds numbers and runs
# nothing.

# %%
print(inspect(weights))

# %% [markdown]
# ## The model
#
# `load_published` accounts for every entry: one that is missing or unknown is an error, and a file
# of another model says of which.

# %%
segmenter, tracker = vistk.load_published(weights, preset.name)
print(type(tracker).__name__, tracker.config)
print(tracker.protocol)

# %%
try:
    vistk.load_published(weights, "visage-swinl-ovis")
except CheckpointError as error:
    print(error)

# %% [markdown]
# ## A video
#
# Any uint8 tensor `(T, 3, H, W)` will do, RGB, at the size that the network is to see (published
# models were tested with a shorter side of 360 or 480 pixels). Here it is a generated clip, small
# so that it is quick, whose truth is known.

# %%
clip = SyntheticConfig(height=144, width=256, frames=5, min_size=40, max_size=70)
images, video, annotations = frames_of(clip, "track", 0)
frames = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
prediction = vistk.predict(segmenter, tracker, frames, video_id=video["id"])

names = list(preset.categories.values())
pd.DataFrame(
    [
        (one.track_id, names[one.label], one.score, sum(rle is not None for rle in one.segmentations))
        for one in prediction.tracklets
    ],
    columns=["track", "class", "score", "frames"],
).head()

# %%
shown = prediction.tracklets[:3]
rows = {
    "video": images,
    "predicted": [
        draw(image, [Shown(one.track_id, one.segmentations[t], names[one.label]) for one in shown])
        for t, image in enumerate(images)
    ],
}
film_strip(rows, range(len(images)))

# %% [markdown]
# ## Evaluation
#
# `evaluate` takes files, or what is in them. The truth is the clip's own, its class ids read as
# those of YouTube-VIS.

# %%
truth = {
    "videos": [video],
    "annotations": annotations,
    "categories": [{"id": number, "name": name} for number, name in preset.categories.items()],
}
report = evaluate(truth, prediction.to_ytvis())
text = f"AP {100 * report.metrics['AP']:.1f}, of {len(prediction.tracklets)} predictions"
Markdown(text if official else f"{text}: random weights, so nothing else was to be expected.")

# %% [markdown]
# A check that holds for any weights: take the prediction itself for the truth, and its AP has to be
# 100. Worth doing whenever a results file comes from elsewhere, before one wonders about a low
# number.

# %%
itself = {
    "videos": [video],
    "categories": truth["categories"],
    "annotations": [
        {
            **entry,
            "id": number,
            "iscrowd": 0,
            "areas": [None if rle is None else 1 for rle in entry["segmentations"]],
        }
        for number, entry in enumerate(prediction.to_ytvis(), start=1)
    ],
}
for annotation in itself["annotations"]:
    del annotation["score"]
own = evaluate(itself, prediction.to_ytvis())
print(f"AP {100 * own.metrics['AP']:.1f}")

# %% [markdown]
# ## The other layouts
#
# `vistk weights convert IN OUT --preset NAME`: `.safetensors` is what `weights=` takes in a run,
# `.pth` and `.pkl` are for the published code. The predictions are the same to the last bit.

# %%
converted = weights.with_name("converted.safetensors")
print(convert(weights, converted, preset.name))
again = vistk.predict(*vistk.load_published(converted, preset.name), frames, video_id=video["id"])
assert again.to_ytvis() == prediction.to_ytvis()

# %% [markdown]
# ## To go on
#
# A whole data set, tested as the release tests, its table and its results file:
#
# ```bash
# accelerate launch experiments/run.py preset=visage-r50-ytvis2019 data.root=DIR weights=FILE eval_only=true
# ```
#
# [docs/published.md](../docs/published.md) has the presets, the layouts of data sets, training as
# published, and what was checked.
