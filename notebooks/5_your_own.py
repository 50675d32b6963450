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
# # A head and a backbone of your own
#
# An experiment is one Python file. It may register heads, backbones and data sets under names of your own; two runs
# that differ in the head alone are then a pair like any other. This is the only notebook that trains: seconds.

# %%
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gapbench.analysis.evidence import load_evidence
from gapbench.report import figures, tables

FILE = Path("../examples/your_own.py").resolve()  # change me: a copy of yours
print(FILE.read_text())

# %% [markdown]
# `gapbench run your_own.py`, in a folder of its own: a record for each run.

# %%
folder = Path(tempfile.mkdtemp())
os.environ.pop("FORCE_COLOR", None)  # which a kernel sets, and a progress bar would take for a terminal
shutil.copy(FILE, folder)
gapbench = [sys.executable, "-m", "gapbench.cli"]
run = subprocess.run([*gapbench, "run", FILE.name], cwd=folder, capture_output=True, text=True)
print(run.stdout.partition("\ndone")[0], run.stderr)

# %% [markdown]
# `gapbench report your_own` writes tables, figures and one page beside the records, and prints the verdicts. With four
# pairs no test can reach significance, six are the fewest: add seeds to the file, and the next run trains only those.

# %%
report = subprocess.run([*gapbench, "report", FILE.stem], cwd=folder, capture_output=True, text=True)
print(report.stdout, report.stderr)

# %%
evidence = load_evidence(folder / "results" / "reproduced" / FILE.stem)
tables.claims_table(evidence)

# %%
figures.show("learning_curves", evidence)
# %% [markdown]
# The head has no closed form in `gapbench.counts`, so its parameters are those of the net that was built.

# %%
tables.parameters_table(evidence)

# %% [markdown]
# What if? Any field can be set otherwise, which is another experiment, in another folder.

# %%
what_if = [*gapbench, "run", FILE.name, "--set", "task.px=8", "recipe.peak_lr=0.003"]  # change me
run = subprocess.run(what_if, cwd=folder, capture_output=True, text=True)
print(run.stdout.partition("\ndone")[0], run.stderr)

# %%
shutil.rmtree(folder)
