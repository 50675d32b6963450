"""Colour images with more to overfit on: accelerator_fashion_mnist's sweep on CIFAR-10 re-encoded as JPEG.

    gapbench data add cifar10_jpeg PATH      # a folder or archive of train/<class>/* and test/<class>/*
    gapbench run accelerator_cifar10_jpeg    # 160 runs, as fleets where there is an accelerator: make accelerator
    gapbench run accelerator_cifar10_jpeg --pilot --only "px == 48 and head == 'gap'"   # 1 run, 2 min on a CPU core

These are not the official images: nothing here compares with published CIFAR-10 accuracies. Recipe and cost are those
of accelerator_fashion_mnist, 1.8 passes over the images.
"""

from gapbench.experiment import Experiment, grid
from gapbench.spec import Backbone, Recipe, Task

EXPERIMENT = Experiment(
    question="On small photographs: does the flatten head still overfit more, and learn faster, as inputs grow?",
    runs=grid(
        task=[
            Task(dataset="folder:cifar10_jpeg", px=px, train_images=45_000, val_images=5_000, curve_images=2_000)
            for px in (16, 24, 32, 48)
        ],
        backbone=Backbone(width=16, stages=2),
        head=("flatten", "gap"),
        recipe=Recipe(peak_lr=3e-3, batch=64, steps=1280, eval_every=10, eval_growth=1.25, warmup_steps=16),
        seed=range(20),
    ),
    family=("C2", "C5"),
    # By the rule of size_sweep, from one pilot run on a CPU, of the weakest cell of every pilot so far: gap
    # at the largest size. Its best validation accuracy was 0.465, its last train loss 1.451. The others are rungs.
    pilot_seeds=(100,),
    targets=(0.46, 0.4, 0.3),
    train_losses=(1.5, 1.2, 1.0),
)
