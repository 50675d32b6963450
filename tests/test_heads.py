"""Every head against NumPy, and the exact facts that relate the heads."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.counts import lowrank_rank
from gapbench.models.dropout import keep_all
from gapbench.models.heads import grid_shares
from gapbench.models.registry import HEADS

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import CHANNELS, CLASSES, EVERY_HEAD, OURS, SIDE, SUM, arrays, features, head_of, numbers


def test_every_head_of_ours_is_tested() -> None:
    assert {name.partition(":")[0] for name in EVERY_HEAD} == OURS


Parameters = dict[str, np.ndarray]


def dense(vector: np.ndarray, p: Parameters, layer: str = "dense") -> np.ndarray:
    return vector.reshape(len(vector), -1) @ p[f"{layer}/kernel"] + p[f"{layer}/bias"]


def maps(x: np.ndarray, p: Parameters) -> np.ndarray:
    return x @ p["conv/kernel"] + p["conv/bias"]


def pooled(x: np.ndarray, grid: int) -> np.ndarray:
    """Every position becomes grid×grid equal tiles: each bin is then the plain mean of whole tiles."""
    tiles = x.repeat(grid, axis=1).repeat(grid, axis=2)
    side = x.shape[1]
    return tiles.reshape(len(x), grid, side, grid, side, -1).mean(axis=(2, 4))


def generalised_mean(x: np.ndarray, p: float) -> np.ndarray:
    return (np.maximum(x, 1e-6).astype(np.float64) ** p).mean(axis=(1, 2)) ** (1 / p)


def lowrank(x: np.ndarray, p: Parameters) -> np.ndarray:
    kernel = np.einsum("hr,wr,cr,kr->hwck", p["rows"], p["columns"], p["channels"], p["classes"])
    return np.einsum("bhwc,hwck->bk", x, kernel) + p["bias"]


REFERENCES = {
    "flatten": dense,
    "gap": lambda x, p: dense(x.mean(axis=(1, 2)), p),
    "gap_conv": lambda x, p: maps(x, p).mean(axis=(1, 2)),
    "gap_conv:relu": lambda x, p: np.maximum(maps(x, p), 0).mean(axis=(1, 2)),
    "gmp": lambda x, p: dense(x.max(axis=(1, 2)), p),
    "gem": lambda x, p: dense(generalised_mean(x, 3.0), p),
    "ladder:2": lambda x, p: dense(pooled(x, 2), p),
    "ladder:3": lambda x, p: dense(pooled(x, 3), p),
    "ladder_tiled:2": lambda x, p: dense(pooled(x, 2), p),
    "flatten_tiled": dense,
    "flatten_lowrank": lowrank,
    "flatten_conv": lambda x, p: dense(maps(x, p), p),
    "flatten_conv:relu": lambda x, p: dense(np.maximum(maps(x, p), 0), p),
    "gap_mlp": lambda x, p: dense(np.maximum(dense(x.mean(axis=(1, 2)), p, "hidden"), 0), p),
}


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_computes_its_formula(name: str) -> None:
    x, head = features(), head_of(name)
    np.testing.assert_allclose(head(jnp.asarray(x), keep_all), REFERENCES[name](x, arrays(head)), **SUM)


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_in_bfloat16_is_the_head_up_to_its_three_digits(name: str) -> None:
    x, head = jnp.asarray(features()), head_of(name)
    exact = head(x, keep_all)
    for _, module in nnx.iter_modules(head):
        if hasattr(module, "dtype"):
            module.dtype = jnp.dtype(jnp.bfloat16)
    rough = head(x.astype(jnp.bfloat16), keep_all)
    assert rough.dtype == jnp.bfloat16
    assert {array.dtype.name for array in arrays(head).values()} == {"float32"}
    # 8 bits: 0.4 % of each product; sums of some ten to a hundred terms below one, of either sign
    np.testing.assert_allclose(rough.astype(jnp.float32), exact, rtol=0.03, atol=0.03)


def test_a_flatten_kernel_of_tiled_gap_kernels_gives_the_logits_of_gap() -> None:
    x, flatten, gap = jnp.asarray(features()), head_of("flatten"), head_of("gap", seed=1)
    assert np.abs(flatten(x, keep_all) - gap(x, keep_all)).max() > 0.1
    flatten.dense.kernel[...] = jnp.tile(gap.dense.kernel[...], (SIDE**2, 1)) / SIDE**2
    np.testing.assert_allclose(flatten(x, keep_all), gap(x, keep_all), **SUM)


@pytest.mark.parametrize(("rung", "end"), [("ladder:1", "gap"), (f"ladder:{SIDE}", "flatten")])
def test_the_ends_of_the_ladder_are_gap_and_flatten_bit_for_bit(rung: str, end: str) -> None:
    x, ours, theirs = jnp.asarray(features()), head_of(rung), head_of(end)
    jax.tree.map(np.testing.assert_array_equal, arrays(ours), arrays(theirs))
    np.testing.assert_array_equal(ours(x, keep_all), theirs(x, keep_all))
    assert np.abs(head_of("ladder:2")(x, keep_all) - theirs(x, keep_all)).max() > 0.1


@pytest.mark.parametrize("side", [1, 5, 7, 12])
def test_the_shares_of_a_grid_sum_to_one_by_bin_and_are_equal_by_position(side: int) -> None:
    for grid in range(1, side + 1):
        shares = grid_shares(side, grid)
        np.testing.assert_allclose(shares.sum(axis=1), np.ones(grid), rtol=1e-12)  # float64
        np.testing.assert_allclose(shares.sum(axis=0), np.full(side, grid / side), rtol=1e-12)
    # 5 positions in 2 bins of 2.5: the third is shared, half of it is 0.2 of either mean
    np.testing.assert_allclose(grid_shares(5, 2), [[0.4, 0.4, 0.2, 0, 0], [0, 0, 0.2, 0.4, 0.4]], rtol=1e-12)


@pytest.mark.parametrize("side", [SIDE, 6])
def test_tiled_heads_start_at_gap_s_function_at_every_rung(side: int) -> None:
    x = jnp.asarray(numbers(4, side, side, CHANNELS))
    expected = head_of("gap", side=side)(x, keep_all)
    for name in ("flatten_tiled", *(f"ladder_tiled:{grid}" for grid in range(1, side + 1))):
        np.testing.assert_allclose(head_of(name, side=side)(x, keep_all), expected, **SUM)
    assert np.abs(head_of("ladder:2", side=side)(x, keep_all) - expected).max() > 0.1


def test_flatten_tiled_is_the_last_rung_of_the_tiled_ladder_bit_for_bit() -> None:
    jax.tree.map(
        np.testing.assert_array_equal, arrays(head_of("flatten_tiled")), arrays(head_of(f"ladder_tiled:{SIDE}"))
    )


def test_the_lowrank_kernel_starts_with_the_variance_of_flatten_s() -> None:
    # Over 200 nets: products of four normals have heavy tails, so within some percents
    side, rank = 4, lowrank_rank(40, 4, 10)
    assert rank == 7  # 40·10 / (2·4 + 40 + 10) = 6.9
    squares = []
    for seed in range(200):
        head: Any = HEADS["flatten_lowrank"](40, side, 10, "", nnx.Rngs(seed))
        p = arrays(head)
        squares.append((np.einsum("hr,wr,cr,kr->hwck", *list_factors(p)) ** 2).mean())
    np.testing.assert_allclose(np.mean(squares), 1 / (side * side * 40), rtol=0.15)


def list_factors(p: Parameters) -> list[np.ndarray]:
    return [p[name] for name in ("rows", "columns", "channels", "classes")]


def test_the_generalised_mean_lies_between_mean_and_maximum_and_survives_dead_channels_at_a_high_power() -> None:
    x = np.maximum(features(), 0)
    x[..., 0] = 0  # a dead channel: 1e-6 ** 12 is 0 in float32
    head = head_of("gem")
    head.dense.kernel[...] = jnp.eye(CHANNELS)[:, :CLASSES]
    head.dense.bias[...] = jnp.zeros(CLASSES)

    def values(p: float) -> np.ndarray:
        head.p[...] = jnp.asarray(p)
        return np.asarray(head(jnp.asarray(x), keep_all))

    mean, most = (statistic(x, axis=(1, 2))[:, :CLASSES] for statistic in (np.mean, np.max))
    np.testing.assert_allclose(values(1.0), mean, atol=1e-5)  # clipped at 1e-6
    np.testing.assert_allclose(values(1000.0), most, rtol=5e-3, atol=1e-5)  # 25 ** (-1 / 1000) = 0.997
    assert np.all(values(12.0)[:, 1:] > mean[:, 1:])
    assert np.all(values(12.0)[:, 1:] < most[:, 1:])
    graph, params = nnx.split(head)
    grads = jax.grad(lambda params: jnp.sum(nnx.merge(graph, params)(jnp.asarray(x), keep_all)))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(grads))


def test_the_linear_gap_conv_is_gap_and_the_one_with_relu_is_not() -> None:
    x, gap, linear, relu = jnp.asarray(features()), head_of("gap"), head_of("gap_conv"), head_of("gap_conv:relu")
    for head in (linear, relu):
        np.testing.assert_array_equal(head.conv.kernel[...], gap.dense.kernel[...])  # one stream, one start
    np.testing.assert_allclose(linear(x, keep_all), gap(x, keep_all), **SUM)
    assert np.abs(relu(x, keep_all) - gap(x, keep_all)).max() > 0.1


BLIND = {"gap", "gap_conv", "gap_conv:relu", "gmp", "gem", "gap_mlp", "ladder_tiled:2", "flatten_tiled"}


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_heads_that_pool_whole_maps_or_start_so_do_not_know_where_a_feature_stands(name: str) -> None:
    x, head = features(), head_of(name)
    order = np.random.default_rng(1).permutation(SIDE**2)
    moved = x.reshape(4, SIDE**2, CHANNELS)[:, order].reshape(x.shape)
    change = np.abs(head(jnp.asarray(moved), keep_all) - head(jnp.asarray(x), keep_all)).max()
    if name in BLIND:
        assert change < 1e-5  # a sum in another order (see SUM); the maximum does not move at all
    else:
        assert change > 0.1


# What `drop` is given, of 4 images: of flatten_conv the maps, else the feature map as its pool leaves it.
INPUTS = {
    "flatten": lambda x, p: x.reshape(4, -1),
    "gap": lambda x, p: x.mean(axis=(1, 2)),
    "gap_conv": lambda x, p: x,
    "gap_conv:relu": lambda x, p: x,
    "gmp": lambda x, p: x.max(axis=(1, 2)),
    "gem": lambda x, p: generalised_mean(x, 3.0),
    "ladder:2": lambda x, p: pooled(x, 2).reshape(4, -1),
    "ladder:3": lambda x, p: pooled(x, 3).reshape(4, -1),
    "ladder_tiled:2": lambda x, p: pooled(x, 2).reshape(4, -1),
    "flatten_tiled": lambda x, p: x.reshape(4, -1),
    "flatten_lowrank": lambda x, p: x.reshape(4, -1),
    "flatten_conv": lambda x, p: maps(x, p).reshape(4, -1),
    "flatten_conv:relu": lambda x, p: np.maximum(maps(x, p), 0).reshape(4, -1),
    "gap_mlp": lambda x, p: x.mean(axis=(1, 2)),
}


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_drops_once_and_from_the_vector_that_its_first_dense_layer_sees(name: str) -> None:
    x, head, seen = features(), head_of(name), []

    def all_zero(vector: jax.Array) -> jax.Array:
        seen.append(np.asarray(vector))
        return jnp.zeros_like(vector)

    logits = head(jnp.asarray(x), all_zero)
    (vector,) = seen
    np.testing.assert_allclose(vector, INPUTS[name](x, arrays(head)), **SUM)
    np.testing.assert_array_equal(logits, np.tile(logits[:1], (4, 1)))  # nothing came around the drop
