"""Dose and response: what happens between averaging everything (g = 1) and nothing (g = 7)?

    gapbench run ladder                  # 260 runs, about 15 min on two cores

Data and recipe are those of size_sweep at 28 px, where the last feature map is 7×7; each rung averages it onto a g×g
grid before the dense layer. Every rung twice: as initialised by default, and starting as exactly gap's function. All at
both heads' tuned rates, since a rung has no tuned rate of its own.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Is there a dose and a response between gap and flatten, and is it the start or the structure?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=Backbone(width=16, stages=2),
        head=(
            "gap",
            *(f"{kind}:{g}" for kind in ("ladder", "ladder_tiled") for g in range(2, 7)),
            "flatten",
            "flatten_tiled",
        ),
        recipe=[
            Recipe(peak_lr=rate, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16)
            for rate in (6e-3, 1.2e-2)
        ],
        seed=range(10),
    ),
    targets=(0.92, 0.75, 0.5),  # of size_sweep
    train_losses=(0.6, 0.3, 0.1),
)
