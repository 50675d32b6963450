"""Image to feature map: the part of the net that both heads share, bit for bit."""

import itertools
import math
from collections.abc import Callable
from functools import partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from gapbench.counts import nin_blocks
from gapbench.models.convolution import conv_general_dilated
from gapbench.models.dropout import drop_maps
from gapbench.models.registry import register_backbone
from gapbench.spec import Backbone

PADDING = {"zero": "SAME", "valid": "VALID", "circular": "CIRCULAR"}


def max_pool(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """2×2 max pool with stride 2; an odd last row or column is dropped, as `nnx.max_pool` does with VALID padding.

    The elementwise maximum of four strided slices: on the CPU its gradient is an order of magnitude faster than
    that of `reduce_window`. Where several inputs tie, the gradient is shared instead of given to the first.
    """
    x = x[:, : x.shape[1] // 2 * 2, : x.shape[2] // 2 * 2]
    left, right = jnp.maximum(x[:, ::2, ::2], x[:, 1::2, ::2]), jnp.maximum(x[:, ::2, 1::2], x[:, 1::2, 1::2])
    return jnp.maximum(left, right)


def windows(x: Float[Array, "B H W C"], axis: int, fill: float) -> list[jax.Array]:
    """The first, second and third row (or column) of every window of three with stride 2.

    There are px // 2 of them: Caffe's ceil((px - 3) / 2) + 1, whose last one, where px is even, lacks the third.
    """
    px = x.shape[axis]
    edges = [(0, int(at == axis and px % 2 == 0), 0) for at in range(x.ndim)]
    padded = jax.lax.pad(x, jnp.asarray(fill, x.dtype), edges)
    return [jax.lax.slice_in_dim(padded, i, i + px // 2 * 2 - 1, stride=2, axis=axis) for i in range(3)]


def max_pool3(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """3×3 max pool with stride 2, as Caffe rounds; by elementwise maxima, like `max_pool`.

    Without the barrier XLA fuses the axes and computes the first anew for each window of the second: twice the time
    (on a CPU core; `reduce_window` takes seven times), and minutes to compile a fleet.
    """
    for axis in (1, 2):
        x = jax.lax.optimization_barrier(reduce(jnp.maximum, windows(x, axis, -math.inf)))
    return x


def mean_pool3(x: Float[Array, "B H W C"]) -> Float[Array, "B H//2 W//2 C"]:
    """3×3 average pool with stride 2, as Caffe rounds: over those positions of a window that there are."""
    for axis in (1, 2):
        here = jnp.ones([x.shape[axis] if at == axis else 1 for at in range(4)], x.dtype)
        total, positions = (reduce(add, windows(values, axis, 0.0)) for values in (x, here))
        x = jax.lax.optimization_barrier(total / positions)  # as above
    return x


def as_matrix(init: nnx.Initializer) -> nnx.Initializer:
    """The same initial distribution, drawn as a [fan_in, fan_out] matrix and reshaped to the kernel.

    XLA takes seconds to compile a four-dimensional draw on the CPU, and a tenth of that for a matrix.
    """

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return init(key, (math.prod(shape[:-1]), shape[-1]), dtype).reshape(shape)

    return draw


@register_backbone("plain")
class Plain(nnx.Module):
    """Stages of (convolution, norm, ReLU, convolution, norm, max pool, ReLU); channels double at each stage."""

    def __init__(self, backbone: Backbone, image_channels: int, rngs: nnx.Rngs):
        conv = partial(
            nnx.Conv,
            kernel_size=(3, 3),
            padding=PADDING[backbone.padding],
            kernel_init=as_matrix(nnx.initializers.he_normal()),
            conv_general_dilated=conv_general_dilated,
            rngs=rngs,
        )
        widths = [backbone.width * 2**stage for stage in range(backbone.stages) for _ in range(2)]
        self.convs = nnx.List([conv(c_in, c_out) for c_in, c_out in itertools.pairwise([image_channels, *widths])])
        self.norms = nnx.List([NORMS[backbone.norm](width, rngs) for width in widths])
        self.dropout = backbone.dropout

    def __call__(
        self, x: Float[Array, "B H W C"], train: bool, key: jax.Array | None = None
    ) -> Float[Array, "B H2 W2 C2"]:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = norm(conv(x), train)
            # The pool stands before the ReLU: they commute, and the ReLU then sees a quarter of the values.
            x = nnx.relu(max_pool(x) if i % 2 else x)
            if i % 2 and i + 1 < len(self.convs):
                x = drop_maps(x, self.dropout, key, i)
        return x


@register_backbone("nin")
class Nin(nnx.Module):
    """Network in Network's net for CIFAR-10 up to its last layer (Lin et al. 2013, arXiv 1312.4400): three blocks.

    Each is a convolution and 1×1 convolutions, all with ReLU; a max and an average pool with dropout (0.5 in the paper)
    stand between them. The paper's last layer is the head `gap_conv:relu`, its fully connected control
    `flatten_conv:relu`. The paper draws weights from Gaussians of fixed width; here they have He's, as in `plain`.
    """

    def __init__(self, backbone: Backbone, image_channels: int, rngs: nnx.Rngs):
        he_normal, c_in = nnx.initializers.he_normal(), image_channels
        convs, layers = [], []
        for side, widths in nin_blocks(backbone.width):
            init = as_matrix(he_normal)
            conv = nnx.Conv(
                c_in,
                widths[0],
                kernel_size=(side, side),
                padding="SAME",
                kernel_init=init,
                conv_general_dilated=conv_general_dilated,
                rngs=rngs,
            )
            convs.append(conv)
            pairs = itertools.pairwise(widths)
            layers.append(nnx.List([nnx.Linear(a, b, kernel_init=he_normal, rngs=rngs) for a, b in pairs]))
            c_in = widths[-1]
        self.convs, self.layers, self.dropout = nnx.List(convs), nnx.List(layers), backbone.dropout

    def __call__(
        self, x: Float[Array, "B H W C"], train: bool, key: jax.Array | None = None
    ) -> Float[Array, "B H2 W2 C2"]:
        pools = (max_pool3, mean_pool3, None)
        for i, (conv, layers, pool) in enumerate(zip(self.convs, self.layers, pools, strict=True)):
            for layer in (conv, *layers):
                x = nnx.relu(layer(x))
            x = drop_maps(pool(x), self.dropout, key, i) if pool else x
        return x


class NoNorm(nnx.Module):
    """The identity."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        del channels, rngs

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x


class BatchNorm(nnx.BatchNorm):
    """Batch statistics in training, running ones (momentum 0.9: a run has some hundred steps) in evaluation."""

    def __init__(self, channels: int, rngs: nnx.Rngs):
        super().__init__(channels, momentum=0.9, rngs=rngs)

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:  # type: ignore[override]
        return super().__call__(x, use_running_average=not train)


class GroupNorm(nnx.Module):
    """(x - mean) / sqrt(var + 1e-6) · scale + bias, over groups of eight channels (one group where there are fewer).

    Written as x · a + b with one a and b an image and channel, from sums over positions alone, in float32:
    three times as fast as `nnx.GroupNorm`, forward and back, on a CPU core.
    """

    def __init__(self, channels: int, rngs: nnx.Rngs):
        del rngs
        self.groups = channels // 8 if channels % 8 == 0 else 1
        self.scale, self.bias = nnx.Param(jnp.ones(channels)), nnx.Param(jnp.zeros(channels))

    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H W C"]:
        values = x.astype(jnp.float32)

        def group_mean(v: Float[Array, "B H W C"]) -> Float[Array, "B C"]:
            mean = jnp.mean(v, axis=(1, 2)).reshape(v.shape[0], self.groups, -1).mean(axis=2)
            return jnp.repeat(mean, v.shape[-1] // self.groups, axis=1)

        mean = group_mean(values)
        variance = jnp.maximum(group_mean(values * values) - mean * mean, 0.0)
        a = jax.lax.rsqrt(variance + 1e-6) * self.scale[...][None]
        b = self.bias[...][None] - mean * a
        return (values * a[:, None, None] + b[:, None, None]).astype(x.dtype)


NORMS: dict[str, Callable[[int, nnx.Rngs], nnx.Module]] = {"none": NoNorm, "batch": BatchNorm, "group": GroupNorm}
