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
# # Does averaging suppress overfitting?
#
# Overfit is train accuracy minus test accuracy, both evaluated in eval mode. At the last step it confounds speed
# with regularisation: a head that has learnt less has also overfitted less. So the primary measure compares the
# heads where their *train loss* is equal, and asks for test error as well. In the shared regime both heads have one
# recipe; in the tuned regime each has the learning rate that it would choose on validation images of other seeds.

# %%
from pathlib import Path

from gapbench.analysis.evidence import load_evidence
from gapbench.analysis.pairs import paired_values
from gapbench.report import figures, tables

EXPERIMENT = "size_sweep"  # change me: "fashion_mnist"
evidence = load_evidence(Path("../results/published") / EXPERIMENT)
print(evidence.experiment.question)

# %%
figures.show("along_axis", evidence)
# %% [markdown]
# Each dot is a pair: two runs with the same images, initial backbone and batch order that differ in the head alone.

# %%
figures.show("paired_differences", evidence)
# %% [markdown]
# One size and one measure, pair by pair.

# %%
REGIME, PX, MEASURE = "tuned", 28, "test_error"  # change me: "overfit_final", "overfit_best_val", "overfit_area"
cell = next(cell for cell in evidence.experiment.cells if (cell.regime, cell.px) == (REGIME, PX))
seeds, flatten, gap = paired_values(evidence.measures, cell, evidence.experiment.pair, MEASURE)
for seed, a, b in zip(seeds, flatten, gap, strict=True):
    print(f"seed {seed}: flatten {a:.3f}, gap {b:.3f}, difference {b - a:+.3f}")

# %% [markdown]
# Seven readings side by side, and how many pairs it would take to find half a point.

# %%
tables.overfitting_table(evidence)

# %%
tables.power_table(evidence)
