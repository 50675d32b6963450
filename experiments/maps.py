"""Are GAP's maps evidence for the class, more than flatten's own? Both heads' exact maps, where objects are known.

    gapbench run maps                    # 120 runs, about 50 min on two cores; feeds claims C2, C3 and C5

A digit stands anywhere among crops of others, on canvases of growing size (gapbench/data/canvas.py). Every net is then
asked where its evidence for the image's class lies (gapbench/maps.py), and how well that finds the digit
(gapbench/localisation.py). Sizes are multiples of the net's stride, so that its last map covers the whole canvas.
"""

from gapbench.data import canvas
from gapbench.experiment import Experiment, grid
from gapbench.spec import Audit, Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="Do GAP's maps show where the object is, and better than flatten's own?",
    runs=grid(
        task=[Task(dataset=canvas("mnist5k"), px=px, train_images=3000) for px in (32, 40, 56)],
        backbone=Backbone(width=8, stages=3, norm="batch"),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=6e-3, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
        audit=Audit(maps=True),
    ),
    tuned_on="learning_rate_canvas",
    tuned={"flatten": 1.2e-2, "gap": 4.8e-2},
    family=("C2", "C3", "C5"),
    targets=(0.86, 0.75, 0.5),
    train_losses=(0.3, 0.6, 0.1),
)
