"""Feature map to logits: the only file in which the two arms differ.

A head maps a feature map [B, H, W, C] to logits [B, K]. It calls `drop` on the vector that its (first) dense layer
sees, right before that layer: dropout in training, the identity elsewhere. To add one of your own, write a module
and register it: `gapbench.models.register_head`. A head that makes maps of its own may give them as `maps`, and what
becomes of them as `read`: evidence (gapbench/maps.py) then lies on those.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from gapbench.counts import ladder_grid, lowrank_rank, mlp_hidden
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

    def maps(self, x: Features) -> Float[Array, "B H W K"]:
        """One map a class."""
        maps = self.conv(x)
        return nnx.relu(maps) if self.relu else maps

    def read(self, maps: Float[Array, "B H W K"], drop: Drop) -> Logits:
        """Their means."""
        return jnp.mean(maps, axis=(1, 2))

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.read(self.maps(drop(x)), drop)


@register_head("gmp", nothing)
class Gmp(nnx.Module):
    """logits = W max_{hw}(x) + b: global max pooling, as many parameters as `gap`."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(drop(jnp.max(x, axis=(1, 2))))


@register_head("gem", nothing)
class Gem(nnx.Module):
    """logits = W (mean_{hw} max(x, 1e-6)^p)^(1/p) + b with one learnable p, 3 at first (Radenović et al. 2018).

    p = 1 is the mean, p = ∞ the maximum. Computed from the logarithms: the powers themselves underflow.
    """

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.p = nnx.Param(jnp.asarray(3.0))
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        p, logs = self.p[...], jnp.log(jnp.maximum(x.astype(jnp.float32), 1e-6))
        log_mean = jax.nn.logsumexp(p * logs, axis=(1, 2)) - np.log(x.shape[1] * x.shape[2]).astype(np.float32)
        return self.dense(drop(jnp.exp(log_mean / p).astype(x.dtype)))


def grid_shares(side: int, grid: int) -> Float[np.ndarray, "g H"]:
    """The share of position h in the mean of bin i, the interval [i·H/g, (i+1)·H/g): rows sum to 1, columns to g/H."""
    starts, size = np.arange(grid)[:, None] * side / grid, side / grid
    overlap = np.minimum(np.arange(side) + 1, starts + size) - np.maximum(np.arange(side), starts)
    return np.maximum(overlap, 0) / size


def grid_pool(x: Features, grid: int) -> Float[Array, "B g g C"]:
    """P x Pᵀ with the shares P: the mean over g×g bins that tile the map, a position split by area between bins."""
    batch, side, _, channels = x.shape
    if side % grid == 0:  # whole positions; g = 1 and g = H' are then the mean and x itself, bit for bit
        return jnp.mean(x.reshape(batch, grid, side // grid, grid, side // grid, channels), axis=(2, 4))
    shares, values = jnp.asarray(grid_shares(side, grid), jnp.float32), x.astype(jnp.float32)
    return jnp.einsum("ih,jw,bhwc->bijc", shares, shares, values, precision="highest").astype(x.dtype)


def tiled(bins: int) -> nnx.Initializer:
    """The kernel that `gap` draws from the same key, over every bin, divided by their number."""

    def draw(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        kernel = nnx.initializers.lecun_normal()(key, (shape[0] // bins, shape[1]), dtype)
        return jnp.tile(kernel, (bins, 1)) / bins

    return draw


@register_head("ladder", ladder_grid)
class Ladder(nnx.Module):
    """`ladder:g`: logits = W vec(P x Pᵀ) + b, the rungs between `gap` (g = 1) and `flatten` (g = H').

    PyTorch's AdaptiveAvgPool has bins that overlap where g does not divide H', and counts their common positions
    twice: there the mean over bins is not the mean over positions. Here it is, and a tiled kernel is gap's function.
    """

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.grid = ladder_grid(argument, feature_px)
        init = self.kernel_init(self.grid**2)
        self.dense = nnx.Linear(self.grid**2 * channels, classes, kernel_init=init, rngs=rngs)

    def kernel_init(self, bins: int) -> nnx.Initializer:
        """What `nnx.Linear` has by default."""
        return nnx.initializers.lecun_normal()

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(drop(grid_pool(x, self.grid).reshape(x.shape[0], -1)))


@register_head("ladder_tiled", ladder_grid)
class LadderTiled(Ladder):
    """`ladder:g` that starts at the function of `gap` with the same seed: what differs later was learnt."""

    def kernel_init(self, bins: int) -> nnx.Initializer:
        """Gap's kernel in every bin."""
        return tiled(bins)


@register_head("flatten_tiled", nothing)
class FlattenTiled(LadderTiled):
    """`flatten` that starts at the function of `gap` with the same seed."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        super().__init__(channels, feature_px, classes, str(feature_px), rngs)


@register_head("flatten_lowrank", nothing)
class FlattenLowrank(nnx.Module):
    """logits = W vec(x) + b with W[h,w,c,k] = sum_r a[h,r] b[w,r] c[c,r] d[k,r] (CP form), parameters as few as gap's.

    It knows positions as `flatten` does, in r·(2H' + C + K) + K parameters. The factors start normal with the variance
    that gives W flatten's own, r·σ⁸ = 1 / (H'·W'·C).
    """

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        rank = lowrank_rank(channels, feature_px, classes)
        init = nnx.initializers.normal((rank * feature_px**2 * channels) ** (-1 / 8))
        self.rows, self.columns, self.channels, self.classes = (
            nnx.Param(init(rngs.params(), (size, rank))) for size in (feature_px, feature_px, channels, classes)
        )
        self.bias = nnx.Param(jnp.zeros(classes))
        self.dtype = jnp.dtype(jnp.float32)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        x = drop(x.reshape(x.shape[0], -1)).reshape(x.shape).astype(self.dtype)
        rows, columns, channels, classes, bias = (
            part[...].astype(self.dtype) for part in (self.rows, self.columns, self.channels, self.classes, self.bias)
        )
        weights = rows[:, None] * columns[None]
        return jnp.sum(x @ channels * weights[None], axis=(1, 2)) @ classes.T + bias[None]


@register_head("flatten_conv", perhaps_relu)
class FlattenConv(nnx.Module):
    """logits = W vec(V x + c) + b: `gap_conv` with a dense layer instead of the average, and `:relu` as there.

    Network in Network's own control: its last maps, one a class, flattened into a fully connected layer.
    """

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        self.conv = nnx.Linear(channels, classes, rngs=rngs)
        self.dense = nnx.Linear(feature_px**2 * classes, classes, rngs=rngs)
        self.relu = argument == "relu"

    def maps(self, x: Features) -> Float[Array, "B H W K"]:
        """One map a class."""
        maps = self.conv(x)
        return nnx.relu(maps) if self.relu else maps

    def read(self, maps: Float[Array, "B H W K"], drop: Drop) -> Logits:
        """The dense layer."""
        return self.dense(drop(maps.reshape(maps.shape[0], -1)))

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.read(self.maps(x), drop)


@register_head("gap_mlp", nothing)
class GapMlp(nnx.Module):
    """logits = W relu(V mean_{hw}(x) + c) + b, as wide as makes its parameters those of `flatten`."""

    def __init__(self, channels: int, feature_px: int, classes: int, argument: str, rngs: nnx.Rngs):
        hidden, init = mlp_hidden(channels, feature_px, classes), nnx.initializers.he_normal()
        self.hidden = nnx.Linear(channels, hidden, kernel_init=init, rngs=rngs)
        self.dense = nnx.Linear(hidden, classes, rngs=rngs)

    def __call__(self, x: Features, drop: Drop) -> Logits:
        return self.dense(nnx.relu(self.hidden(drop(jnp.mean(x, axis=(1, 2))))))
