"""Which peak learning rate suits each head? The tuned regime of fashion_mnist is chosen here, on seeds of its own.

    gapbench run learning_rate_fashion   # 280 runs, about 35 min on two cores; feeds fashion_mnist's tuned regime

Recipe and data are those of fashion_mnist, at its smallest and largest input; only the rate varies, by factors of two
around the shared regime's 0.003. Each head's rate is the one with the best validation accuracy over both sizes
(gapbench/analysis/tuning.py has the rule).
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On clothes: is a difference between the heads one between learning rates?",
    runs=grid(
        task=[Task(dataset="fashion_mnist", px=px, train_images=2000) for px in (14, 40)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (7.5e-4, 1.5e-3, 3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2)
        ],
        seed=range(100, 110),
    ),
    axis="peak_lr",
    targets=(0.75, 0.7, 0.5),
    train_losses=(0.7, 0.5, 0.3),
)
