"""All of Fashion-MNIST, up to 48 px and on 20 seeds: the size sweep where an accelerator can pay for it.

    gapbench run accelerator_fashion_mnist   # 160 runs, as fleets where there is an accelerator: make accelerator
    gapbench run accelerator_fashion_mnist --pilot --only "px == 48 and head == 'gap'"   # 1 run, 2 min on a CPU core

The recipe is that of size_sweep with four times the steps, 1.5 passes over the images. By the closed form, the runs of
this file and of accelerator_cifar10_jpeg are 1.5e15 FLOP, evaluations included: 150 s of the five minutes that both
may take, if the fleets reach 10 TFLOP/s; the rest is for sixteen compilations.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="With every image there is: does the flatten head still overfit more, and learn faster, as inputs grow?",
    runs=grid(
        task=[
            Task(dataset="fashion_mnist", px=px, train_images=55_000, val_images=5_000, curve_images=2_000)
            for px in (16, 24, 32, 48)
        ],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=1280, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(20),
    ),
    family=("C2", "C5"),
    # By the rule of size_sweep, from one pilot run on a CPU, of the weakest cell of every pilot so far: gap
    # at the largest size. Its best validation accuracy was 0.811, its last train loss 0.503. The others are rungs.
    pilot_seeds=(100,),
    targets=(0.81, 0.7, 0.5),
    train_losses=(0.6, 0.4, 0.3),
)
