"""Which peak learning rate suits each head? The tuned regime of size_sweep is chosen here, on seeds of its own.

    gapbench run learning_rate           # 280 runs, about 12 min on two cores; feeds size_sweep's tuned regime

Recipe and data are those of size_sweep, at its smallest and its largest input; only the rate varies, by factors of two
around the shared regime's 0.003. Each head's rate is the one with the best validation accuracy over both sizes
(gapbench/analysis/tuning.py has the rule).
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Is a difference between the heads one between learning rates?",
    runs=grid(
        task=[Task(dataset="mnist5k", px=px, train_images=1000) for px in (14, 28)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2)
        ],
        seed=range(100, 110),
    ),
    axis="peak_lr",
    targets=(0.85, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
