"""Does averaging free the input size? Nets trained at one size, tested at others, against what flatten can do.

    gapbench run test_size               # 40 runs, about 6 min on two cores; feeds claim C4

Recipe, rates and data are those of size_sweep at 28 px. Each net is kept (checkpoints/, out of git) and sees the test
images resized to half and up to double its size, odd sizes among them, and in the middle of a larger black canvas.
Flatten takes them with an adapter (gapbench/sizes.py).
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Audit, Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does a net with GAP work at input sizes that it was not trained at, and can flatten be adapted to them?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
        audit=Audit(sizes=(14, 20, 24, 27, 28, 31, 36, 41, 48, 56)),
    ),
    tuned_on="learning_rate",
    tuned={"flatten": 6e-3, "gap": 1.2e-2},
    family=("C4",),
    targets=(0.92, 0.75, 0.5),  # of size_sweep
    train_losses=(0.6, 0.3, 0.1),
)
