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
# # How many parameters does the head cost, and what do they buy?
#
# Flattening gives the dense layer one weight a position, channel and class: (H'·W'·C + 1)·K. Averaging first
# leaves (C + 1)·K, whatever the input size. The counts below are closed form; each record holds the count of the
# net that was really built, and a test compares the two.

# %%
from pathlib import Path

from gapbench.analysis.evidence import load_evidence
from gapbench.counts import count_head
from gapbench.report import figures, tables

EXPERIMENT = "size_sweep"  # change me: "fashion_mnist"
evidence = load_evidence(Path("../results/published") / EXPERIMENT)
print(evidence.experiment.question)

# %% [markdown]
# The article's example: 32 maps of 10×10, 2 classes. Change the shape and look again.

# %%
CHANNELS, FEATURE_PX, CLASSES = 32, 10, 2  # change me
for head in ("flatten", "gap", "gap_conv", "gmp"):
    print(f"{head:>10}: {count_head(head, CHANNELS, FEATURE_PX, CLASSES).parameters:,} parameters")

# %% [markdown]
# The nets of the experiment. GAP saves parameters and optimiser state, but hardly any arithmetic or activations.

# %%
tables.parameters_table(evidence)

# %%
figures.show("accuracy_by_parameters", evidence)
