"""Would another recipe tell another story? Optimiser, schedule, normalisation and augmentation, every combination.

    gapbench run recipes                 # 576 runs, about 20 min on two cores; feeds claims C2 and C5

Data are those of size_sweep at 20 px; a cell has one recipe for both heads. SGD's rate is 0.03 without normalisation
and 0.1 with it, the largest at which both heads learnt in a trial on another seed; AdamW's is 0.006, flatten's own.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

FIELDS = {
    "task": Task(dataset="mnist5k", px=20, train_images=1000),
    "head": ("flatten", "gap"),
    "seed": range(12),  # of 10 pairs none of 48 tests could be significant after Holm
}


def recipes(sgd_rate: float) -> list[Recipe]:
    """Both optimisers and schedules, with and without augmentation."""
    return [
        Recipe(
            **{"optimizer": optimizer, "peak_lr": rate, "schedule": schedule, "augment": augment},
            **{"batch": 64, "steps": 320, "eval_every": 10, "eval_growth": 1.25, "warmup_steps": 16},
        )
        for optimizer, rate in (("adamw", 6e-3), ("sgd", sgd_rate))
        for schedule in ("cosine", "constant")
        for augment in ("none", "shift")
    ]


EXPERIMENT = Experiment(
    question="Does each verdict survive another optimiser, schedule, normalisation or augmentation?",
    runs=(
        *grid(backbone=Backbone(width=16, stages=2), recipe=recipes(sgd_rate=3e-2), **FIELDS),
        *grid(
            backbone=[Backbone(width=16, stages=2, norm=norm) for norm in ("batch", "group")],
            recipe=recipes(sgd_rate=1e-1),
            **FIELDS,
        ),
    ),
    family=("C2", "C5"),
    targets=(0.85, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
