"""As test_size, with batch norm: its statistics belong to a size, too, and can be estimated anew at another.

    gapbench run test_size_batch_norm    # 40 runs, about 8 min on two cores; feeds claim C4

Apart from test_size because batch norm wants other rates: the tuned regime is chosen by learning_rate_batch_norm.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Audit, Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="With batch norm: does a net with GAP work at input sizes that it was not trained at?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=Backbone(width=16, stages=2, norm="batch"),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
        audit=Audit(sizes=(14, 20, 24, 27, 28, 31, 36, 41, 48, 56)),
    ),
    tuned_on="learning_rate_batch_norm",
    tuned={"flatten": 2.4e-2, "gap": 6e-3},
    family=("C4",),
    targets=(0.96, 0.92, 0.75),
    train_losses=(0.5, 0.3, 0.1),
)
