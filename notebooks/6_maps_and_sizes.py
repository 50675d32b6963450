# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Evidence maps, input sizes, positions
#
# Two claims are told as GAP's privilege: its maps show where the class is (C3, the seed of CAM), and it takes any input
# size (C4). A flatten head with one dense layer has an exact evidence map, too, and can be adapted to other sizes. So
# both heads are measured. Nothing is trained here.

# %%
from pathlib import Path

from gapbench.analysis.audits import audit_frame
from gapbench.analysis.evidence import load_evidence
from gapbench.report import figures, tables

PUBLISHED = Path("../results/published")
NAMES = ("maps", "test_size", "test_size_batch_norm", "position", "place")
maps, sizes, batch_norm, position, place = (load_evidence(PUBLISHED / name) for name in NAMES)
print(maps.experiment.question)

# %% [markdown]
# ## Where the evidence lies
#
# A digit stands anywhere on a canvas, among crops of others: its box and its pixels are known. The evidence for a
# class at a position is gradient times input, summed over channels: with the bias these sum to the logit exactly, for
# either of these heads. The pointing game asks whether the strongest evidence lies in the box; MaxBoxAcc draws boxes
# around what is above a threshold (chosen on other images); PxAP ranks pixels.

# %%
figures.show("maps", maps)
# %% [markdown]
# Grey are three baselines: a box in the centre, the same net before its first step, and the brightness of the image
# itself. Where brightness wins a box metric, the object is found without any net, and the metric says little of
# evidence; the pointing game is what claim C3 is judged by. The images of the gallery are chosen by a rule: the first
# judged test image of each of the first eight classes, of the first seed.

# %%
figures.show("gallery", maps)
# %% [markdown]
# A net that is more often right may have the better map for that reason alone. `where both are right` looks only at
# images that both nets of a pair classify correctly.

# %%
tables.maps_table(maps)

# %% [markdown]
# One run's answers, as its record holds them.

# %%
RECORD = maps.records[0]  # change me
audit_frame(RECORD, "maps").pivot(index="metric", columns="map", values="value").round(3)

# %% [markdown]
# A second opinion without boxes: erase the pixels of most evidence first, or show them first. The probability of the
# class runs from that of the blank image, 0 %, to that of the whole one, 100 %: the two nets differ in both.

# %%
figures.show("erasing", maps)
# %% [markdown]
# ## Other sizes
#
# Nets trained at 28 px meet the same test images at half to double that size, or in the middle of a black canvas. GAP
# runs at all of them. Whether it works is another question; flatten's adapters are its rivals.

# %%
figures.show("sizes", sizes)
# %%
tables.sizes_table(sizes)

# %% [markdown]
# With batch norm the statistics belong to the training size, too. They can be estimated anew, from images without
# labels, for a size that was not trained at (filled against open markers): on padded images that gives GAP most of its
# accuracy back, and it is then the better of the two.

# %%
figures.show("sizes", batch_norm)

# %% [markdown]
# ## Positions
#
# GAP averages over positions, but a convolution with zero padding knows where the border is. *Where* asks for the cell
# of a 3×3 grid; in *swapped* the side goes with the class in training and against it in test. On a circle GAP is nearly
# blind: what is left is where an object stands in the grid of the pooling.

# %%
figures.show("position", position)
# %%
tables.position_table(position)

# %% [markdown]
# ## The place or the clutter?
#
# On canvases GAP errs less than flatten, on the usual data sets more. Is it that the object may stand anywhere, or the
# clutter around it? Each is taken back alone; together they do more than either.

# %%
figures.show("paired_differences", place)
