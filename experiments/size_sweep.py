"""Does the head's effect grow with the input size? Real MNIST digits, embedded in a package: works offline.

    gapbench run size_sweep              # 60 runs, about 7 min on two cores; feeds claims C1, C2, C5
    gapbench run size_sweep --pilot      # 18 runs on other seeds, from which targets and train_losses were set

The recipe is one for all cells, so that the head is all that differs: the learning rate suits the flatten head (all
training images learnt in a third of the steps), and 320 steps leave the gap head still learning at 28 px. That is
a finding about the shared regime, shown as such and not tuned away; equal tuning is another experiment's question.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Does the flatten head overfit more, and learn faster, as inputs grow?",
    runs=grid(
        task=[Task(dataset="mnist5k", px=px, train_images=1000) for px in (14, 20, 28)],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=320, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
    ),
    family=("C2", "C5"),
    # From the pilot: the median best validation accuracy of its weakest cell, rounded down, and the largest train
    # loss that a pilot run ended with, rounded up, so that both heads can get there. The others are rungs.
    pilot_seeds=(100, 101, 102),
    targets=(0.88, 0.75, 0.5),
    train_losses=(0.6, 0.3, 0.1),
)
