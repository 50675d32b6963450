"""On canvases the heads change places: is it the place of the object, or the clutter around it?

    gapbench run place                   # 160 runs, about 35 min on two cores

maps has a digit anywhere among crops of others; the usual data sets have it in the middle, alone. Here each is taken
back alone: the same digits, no larger or smaller, anywhere or in the middle, with clutter and without. Net, recipe,
rates and size are those of maps at 40 px. The tuned regime's rates were chosen anywhere among crops; flatten's is also
the one that suits centred digits, gap's is twice that (learning_rate_centred).
"""

from itertools import product

from gapbench.data import canvas
from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="What puts GAP ahead on canvases: that the object may stand anywhere, or the clutter around it?",
    runs=grid(
        task=[
            Task(dataset=canvas("mnist5k", place=place, clutter=clutter), px=40, train_images=3000)
            for place, clutter in product(("anywhere", "middle"), ("crops", "none"))
        ],
        backbone=Backbone(width=8, stages=3, norm="batch"),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=6e-3, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    tuned_on="learning_rate_canvas",
    tuned={"flatten": 1.2e-2, "gap": 4.8e-2},
    targets=(0.86, 0.75, 0.5),  # of maps
    train_losses=(0.3, 0.6, 0.1),
)
