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
# # Is the averaged head cheaper to run?
#
# Both heads are timed in one process, interleaved A B B A, so that a drift of the machine meets both alike; every
# sample is kept. The ratio is images per second, gap / flatten: above one, gap is faster.

# %%
from pathlib import Path

from gapbench.analysis.evidence import load_evidence
from gapbench.report import figures, tables

EXPERIMENT = "size_sweep"  # change me: "fashion_mnist"
evidence = load_evidence(Path("../results/published") / EXPERIMENT)
print(evidence.experiment.question)

# %%
figures.show("throughput_ratio", evidence)
# %%
tables.throughput_table(evidence)

# %% [markdown]
# One size, by batch: the backbone does nearly all the arithmetic, so the head hardly moves the speed.

# %%
PX = 28  # change me
counts = evidence.throughput.query("px == @PX and phase == 'train'")
counts[["batch", "flatten_images_per_s_median", "gap_images_per_s_median", "estimate", "low", "high", "n"]]
