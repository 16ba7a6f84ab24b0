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
# # Write a tracker
#
# From an idea to a row of the table: forty lines, the contract that all trackers keep, the
# comparison with the others on the same queries, and an ablation. Nothing is trained, and there is
# no package to set up.
#
# **The idea.** MinVIS links the embeddings of a segmenter's queries, which say where an object is
# and little of what it looks like. VISAGE trains a head for that. But the first stage of the
# backbone sees texture anyway: what if a track simply remembers the mean of that feature map under
# its mask?

# %%
import os
import shutil
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import ClassVar

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import Markdown
from torch import Tensor

from vistk.config import compose
from vistk.experiment import run
from vistk.models.appearance import mean_under_masks
from vistk.run_comparison import compare_runs
from vistk.structures import FrameOutput, FrameQueries, TrackedFrame
from vistk.trackers.association import assign_slots, class_scores, cosine_similarity, slots_frame
from vistk.trackers.base import Tracker
from vistk.trackers.contract import CHECKS, ContractError, check_tracker

if Path.cwd().name == "notebooks":
    os.chdir("..")  # paths are those of the README

# %% [markdown]
# ## The tracker
#
# Two halves. `describe` says what each query is like, frame by frame, and has the feature maps at
# hand; what it says is small enough to be cached. `step` links one frame to what is remembered. It
# sees nothing but what `describe` said, and keeps everything in the state that `start` made.
# `similarities` is what `step` goes by; whoever says it apart, as here, can look at it later with
# `vistk show`.


# %%
@dataclass
class TextureConfig:
    texture_weight: float = 0.9  # of the texture in the similarity; the rest is the embedding's
    keep: float = 0.8  # share of the memory that a sure sight leaves as it is; 0 = the last frame alone
    level: str = "res2"  # the map of the backbone

    def __post_init__(self) -> None:
        if not (0 <= self.texture_weight <= 1 and 0 <= self.keep < 1):
            raise ValueError(f"expected a weight from 0 to 1 and a share from 0 to below 1, found {self}")


class Texture(Tracker[dict[str, Tensor]]):
    """Hungarian assignment by embedding and texture, against a fading mean of both."""

    Config: ClassVar[type] = TextureConfig
    association_fields = ("texture_weight", "keep")  # of no interest to describe

    def describe(self, out: FrameOutput) -> FrameQueries:
        maps, masks = out.features[self.config.level], out.mask_logits  # (.., C, H, W), (.., Q, h, w)
        maps = maps - maps.mean((-2, -1), keepdim=True)
        texture = mean_under_masks(*(x.reshape(-1, *x.shape[-3:]) for x in (maps, masks)))  # (frames, Q, C)
        vectors = {"query": out.embeds, "texture": texture.reshape(*out.embeds.shape[:-1], -1)}
        return FrameQueries(out.logits, vectors, mask_logits=masks)

    def start(self) -> dict[str, Tensor]:
        return {}

    def similarities(self, state: dict[str, Tensor], frame: FrameQueries) -> dict[str, Tensor]:
        cosines = {name: cosine_similarity(state[name], frame.vectors[name]) for name in state}  # (tracks, Q)
        weight = self.config.texture_weight
        mixed = {"mixed": (1 - weight) * cosines["query"] + weight * cosines["texture"]} if state else {}
        return {**cosines, **mixed}

    def step(self, state: dict[str, Tensor], frame: FrameQueries) -> TrackedFrame:
        found = self.similarities(state, frame)
        tracked = slots_frame(frame, assign_slots(found["mixed"]) if found else None)
        kept = self.config.keep ** class_scores(tracked.logits)[:, None]  # of unsure sights, more
        for name, vectors in frame.vectors.items():
            now = vectors[tracked.query_index]
            state[name] = now if not found else kept * state[name] + (1 - kept) * now
        return tracked


# %% [markdown]
# ## The contract
#
# `check_tracker` runs it on made-up videos, in a second: what every table, cache and stream relies
# on.

# %%
check_tracker(Texture)
Markdown("\n".join(f"- {(check.__doc__ or check.__name__).partition(chr(10))[0]}" for check in CHECKS))

# %% [markdown]
# And this is how a mistake shows that the table would have hidden: all trackers read the same queries,
# so whoever writes into them spoils the rows below its own.


# %%
class Careless(Texture):
    def step(self, state: dict[str, Tensor], frame: FrameQueries) -> TrackedFrame:
        for vectors in frame.vectors.values():
            vectors -= vectors.mean(0)  # in place
        return super().step(state, frame)


try:
    check_tracker(Careless)
except ContractError as error:
    print(error)

# %% [markdown]
# ## In the table
#
# `tracker=module:Class` is all that a run needs; a class of this notebook is in the module
# `__main__`. The packaged segmenter is as it is (`eval_only=true`), and `cache=auto` stores what
# was described, so that further runs of the same class only associate.

# %%
runs = Path("runs/notebooks/texture")
words = [
    "tracker=__main__:Texture",
    "eval_only=true",
    "resume=false",  # after a change of the class above, again
    "cache=auto",
    f"cache.dir={runs / 'cache'}",
    "data.eval_splits=[track,swap,reenter]",
]
shutil.rmtree(runs / "cache", ignore_errors=True)  # the class may have changed since
others = ["minvis", "identity", "mask-iou", "oracle"]
table = run(compose([*words, f"evaluation.rows=[{','.join(others)}]", f"run_dir={runs / 'table'}"])).parent

# %% [markdown]
# Is it better than MinVIS by more than chance? The videos are resampled for both alike.

# %%
own = "__main__:Texture"
compared = compare_runs([table], rows=["minvis", own], metrics=["AP", "AssA", "IDF1"])
Markdown(compared.to_markdown())

# %%
change = compared.differences.query("metric == 'AP' and by == 'all' and `class` == 'all'").set_index("split")
change = 100 * change[["value", "low", "high"]].astype(float)
better, worse = change.index[change["low"] > 0], change.index[change["high"] < 0]
said = [
    f"{split} {value:+.1f} [{low:+.1f}, {high:+.1f}]"
    for split, value, low, high in change.itertuples(name=None)
]
Markdown(
    f"Texture against MinVIS, AP: {'; '.join(said)}. Better by more than chance on "
    f"{', '.join(better) or 'no split'}, worse on {', '.join(worse) or 'none'}."
)

# %% [markdown]
# On drawn shapes with clean textures, untrained features of the first stage tell objects apart.
# Real objects change their light, pose and scale, which is what a head is trained for; the
# benchmark shows that the *mechanism* works, no more.
#
# ## An ablation
#
# Both knobs are `association_fields`, so every value is a second of association on the cached
# queries. The first row turns everything off, and has to be MinVIS.

# %%
settings = [(0, 0), (0, 0.8), (0.5, 0.8), (0.8, 0.8), (0.9, 0.8), (1, 0.8), (0.9, 0)]
paths = [runs / f"weight={weight},keep={keep}" for weight, keep in settings]
for (weight, keep), path in zip(settings, paths, strict=True):
    knobs = [f"tracker.texture_weight={weight}", f"tracker.keep={keep}", "evaluation.rows=[]"]
    with redirect_stdout(StringIO()):  # the tables; the next cell has one of all
        run(compose([*words, *knobs, f"run_dir={path}"]))

# %%
ablation = compare_runs(paths, bootstrap=0)
ap = ablation.frame.query("metric == 'AP' and by == 'all' and `class` == 'all'")
ap = 100 * ap.pivot(index="run", columns="split", values="value").loc[[str(path) for path in paths]]
ap.index = pd.MultiIndex.from_tuples(settings, names=["texture_weight", "keep"])
ap = ap[["track", "swap", "reenter"]]
ap.round(1)

# %%
minvis = compared.frame.query(
    "metric == 'AP' and by == 'all' and `class` == 'all' and results.str.contains('minvis')"
)
minvis = 100 * minvis.set_index("split")["value"]
assert (ap.loc[(0, 0)] - minvis).abs().max() < 1e-9, "with both knobs at 0 it should be MinVIS"

figure, axis = plt.subplots(figsize=(5, 3))
ap.xs(0.8, level="keep").plot(marker="o", ax=axis)
for split, line in zip(ap.columns, axis.get_lines(), strict=False):
    axis.axhline(minvis[split], color=line.get_color(), linestyle=":", linewidth=1)
axis.set(xlabel="texture_weight (keep 0.8; dotted: MinVIS)", ylabel="AP", ylim=(0, 100))
axis.legend(loc="center left")
axis.grid(alpha=0.3)

# %%
best = ap.idxmax()
Markdown(
    "\n".join(
        f"- **{split}** is best at texture_weight {weight:g}, keep {keep:g}: "
        f"{ap.loc[(weight, keep), split]:.1f} AP; without texture and memory {ap.loc[(0, 0), split]:.1f}."
        for split, (weight, keep) in best.items()
    )
    + "\n\nChosen on the very videos that are scored, so for the eye alone; `vistk tune` chooses on others."
)

# %% [markdown]
# ## To go on
#
# - **A file.** Put the class into `my_tracker.py` and say `tracker=my_tracker:Texture`; with an
#   entry point it has a name of its own: [examples/my_tracker](../examples/my_tracker/README.md) is
#   a package to copy, with the contract as its test.
# - **Another idea.** Change `describe` or `step` above and run all cells. `tracker.level=res3` is a
#   change of `describe`: it segments once more.
# - **Learn something.** A tracker with parameters says `losses`; `vistk/trackers/visage.py` is an
#   example.
# - **See where it fails.** `run_dir` in [association_failures](association_failures.ipynb), `vistk
#   tune` for its knobs once it is a file.
