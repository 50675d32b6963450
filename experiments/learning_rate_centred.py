"""Centred digits, the net of maps: which peak learning rate suits each head? The tuned regime of centred.

    gapbench run learning_rate_centred   # 70 runs, about 6 min on two cores

Recipe, data and net are those of centred; only the rate varies, by factors of two. Five seeds, as no interval is judged
by them.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On centred digits, with batch norm: is a difference between the heads one between learning rates?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=3000),
        backbone=Backbone(width=8, stages=3, norm="batch"),
        head=("flatten", "gap"),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (1.5e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2, 9.6e-2)
        ],
        seed=range(100, 105),
    ),
    axis="peak_lr",
    targets=(0.85, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
