"""On canvases: which peak learning rate suits each head? The tuned regime of maps is chosen here.

    gapbench run learning_rate_canvas    # 60 runs, about 14 min on two cores

Recipe and data are those of maps, at its middle size: a digit anywhere among crops of others. Only the rate varies, by
factors of two. Five seeds, as no interval is judged by them. Batch norm, because without it neither head learns these
images in so few steps; three stages, because an object is up to 25 px wide.
"""

from gapbench.data import canvas
from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On canvases: is a difference between the heads one between learning rates?",
    runs=grid(
        task=Task(dataset=canvas("mnist5k"), px=40, train_images=3000),
        backbone=Backbone(width=8, stages=3, norm="batch"),
        head=("flatten", "gap"),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (3e-3, 6e-3, 1.2e-2, 2.4e-2, 4.8e-2, 9.6e-2)
        ],
        seed=range(100, 105),
    ),
    axis="peak_lr",
    targets=(0.85, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
