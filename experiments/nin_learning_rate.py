"""Which peak learning rate suits each head of Network in Network's net? nin's tuned regime is chosen here.

    gapbench data add cifar10_jpeg PATH  # a folder or archive of train/<class>/* and test/<class>/*
    gapbench run nin_learning_rate       # 50 runs, about 20 min on two cores

Recipe and data are those of nin, on seeds of its own; the rule is that of learning_rate.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

BASE = {"optimizer": "sgd", "batch": 64, "steps": 1280, "eval_every": 10, "eval_growth": 1.25, "warmup_steps": 64}

EXPERIMENT = Experiment(
    question="Which rate suits each head of Network in Network's net?",
    runs=grid(
        task=Task(dataset="folder:cifar10_jpeg", px=32, train_images=2000, val_images=1000, curve_images=1000),
        backbone=Backbone(kind="nin", width=24, dropout=0.5),
        head=("flatten_conv:relu", "gap_conv:relu"),
        recipe=[Recipe(peak_lr=rate, head_lr=0.1, **BASE) for rate in (1.25e-2, 2.5e-2, 5e-2, 1e-1, 2e-1)],
        seed=range(100, 105),
    ),
    pair=("flatten_conv:relu", "gap_conv:relu"),
    axis="peak_lr",
    targets=(0.35, 0.3, 0.25),
    train_losses=(1.7, 1.5, 1.3),
)
