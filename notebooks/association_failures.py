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
# # Association failures
#
# Every identity switch of two trackers, MinVIS and VISAGE: how many there are and why, what they
# look like, and what the similarity matrices said in the frames that decided. Did appearance help,
# and where it did not, why?
#
# It looks at the run that the README's one command leaves in `runs/synthetic/visage/default`. Where
# that is missing, it makes a shorter one of the same trackers (250 steps instead of 1,000; a
# minute). Any other run will do: set `run_dir`.

# %%
import os
import warnings
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import Markdown, display

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", "IProgress not found")  # bars of text will do
    from vistk.experiment import run

from vistk.config import compose
from vistk.evaluation import evaluate
from vistk.inspection.associations import AssociationStep, trace
from vistk.inspection.decisions import embedding_figure, memory_of_track, similarity_figure
from vistk.inspection.pictures import strip, timeline
from vistk.inspection.run_view import NOBODY, RunView

pd.set_option("display.max_colwidth", None)
if Path.cwd().name == "notebooks":
    os.chdir("..")  # paths are those of the README

run_dir = Path("runs/synthetic/visage/default")
if not (run_dir / "metrics.json").exists():
    run_dir = Path("runs/notebooks/visage")
    run(compose(["tracker=visage", "train.steps=250", f"run_dir={run_dir}"]))

# %% [markdown]
# ## All of them
#
# An instance *switches* when another track covers it than the last time (CLEAR's identity switch).
# Each switch has one cause, the first that holds: instances exchange tracks (*swap*), the instance
# was away (*re-entry*) or hidden (*occlusion*), a track goes from one instance to another
# (*merge*), or a new track begins on it (*split*). A *loss* is never covered again.

# %%
trackers = ["minvis", "visage"]
view = RunView(run_dir)
failures = pd.DataFrame(
    [
        (split, video, row, failure.change, failure.cause, failure.frame, failure.truth_ids[0], str(failure))
        for split in view.splits
        for row in trackers
        for video in view.split(split).video_ids
        for failure in view.split(split).video(video).failures(row)
    ],
    columns=["split", "video", "tracker", "change", "cause", "frame", "instance", "what"],
)
switches = failures[failures["change"] == "switch"]
assert len(switches), f"no track of {' or '.join(trackers)} switches in {run_dir}: there is nothing to see"
failures.groupby(["split", "tracker"]).head(1)[["split", "video", "tracker", "what"]]

# %% [markdown]
# These are the evaluator's identity switches, one for one:

# %%
report = evaluate(
    {
        split: (view.split(split).truth, {row: view.results_path(row, split) for row in trackers})
        for split in view.splits
    },
    metrics=["hota"],
    score_threshold=view.config.evaluation.track_score,
)
idsw = report.frame.query("metric == 'IDSW' and `class` == 'all'").set_index(["data_set", "results"])["value"]
counts = switches.groupby(["split", "tracker"]).size().reindex(idsw.index, fill_value=0)
assert (counts == idsw).all()
counts.unstack()

# %%
causes = switches.pivot_table(index=["split", "tracker"], columns="cause", aggfunc="size", fill_value=0)
splits = [split for split in view.splits if split in causes.index]
figure, axes = plt.subplots(
    1, len(splits), figsize=(3.4 * len(splits), 1.7), sharex=True, sharey=True, squeeze=False
)
for axis, split in zip(axes[0], splits, strict=True):
    causes.loc[split].reindex(trackers[::-1], fill_value=0).plot.barh(
        stacked=True, ax=axis, legend=False, width=0.7
    )
    axis.set(title=split, xlabel="switches", ylabel="")
figure.legend(
    *axes[0][0].get_legend_handles_labels(),
    loc="upper center",
    ncols=6,
    frameon=False,
    bbox_to_anchor=(0.5, 1.15),
)
figure.tight_layout()

# %% [markdown]
# ## Look at them
#
# Two videos: the one where VISAGE saves most switches of MinVIS, and the one where VISAGE itself
# switches most. Ground truth is on top; a track has the colour of the instance that it was on
# first, so a switch is a change of colour. A red frame is where one shows first.

# %%
per_video = switches.groupby(["split", "video", "tracker"]).size().unstack(fill_value=0)
per_video = per_video.reindex(columns=trackers, fill_value=0)
fewer = per_video["minvis"] - per_video["visage"]
saved = fewer[per_video["minvis"] > 0].idxmax() if per_video["minvis"].any() else fewer.idxmax()
worst = per_video["visage"].idxmax()


def look_at(split: str, video: int) -> None:
    """Film strip, timelines and the list of what happened."""
    one = view.split(split).video(video)
    frames = {failure.frame for row in trackers for failure in one.failures(row)}
    frames = sorted({0, len(one) - 1, *frames, *(t - 1 for t in frames)})
    display(Markdown(f"**{split}, video {one.name}**: {per_video.loc[(split, video)].to_dict()} switches"))
    display(strip(one, trackers, frames[:8]))
    for row in trackers:
        display(timeline(one, row))
        print("\n".join(map(str, one.failures(row))) or f"{row}: no failure")


look_at(*saved)

# %%
look_at(*worst)

# %% [markdown]
# ## What the matrices said
#
# A tracker that compares vectors puts every track beside every query of a frame. `trace` runs it
# again on the run's weights and keeps what it compared. Rows are tracks, with the instance that
# they were on last; columns are queries, with the instance whose mask they have. The frames mark
# what was chosen, and in red what would have been right. VISAGE's decision is the matrix *mixed* of
# *query* (where an object is, mostly) and *appearance*.

# %%
one = view.split(saved[0]).video(saved[1])
first = next((f for f in one.failures("minvis") if f.change == "switch"), None)
print(first or "minvis never switches")
for row in trackers if first else ():
    if (figure := similarity_figure(one, row, trace(one, row), first.frame)) is not None:
        display(figure)

# %% [markdown]
# The same in the video where VISAGE fails: the frame of its first switch, and what the track that
# lost its instance remembered then.

# %%
one = view.split(worst[0]).video(worst[1])
steps = trace(one, "visage")
failure = next((f for f in one.failures("visage") if f.change == "switch"), None)
print(failure or "visage never switches")
if failure is not None:
    for figure in (
        similarity_figure(one, "visage", steps, failure.frame),
        memory_of_track(one, "visage", steps, failure.track_ids[0]),
    ):
        if figure is not None:
            display(figure)

# %% [markdown]
# Where instances are in the space of each vector, over the whole video. Vectors that tell objects
# apart make one island of each colour; vectors that tell places make a path of each object, and
# paths that cross.

# %%
for name in ("query", "appearance"):
    display(embedding_figure(one, "visage", steps, name))

# %% [markdown]
# ## Did appearance help?
#
# Now for all of MinVIS's switches on the split that has most of them. In the frame where another
# track took the instance from MinVIS's, take VISAGE's track that was on that instance last, and ask
# each matrix by how much it prefers the right query to the best other one: the *margin*. Above 0
# the vector alone would have been right.


# %%
def last_track(steps: list[AssociationStep], instance: int, before: int) -> int | None:
    """The track that was last on an instance before a frame, in the tracker's numbers."""
    for step in reversed(steps[:before]):
        for track, query in step.chosen().items():
            if query >= 0 and step.truth_ids[query] == instance:
                return track
    return None


def margins(step: AssociationStep, track: int, instance: int) -> dict[str, float]:
    """By how much each similarity prefers the instance's query; empty where it has none."""
    place, query = np.flatnonzero(step.rows == track), np.flatnonzero(step.truth_ids == instance)
    if not len(place) or not len(query):
        return {}
    rows = {name: matrix[place[0]] for name, matrix in step.similarities.items()}
    return {name: float(row[query[0]] - np.delete(row, query[0]).max()) for name, row in rows.items()}


VERDICTS = {  # does the query's margin say so, does the appearance's
    (True, True): "both right",
    (False, True): "appearance alone right",
    (True, False): "query alone right",
    (False, False): "both wrong",
}
split = counts.xs("minvis", level="results").idxmax()
found = []
for video, own in switches.query("split == @split and tracker == 'minvis'").groupby("video"):
    steps = trace(view.split(split).video(video), "visage")
    for cause, frame, instance in own[["cause", "frame", "instance"]].itertuples(index=False):
        track = last_track(steps, instance, frame)
        margin = {} if track is None else margins(steps[frame], track, instance)
        if "appearance" in margin and "query" in margin:
            taken = steps[frame].chosen().get(track, NOBODY)
            kept = taken >= 0 and steps[frame].truth_ids[taken] == instance
            verdict = VERDICTS[margin["query"] > 0, margin["appearance"] > 0]
            found.append(
                {"video": video, "frame": frame, "cause": cause, **margin, "verdict": verdict, "kept": kept}
            )
columns = ["video", "frame", "cause", "query", "appearance", "mixed", "verdict", "kept"]
found = pd.DataFrame(found, columns=columns).astype({"kept": bool})
found.groupby(["verdict", "kept"]).size().unstack(fill_value=0).rename(
    columns={True: "VISAGE kept it", False: "lost it too"}
)

# %%
figure, axis = plt.subplots(figsize=(4.6, 4))
for kept, color, label in ((True, "#3b6ea8", "VISAGE kept it"), (False, "#d1495b", "lost it too")):
    own = found[found["kept"] == kept]
    axis.scatter(own["query"], own["appearance"], s=18, color=color, alpha=0.7, label=label)
axis.axhline(0, color="0.6", linewidth=1)
axis.axvline(0, color="0.6", linewidth=1)
axis.set(
    xlabel="margin of the query vector",
    ylabel="margin of the appearance vector",
    title=f"switches of MinVIS on {split}",
)
axis.legend(frameon=False)
figure.tight_layout()

# %%
helped = found.query("kept and verdict == 'appearance alone right'")
misled = found.query("not kept and appearance > 0")
blind = found.query("not kept and appearance <= 0")
Markdown(
    f"Of {len(found)} switches of MinVIS on {split} (those whose instance VISAGE had a track on), VISAGE "
    f"keeps {found['kept'].sum()}, in the frame where another track took it.\n\n"
    f"- In {len(helped)} of these the query vector pointed elsewhere, and appearance overruled it.\n"
    f"- In {len(misled)} others appearance was right and the instance was lost, to the weight of the query "
    "vector or to another track's claim: a matter of `tracker.appearance_weight`.\n"
    f"- In the other {len(blind)} appearance was wrong itself: a matter of its training, its levels, or of "
    "what the memory held."
)

# %% [markdown]
# By the cause of the switch, how often appearance was right and how often VISAGE kept the instance:

# %%
found.assign(appearance_right=found["appearance"] > 0).groupby("cause").agg(
    switches=("kept", "size"), appearance_right=("appearance_right", "mean"), kept=("kept", "mean")
).round(2)

# %% [markdown]
# ## To go on
#
# - One video as files: `vistk show RUN VIDEO`; all of it as one page: `vistk report RUN -o
#   report/`.
# - Other rows: `trackers` above may be any two of `view.rows`; the margins are of trackers that say
#   `similarities`.
# - How much AP each of this costs: [where_ap_goes](where_ap_goes.ipynb).
