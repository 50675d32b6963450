"""Is GAP blind to position? What a net can tell of where, what it uses of it, and whether it holds still under shifts.

    gapbench run position                # 180 runs, about 20 min on two cores

Three tasks on canvases: *where* asks for the cell of a 3×3 grid that holds the digit; *what* for the digit; *swapped*,
too, but in training even digits stand on the left and odd ones on the right, and in test the reverse, so that a net
that went by the side is wrong (after Kayhan & van Gemert 2020, arXiv 2003.07064). Zero padding marks the border;
circular padding does not; valid adds none. One rate for both heads: flatten's own by learning_rate_canvas. It was not
chosen for these tasks, nor for this net of two stages: what the heads can tell is compared at one recipe, not at each
one's best.
"""

from gapbench.data import canvas
from gapbench.experiment import Experiment, grid
from gapbench.spec import Audit, Backbone, Recipe, Task

LABELS = ("where", "what", "swapped")

EXPERIMENT = Experiment(
    question="Does GAP know where an object is, and does padding tell it?",
    runs=grid(
        task=[
            Task(dataset=canvas("mnist5k", scale=(0.4, 0.65), label=label), px=28, train_images=3000)
            for label in LABELS
        ],
        backbone=[
            Backbone(width=8, stages=2, norm="batch", padding=padding) for padding in ("zero", "valid", "circular")
        ],
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=1.2e-2, batch=64, steps=480, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(10),
        audit=Audit(shifts=(1, 2, 3, 4, 8)),
    ),
    targets=(0.75, 0.5, 0.25),
    train_losses=(0.6, 0.3, 0.1),
)
