"""The smallest experiment that goes through every part of `make accelerator`: see `accelerator.py --rehearse`."""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does every part work here?",
    runs=grid(
        task=Task(dataset="digits", px=8, train_images=100, val_images=50, curve_images=50),
        backbone=Backbone(width=4, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=16, steps=20, eval_every=10),
        seed=range(2),
    ),
    family=("C2", "C5"),
    targets=(0.5,),
    train_losses=(2.0,),
)
