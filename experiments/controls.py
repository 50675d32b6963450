"""What remains of the difference between the heads when one thing is taken away?

    gapbench run controls                # 360 runs, about 20 min on two cores

Data and recipe are those of size_sweep at 28 px, at both heads' tuned rates; every arm is compared with gap. Parameters
matched down (flatten_lowrank) and up (gap_mlp), dropout for both heads, weight decay of the head, other pools (gmp,
gem), Network in Network's 1×1 maps with and without ReLU, a flatten head that starts as gap's function, gap again.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

RATES = (6e-3, 1.2e-2)  # flatten's and gap's
CELL = {
    "task": Task(dataset="mnist5k", px=28, train_images=1000),
    "backbone": Backbone(width=16, stages=2),
    "seed": range(10),
}
BASE = {"batch": 64, "steps": 320, "eval_every": 10, "eval_growth": 1.25, "warmup_steps": 16}
HEADS = ("gap", "flatten", "flatten_tiled", "flatten_lowrank", "gap_mlp", "gap_conv", "gap_conv:relu", "gmp", "gem")
TREATED = [{"dropout": 0.3}, {"dropout": 0.5}, {"head_weight_decay": 0.0}, {"head_weight_decay": 1.0}]

EXPERIMENT = Experiment(
    question="Is it the parameters, the start, the pooling, or the regularisation that makes the heads differ?",
    runs=(
        *grid(head=HEADS, recipe=[Recipe(peak_lr=rate, **BASE) for rate in RATES], **CELL),
        *grid(
            head=("gap", "flatten"),
            recipe=[Recipe(peak_lr=rate, **BASE, **how) for rate in RATES for how in TREATED],
            **CELL,
        ),
        *grid(head="gap", recipe=[Recipe(peak_lr=rate, **BASE) for rate in RATES], repeat=1, **CELL),
    ),
    targets=(0.92, 0.75, 0.5),  # of size_sweep
    train_losses=(0.6, 0.3, 0.1),
)
