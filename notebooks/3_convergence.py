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
# # Does averaging slow convergence down?
#
# Steps until the validation accuracy stays above a target that was fixed in advance, from tuning runs on other seeds.
# A run that never gets there is censored at the last step: it is neither dropped nor counted as just in time.

# %%
from pathlib import Path

from gapbench.analysis.evidence import load_evidence
from gapbench.report import figures, tables

EXPERIMENT = "size_sweep"  # change me: "fashion_mnist"
evidence = load_evidence(Path("../results/published") / EXPERIMENT)
print(evidence.experiment.question)

# %%
figures.show("learning_curves", evidence)
# %%
figures.show("time_to_target", evidence)
# %%
tables.convergence_table(evidence)

# %% [markdown]
# The usual account of why: averaging divides the gradient by H'·W'. The table has that prediction beside what was
# measured at the initial weights; the figure follows the norms along training.

# %%
tables.gradients_table(evidence)

# %%
figures.show("gradients", evidence)

# %% [markdown]
# One head at one size, run by run.

# %%
REGIME, PX, HEAD = "tuned", 28, "gap"  # change me
target = f"{evidence.experiment.targets[0]:g}"
rows = evidence.measures.query("regime == @REGIME and px == @PX and head == @HEAD")
rows[["seed", f"steps_to_{target}", f"reached_{target}", "best_val_accuracy", "train_loss_final"]]
