"""Feature map to logits: the only file in which the two arms differ.

A head maps a feature map [B, H, W, C] to logits [B, K]. It calls `drop` on the vector that its (first) dense layer
sees, right before that layer: dropout in training, the identity elsewhere. To add one of your own, write a module
and register it: `gapbench.models.register_head`.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gapbench.models.dropout import Drop
from gapbench.models.registry import nothing, perhaps_relu, register_head

Features = Float[Array, "B H W C"]
Logits = Float[Array, "B K"]


@register_head("flatten", nothing)
class Flatten(nnx.Module):
    """logits = W vec(x) + b, with (H·W·C + 1)·K parameters: one weight a position, channel and class."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.dense = nnx.Linear(feature_px**2 * channels, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(drop(x.reshape(x.shape[0], -1)))


@register_head("gap", nothing)
class Gap(nnx.Module):
    """logits = W mean_{hw}(x) + b, with (C + 1)·K parameters at every size (Lin et al. 2013, Zhou et al. 2016)."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(drop(jnp.mean(x, axis=(1, 2))))


@register_head("gap_conv", perhaps_relu)
class GapConv(nnx.Module):
    """logits = mean_{hw}(V x + c): Network in Network's own head, [B, H, W, K] maps straight into softmax.

    `gap_conv` is the linear form, the same function as `gap`; `gap_conv:relu` keeps the ReLU that Network in Network
    has before the average. Its 1×1 convolution to one map a class is written as the product over channels that it
    is: XLA leaves the replicas of a product on their devices, those of a convolution it does not. No vector stands
    before it: `drop` acts on the whole map.
    """

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.conv = nnx.Linear(channels, classes, rngs=rngs)
        self.relu = argument == "relu"

    def __call__(self, x: Features, drop: Drop) -> Logits:
        maps = self.conv(drop(x))
        return jnp.mean(nnx.relu(maps) if self.relu else maps, axis=(1, 2))


@register_head("gmp", nothing)
class Gmp(nnx.Module):
    """logits = W max_{hw}(x) + b: global max pooling, as many parameters as `gap`."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(drop(jnp.max(x, axis=(1, 2))))
