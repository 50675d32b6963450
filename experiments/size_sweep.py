"""Does the head's effect grow with the input size? Real MNIST digits, embedded in a package: works offline.

    gapbench run size_sweep              # 240 runs, about 10 min on two cores; feeds claims C1, C2, C5

In the shared regime the recipe is one for all cells, so that the head is all that differs. In the tuned regime each
head has the peak learning rate that `learning_rate` chose for it on other seeds.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does the flatten head overfit more, and learn faster, as inputs grow?",
    runs=grid(
        task=[Task(dataset="mnist5k", px=px, train_images=1000) for px in (14, 20, 28)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(20),
    ),
    tuned_on="learning_rate",
    tuned={"flatten": 6e-3, "gap": 1.2e-2},
    family=("C2", "C5"),
    # From learning_rate too: the median best validation accuracy of the weakest tuned cell, rounded down, and a train
    # loss that every run at a tuned or the shared rate fell below, so that both heads can get there. Others: rungs.
    targets=(0.92, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
