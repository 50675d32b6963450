"""Every head against NumPy, and the exact facts that relate the heads."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gapbench.models.dropout import keep_all

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import CHANNELS, EVERY_HEAD, OURS, SIDE, SUM, arrays, features, head_of


def test_every_head_of_ours_is_tested() -> None:
    assert {name.partition(":")[0] for name in EVERY_HEAD} == OURS


REFERENCES = {
    "flatten": lambda x, kernel, bias: x.reshape(len(x), -1) @ kernel + bias,
    "gap": lambda x, kernel, bias: x.mean(axis=(1, 2)) @ kernel + bias,
    "gap_conv": lambda x, kernel, bias: (x @ kernel + bias).mean(axis=(1, 2)),
    "gap_conv:relu": lambda x, kernel, bias: np.maximum(x @ kernel + bias, 0).mean(axis=(1, 2)),
    "gmp": lambda x, kernel, bias: x.max(axis=(1, 2)) @ kernel + bias,
}


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_computes_its_formula(name: str) -> None:
    x, head = features(), head_of(name)
    np.testing.assert_allclose(head(jnp.asarray(x), keep_all), REFERENCES[name](x, *arrays(head)), **SUM)


def test_a_flatten_kernel_of_tiled_gap_kernels_gives_the_logits_of_gap() -> None:
    x, flatten, gap = jnp.asarray(features()), head_of("flatten"), head_of("gap", seed=1)
    assert np.abs(flatten(x, keep_all) - gap(x, keep_all)).max() > 0.1
    flatten.dense.kernel[...] = jnp.tile(gap.dense.kernel[...], (SIDE**2, 1)) / SIDE**2
    np.testing.assert_allclose(flatten(x, keep_all), gap(x, keep_all), **SUM)


def test_the_linear_gap_conv_is_gap_and_the_one_with_relu_is_not() -> None:
    x, gap, linear, relu = jnp.asarray(features()), head_of("gap"), head_of("gap_conv"), head_of("gap_conv:relu")
    for head in (linear, relu):
        np.testing.assert_array_equal(head.conv.kernel[...], gap.dense.kernel[...])  # one stream, one start
    np.testing.assert_allclose(linear(x, keep_all), gap(x, keep_all), **SUM)
    assert np.abs(relu(x, keep_all) - gap(x, keep_all)).max() > 0.1


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_only_flatten_knows_where_a_feature_stands(name: str) -> None:
    x, head = features(), head_of(name)
    order = np.random.default_rng(1).permutation(SIDE**2)
    moved = x.reshape(4, SIDE**2, CHANNELS)[:, order].reshape(x.shape)
    change = np.abs(head(jnp.asarray(moved), keep_all) - head(jnp.asarray(x), keep_all)).max()
    if name == "flatten":
        assert change > 0.1
    else:
        assert change < 1e-5  # a sum in another order (see SUM); the maximum does not move at all


# Before the first layer of a head: what `drop` is given, of 4 images.
INPUTS = {
    "flatten": lambda x: x.reshape(4, -1),
    "gap": lambda x: x.mean(axis=(1, 2)),
    "gap_conv": lambda x: x,
    "gmp": lambda x: x.max(axis=(1, 2)),
}


@pytest.mark.parametrize("name", EVERY_HEAD)
def test_a_head_drops_once_and_from_the_vector_that_its_layer_sees(name: str) -> None:
    x, head, seen = features(), head_of(name), []

    def nothing(vector: jax.Array) -> jax.Array:
        seen.append(np.asarray(vector))
        return jnp.zeros_like(vector)

    logits = head(jnp.asarray(x), nothing)
    (vector,) = seen
    np.testing.assert_allclose(vector, INPUTS[name.partition(":")[0]](x), **SUM)
    bias = np.maximum(arrays(head)[1], 0) if name.endswith(":relu") else arrays(head)[1]
    np.testing.assert_allclose(logits, np.tile(bias, (4, 1)), **SUM)  # nothing came around the drop
