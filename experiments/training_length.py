"""Is GAP only undertrained? From 320 steps, where size_sweep stops, to eight times as many.

    gapbench run training_length         # 160 runs, about 25 min on two cores; feeds claim C2

Recipe, rates and data are those of size_sweep at its largest input; each length has a schedule of its own, so that
every run ends at a learning rate of zero. The rates were tuned on 320 steps.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

BASE = {"peak_lr": 3e-3, "batch": 64, "eval_every": 10, "eval_growth": 1.25, "warmup_steps": 16}

EXPERIMENT = Experiment(
    question="Does flatten's lower test error remain when both heads train until nothing more is gained?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=[Recipe(steps=steps, **BASE) for steps in (320, 640, 1280, 2560)],
        seed=range(10),
    ),
    tuned_on="learning_rate",
    tuned={"flatten": 6e-3, "gap": 1.2e-2},
    axis="steps",
    family=("C2",),
    targets=(0.92, 0.75, 0.5),  # of size_sweep
    train_losses=(0.6, 0.3, 0.1),
)
