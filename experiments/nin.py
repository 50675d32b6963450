"""Network in Network's own comparison of three heads, at a size that a CPU can train: 24 maps, 2,000 photographs.

    gapbench data add cifar10_jpeg PATH  # a folder or archive of train/<class>/* and test/<class>/*
    gapbench run nin                     # 50 runs, about 25 min on two cores; feeds claims C2 and C5

Three mlpconv blocks with dropout 0.5 between them, the head's learning rate a tenth of the body's, ReLU before the
average: the paper's net, whose fully connected controls see the same last maps. The rates were tuned without the
head's dropout. accelerator_nin has the full width.
"""

from gapbench.experiment import Experiment, Reported, grid
from gapbench.spec import Backbone, Recipe, Task

BASE = {"optimizer": "sgd", "batch": 64, "steps": 1280, "eval_every": 10, "eval_growth": 1.25, "warmup_steps": 64}
CELL = {
    "task": Task(dataset="folder:cifar10_jpeg", px=32, train_images=2000, val_images=1000, curve_images=1000),
    "backbone": Backbone(kind="nin", width=24, dropout=0.5),
    "seed": range(10),
}

EXPERIMENT = Experiment(
    question="In the net that brought averaging up, do fully connected heads overfit, and does dropout mend it?",
    runs=(
        *grid(head=("flatten_conv:relu", "gap_conv:relu"), recipe=Recipe(peak_lr=5e-2, head_lr=0.1, **BASE), **CELL),
        *grid(head="flatten_conv:relu", recipe=Recipe(peak_lr=5e-2, head_lr=0.1, dropout=0.5, **BASE), **CELL),
    ),
    tuned_on="nin_learning_rate",
    tuned={"flatten_conv:relu": 2.5e-2, "gap_conv:relu": 5e-2},
    pair=("flatten_conv:relu", "gap_conv:relu"),
    family=("C2", "C5"),
    targets=(0.42, 0.35, 0.25),  # as in size_sweep
    train_losses=(1.7, 1.5, 1.3),
    reported=Reported(
        source="Lin et al. 2013 (arXiv 1312.4400, section 4.6)",
        differs="an eighth of the maps (24 for 192), 2,000 training images for 50,000, re-encoded as JPEG, neither"
        " contrast normalisation nor whitening, He's initial weights, biases at the weights' rate, Nesterov momentum,"
        " 1,280 steps of 64 with one cosine.",
        test_error={"flatten_conv:relu": 0.1159, "flatten_conv:relu, dropout 0.5": 0.1088, "gap_conv:relu": 0.1041},
    ),
)
