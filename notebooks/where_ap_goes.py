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
# # Where AP goes
#
# A table of trackers says who has more AP. This notebook says what each of them lacks: what the
# evaluator's oracle would gain by putting identities, then classes, then masks right, what each
# kind of error costs, and which of it separates two rows by more than chance.
#
# It looks at the run that the README's one command leaves in `runs/synthetic/visage/default`. Where
# that is missing, it makes a shorter one of the same trackers (250 steps instead of 1,000; a
# minute). Any other run will do: set `run_dir`.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
from IPython.display import Markdown

from vistk.config import compose
from vistk.evaluation import evaluate
from vistk.experiment import run
from vistk.inspection.run_view import RunView

if Path.cwd().name == "notebooks":
    os.chdir("..")  # paths are those of the README

run_dir = Path("runs/synthetic/visage/default")
if not (run_dir / "metrics.json").exists():
    run_dir = Path("runs/notebooks/visage")
    run(compose(["tracker=visage", "train.steps=250", f"run_dir={run_dir}"]))

# %% [markdown]
# ## One evaluation of everything
#
# Every row on every split, with the diagnosis of errors and the gaps to the oracle. Nothing is
# tracked here: `evaluate` reads results files, and takes those of any other project just as well.

# %%
baseline, contender = "minvis", "visage"
view = RunView(run_dir)
rows = [baseline, *(row for row in view.rows if row != baseline)]

report = evaluate(
    {
        split: (view.split(split).truth, {row: view.results_path(row, split) for row in rows})
        for split in view.splits
    },
    metrics=("ap", "errors", "gaps"),
    score_threshold=view.config.evaluation.track_score,
)
numbers = report.frame.query("`class` == 'all'")
numbers.head(3)[["data_set", "results", "metric", "class", "by", "group", "value"]]

# %% [markdown]
# One number a row: `results` is the tracker, `by` and `group` say what kind of number it is. The
# rest of this notebook picks from this frame.

# %%
ap = (
    100
    * numbers.query("metric == 'AP' and by == 'all'").pivot(
        index="results", columns="data_set", values="value"
    )
).loc[rows, list(view.splits)]
ap.round(1)

# %% [markdown]
# ## What is missing to 100
#
# Every prediction is put right step by step. First the evaluator links the predicted masks as
# ground truth would have linked them (*association*), then it gives every track the class of its
# instance (*classification*), then its true masks (*mask*). What is left are instances and frames
# that no mask shows (*missing*). So the parts add up: AP + association + classification + mask +
# missing = 100. A gap can be negative, where right tracks end up ranked lower; the bars leave such
# pieces out, the table has them.

# %%
gaps = (
    100
    * numbers.query("by == 'oracle'").pivot(index=["data_set", "results"], columns="group", values="value")
)[["association", "classification", "mask", "missing"]]
parts = gaps.copy()
parts.insert(0, "AP", ap.unstack())
assert (parts.sum(axis="columns") - 100).abs().max() < 1e-6
parts.loc[view.splits[-1]].loc[rows].round(1)

# %%
colors = {
    "AP": "#3b6ea8",
    "association": "#d1495b",
    "classification": "#edae49",
    "mask": "#66a182",
    "missing": "#9a9a9a",
}
figure, axes = plt.subplots(
    1, len(view.splits), figsize=(3.4 * len(view.splits), 3.2), sharey=True, squeeze=False
)
for axis, split in zip(axes[0], view.splits, strict=True):
    shown = parts.loc[split].loc[rows[::-1]].clip(lower=0)
    shown.plot.barh(stacked=True, ax=axis, color=colors, legend=False, width=0.8)
    axis.set(title=split, xlim=(0, 100), xlabel="AP", ylabel="")
handles, labels = axes[0][0].get_legend_handles_labels()
figure.legend(handles, labels, loc="upper center", ncols=5, frameon=False, bbox_to_anchor=(0.5, 1.08))
figure.tight_layout()

# %%
lines = []
for split in view.splits:
    own = gaps.loc[(split, contender)]
    lines.append(
        f"- **{split}**: {contender} has {ap.loc[contender, split]:.1f} AP. The largest gap is "
        f"*{own.idxmax()}* ({own.max():.1f}); better association alone could bring it to "
        f"{ap.loc[contender, split] + own['association']:.1f}."
    )
Markdown("\n".join(lines))

# %% [markdown]
# Association by ground truth is also a row of the table, `oracle`: a tracker that is told which
# query is whose. That row and AP + association differ a little, because the tracker sees the
# queries of every frame, and the evaluator only the few tracks that a results file kept.
#
# ## What each kind of error costs
#
# Every wrong prediction has one kind, as in TIDE: the right place and the wrong class
# (*classification*), the right object but masks too far off in some frames (*spatial*) or in the
# wrong frames (*temporal*, which is where a swapped identity ends up), a second track on one object
# (*duplicate*), and so on. The cost of a kind is what AP50 would gain, were all errors of that kind
# mended. Costs do not add up: mending one changes what another would bring.

# %%
cost = 100 * numbers.query("metric == 'dAP' and group not in ['false_positives', 'false_negatives']").pivot(
    index=["data_set", "results"], columns="group", values="value"
)
compared = [row for row in (baseline, "visage-no-appearance", "visage-no-memory", contender) if row in rows]
kinds = cost.columns[(cost > 0.5).any()]
figure, axes = plt.subplots(
    1, len(view.splits), figsize=(3.4 * len(view.splits), 2.4), sharey=True, sharex=True, squeeze=False
)
for axis, split in zip(axes[0], view.splits, strict=True):
    cost.loc[split].loc[compared, kinds].T.plot.barh(ax=axis, legend=False, width=0.8)
    axis.set(title=split, xlabel="AP50 to gain", ylabel="")
axes[0][0].invert_yaxis()
figure.legend(
    *axes[0][0].get_legend_handles_labels(),
    loc="upper center",
    ncols=4,
    frameon=False,
    bbox_to_anchor=(0.5, 1.12),
)
figure.tight_layout()

# %% [markdown]
# The same for identities alone: how often an instance changed its track, and why. `switch` is
# CLEAR's identity switch; a `loss` is never found again; a `start` takes over a track that was
# another instance's.

# %%
events = numbers.query("metric == 'events' and results in @compared").pivot(
    index=["data_set", "results"], columns="group", values="value"
)
events = events.loc[[(split, row) for split in view.splits for row in compared]]
events.loc[:, (events > 0).any()].astype(int).transpose()

# %% [markdown]
# ## Which differences are more than chance?
#
# Two trackers are compared on the same resampled videos, so that hard videos do not count as a
# difference. The change in AP is, with the sign turned, the sum of the changes of the gaps: it says
# where a gain comes from.

# %%
pair = evaluate(
    {
        split: (
            view.split(split).truth,
            {row: view.results_path(row, split) for row in (baseline, contender)},
        )
        for split in view.splits
    },
    metrics=("ap", "gaps"),
    bootstrap=500,
)
paired = pair.differences.query("`class` == 'all' and (metric == 'AP' and by == 'all' or by == 'oracle')")
paired = paired.assign(part=paired["group"].replace("all", "AP")).set_index(["data_set", "part"])
paired = (100 * paired[["value", "low", "high"]].astype(float)).round(6) + 0.0  # no -0.0
paired.unstack("data_set").swaplevel(axis="columns")[list(view.splits)].round(1)

# %%
order = ["AP", "association", "classification", "mask", "missing"]
figure, axes = plt.subplots(
    1, len(view.splits), figsize=(3.4 * len(view.splits), 2.4), sharey=True, sharex=True, squeeze=False
)
for axis, split in zip(axes[0], view.splits, strict=True):
    own = paired.loc[split].loc[order[::-1]]
    axis.axvline(0, color="0.7", linewidth=1)
    axis.hlines(own.index, own["low"], own["high"], color=[colors[part] for part in own.index], linewidth=3)
    axis.scatter(own["value"], own.index, color=[colors[part] for part in own.index], zorder=3)
    axis.set(title=split, xlabel=f"{contender} - {baseline}")
figure.tight_layout()

# %%
lines = []
for split in view.splits:
    change, low, high = paired.loc[(split, "AP")]
    by_association = 0.0 - paired.loc[(split, "association"), "value"]
    sure = "more than chance" if low > 0 or high < 0 else "not more than chance"
    lines.append(
        f"- **{split}**: {change:+.1f} AP [{low:+.1f}, {high:+.1f}], {sure}; {by_association:+.1f} of it "
        "from association."
    )
Markdown("\n".join(lines))

# %% [markdown]
# ## To go on
#
# - Another pair: change `baseline` and `contender`; all rows are in `report` already;
#   `evaluation.rows` of a run says which there are.
# - Results of other projects: `evaluate("gt.json", {"mine": "a.json", "theirs": "b.json"},
#   metrics=("ap", "errors", "gaps"))`; as a command, `vistk evaluate gt.json a.json b.json
#   --metrics ap,errors,gaps`.
# - The cases behind a number: [association_failures](association_failures.ipynb) shows them one by
#   one.
