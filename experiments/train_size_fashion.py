"""Would the difference vanish with more data? On clothes, from 500 images to 10,000.

    gapbench run train_size_fashion      # 200 runs, about 15 min on two cores; feeds claim C2

train_size on Fashion-MNIST: recipe and rates are those of fashion_mnist at 28 px, only the number of training images
varies. The rates were tuned on 2,000 images.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On clothes: where, if anywhere, does flatten overtake gap as training images are added?",
    runs=grid(
        task=[Task(dataset="fashion_mnist", px=28, train_images=n) for n in (500, 1000, 2000, 5000, 10_000)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    tuned_on="learning_rate_fashion",
    tuned={"flatten": 1.2e-2, "gap": 1.2e-2},
    axis="train_images",
    family=("C2",),
    targets=(0.75, 0.5),
    train_losses=(0.7, 0.5, 0.3),  # of fashion_mnist
)
