"""Do the mean and the maximum of a map say more than the mean alone? A head and a backbone of one's own.

gapbench run your_own.py        # 16 runs on 8×8 digits, about 10 s on two cores
"""

from itertools import pairwise

import jax.numpy as jnp
from flax import nnx

from gapbench.experiment import Experiment, grid
from gapbench.models import register_backbone, register_head
from gapbench.spec import Backbone, Recipe, Task


@register_head("mean_max")
class MeanMax(nnx.Module):  # [B, H, W, C] -> [B, K]
    def __init__(self, channels, feature_px, classes, argument, rngs):
        self.dense = nnx.Linear(2 * channels, classes, rngs=rngs)

    def __call__(self, x, drop):  # drop: the recipe's dropout, right before the dense layer
        return self.dense(drop(jnp.concatenate([x.mean(axis=(1, 2)), x.max(axis=(1, 2))], axis=1)))


@register_backbone("strided")
class Strided(nnx.Module):  # images to maps of the channels and the side that the spec's Backbone computes
    def __init__(self, backbone, image_channels, rngs):
        widths = [image_channels, *(backbone.width * 2**stage for stage in range(backbone.stages))]
        self.convs = nnx.List([nnx.Conv(a, b, (3, 3), strides=2, rngs=rngs) for a, b in pairwise(widths)])

    def __call__(self, x, train):
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return x


EXPERIMENT = Experiment(
    question="Do the mean and the maximum of a map say more than the mean alone?",
    runs=grid(
        task=[Task(dataset="digits", px=px, train_images=400) for px in (8, 16)],  # a size: one more number
        backbone=Backbone(kind="strided", width=16, stages=2),
        head=("gap", "mean_max"),
        recipe=Recipe(peak_lr=1e-2, batch=32, steps=120, eval_every=10),
        seed=range(4),
    ),
    pair=("gap", "mean_max"),  # the reference, and the head under test
    family=("C2", "C5"),  # the claims that are tested
    targets=(0.7,),  # validation accuracy that counts as learnt
    train_losses=(0.6,),  # at which overfit is compared
)
