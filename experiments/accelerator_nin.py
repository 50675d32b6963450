"""Network in Network's three heads at the paper's width: nin with 192 maps on all photographs, 20 passes over them.

    gapbench data add cifar10_jpeg PATH      # a folder or archive of train/<class>/* and test/<class>/*
    gapbench run accelerator_nin --pilot     # 3 runs: check targets and train_losses against them
    gapbench run accelerator_nin             # 30 runs, as fleets where there is an accelerator

Nobody has run it yet: its rate is nin's shared one, and its targets are guesses that the pilot has to confirm.
"""

from gapbench.experiment import Experiment, Reported, grid
from gapbench.spec import Backbone, Recipe, Task

RECIPE = {
    **{"optimizer": "sgd", "peak_lr": 5e-2, "head_lr": 0.1, "batch": 128, "steps": 7000, "warmup_steps": 350},
    **{"eval_every": 50, "eval_growth": 1.25},
}
CELL = {
    "task": Task(dataset="folder:cifar10_jpeg", px=32, train_images=45_000, val_images=5_000, curve_images=2_000),
    "backbone": Backbone(kind="nin", width=192, dropout=0.5),
    "seed": range(10),
}

EXPERIMENT = Experiment(
    question="At full size: do the fully connected heads of Network in Network overfit, and does dropout mend it?",
    runs=(
        *grid(head=("flatten_conv:relu", "gap_conv:relu"), recipe=Recipe(**RECIPE), **CELL),
        *grid(head="flatten_conv:relu", recipe=Recipe(dropout=0.5, **RECIPE), **CELL),
    ),
    pair=("flatten_conv:relu", "gap_conv:relu"),
    family=("C2", "C5"),
    pilot_seeds=(100,),
    targets=(0.75, 0.6, 0.5),
    train_losses=(1.0, 0.7, 0.5),
    reported=Reported(
        source="Lin et al. 2013 (arXiv 1312.4400, section 4.6)",
        differs="45,000 training images, re-encoded as JPEG, neither contrast normalisation nor whitening, He's initial"
        " weights, biases at the weights' rate, Nesterov momentum, 20 passes with one cosine.",
        test_error={"flatten_conv:relu": 0.1159, "flatten_conv:relu, dropout 0.5": 0.1088, "gap_conv:relu": 0.1041},
    ),
)
