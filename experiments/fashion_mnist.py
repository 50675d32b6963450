"""The size sweep on harder images and up to 40 px, where the last feature map is the article's: 32 maps of 10×10.

    gapbench run fashion_mnist           # 160 runs, about 15 min on two cores; feeds claims C1, C2, C5

The recipe is that of size_sweep with half as many steps again, for twice the images; the rates of the tuned regime are
those that learning_rate_fashion chose.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On clothes instead of digits: does the flatten head overfit more, and learn faster, as inputs grow?",
    runs=grid(
        task=[Task(dataset="fashion_mnist", px=px, train_images=2000) for px in (14, 20, 28, 40)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    family=("C2", "C5"),
    tuned_on="learning_rate_fashion",
    tuned={"flatten": 1.2e-2, "gap": 1.2e-2},
    targets=(0.81, 0.7, 0.5),  # as in size_sweep
    train_losses=(0.7, 0.5, 0.3),
)
