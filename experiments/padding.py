"""Does the border matter? Zero padding tells a convolution where it is; other paddings tell it less, or nothing.

    gapbench run padding                 # 120 runs, about 5 min on two cores; feeds claims C2 and C5

Recipe, rates and data are those of size_sweep at its largest input. A circular border has no edge, so that the average
of its maps knows no position; a valid one pads nothing and leaves smaller maps.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does GAP lose more where zero padding does not tell the maps where they are?",
    runs=grid(
        task=Task(dataset="mnist5k", px=28, train_images=1000),
        backbone=[Backbone(width=16, stages=2, padding=padding) for padding in ("zero", "circular", "valid")],
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    tuned_on="learning_rate",
    tuned={"flatten": 6e-3, "gap": 1.2e-2},
    family=("C2", "C5"),
    targets=(0.92, 0.75, 0.5),  # of size_sweep
    train_losses=(0.6, 0.3, 0.1),
)
