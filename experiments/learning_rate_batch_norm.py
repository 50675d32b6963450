"""With batch norm: which peak learning rate suits each head? The tuned regime of test_size_batch_norm.

    gapbench run learning_rate_batch_norm    # 70 runs, about 6 min on two cores

Recipe and data are those of size_sweep at 28 px, with batch norm in the net; only the rate varies, by factors of two.
Five seeds, as no interval is judged by them.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="With batch norm: is a difference between the heads one between learning rates?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=Backbone(width=16, stages=2, norm="batch"),
        head=("flatten", "gap"),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (1.5e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2, 9.6e-2)
        ],
        seed=range(100, 105),
    ),
    axis="peak_lr",
    targets=(0.85, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
