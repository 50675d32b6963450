"""Would the difference vanish with more data? From 250 real MNIST digits to all that are left.

    gapbench run train_size              # 200 runs, about 10 min on two cores; feeds claim C2

Recipe and rates are those of size_sweep at its largest input; only the number of training images varies, so the
smaller sets are seen more often in the same number of steps. The rates were tuned on 1,000 images.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Where, if anywhere, does flatten overtake gap as training images are added?",
    runs=grid(
        task=[Task(dataset="mnist5k", px=28, train_images=n) for n in (250, 500, 1000, 2000, 3500)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    tuned_on="learning_rate",
    tuned={"flatten": 6e-3, "gap": 1.2e-2},
    axis="train_images",
    family=("C2",),
    targets=(0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
