"""Evidence maps: with the bias they sum to the logit, whatever one-layer head reads them; two layers have none."""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.maps import bias, evidence, grad_cam, parts_of
from gapbench.models.dropout import keep_all

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import CHANNELS, CLASSES, EVERY_HEAD, SIDE, SUM, arrays, features, head_of

ONE_LAYER = [name for name in EVERY_HEAD if name != "gap_mlp"]
X = np.abs(features())  # what a ReLU leaves


def all_evidence(name: str) -> tuple[np.ndarray, np.ndarray, nnx.Module]:
    """[B, H, W, K], the bias [B, K] and the head."""
    head = head_of(name)
    maps_of, read = parts_of(head)
    maps = maps_of(jnp.asarray(X))
    one = [jnp.tile(jnp.eye(CLASSES)[k], (len(X), 1)) for k in range(CLASSES)]
    return np.stack([evidence(read, maps, w) for w in one], axis=-1), np.asarray(bias(read, maps)), head


@pytest.mark.parametrize("name", ONE_LAYER)
def test_the_map_of_every_one_layer_head_sums_with_the_bias_to_the_logit(name: str) -> None:
    found, offset, head = all_evidence(name)
    assert found.shape == (len(X), SIDE, SIDE, CLASSES)
    logits = head(jnp.asarray(X), keep_all)  # type: ignore[operator]
    np.testing.assert_allclose(found.sum(axis=(1, 2)) + offset, logits, **SUM)
    assert np.abs(found).max() > 0.01  # not all of it in the bias


def test_the_map_of_a_head_of_two_layers_does_not() -> None:
    found, offset, head = all_evidence("gap_mlp")
    logits = head(jnp.asarray(X), keep_all)  # type: ignore[operator]
    assert np.abs(found.sum(axis=(1, 2)) + offset - logits).max() > 0.01


def test_gaps_map_is_cam_over_the_number_of_positions() -> None:
    found, _, head = all_evidence("gap")
    np.testing.assert_allclose(found, X @ arrays(head)["dense/kernel"] / SIDE**2, **SUM)


def test_flattens_map_is_what_each_position_adds() -> None:
    found, _, head = all_evidence("flatten")
    kernel = arrays(head)["dense/kernel"].reshape(SIDE, SIDE, CHANNELS, CLASSES)
    np.testing.assert_allclose(found, np.einsum("bhwc,hwck->bhwk", X, kernel), **SUM)


def test_the_evidence_of_a_maximum_lies_where_it_is() -> None:
    found, _, _ = all_evidence("gmp")
    where = (X.max(axis=(1, 2), keepdims=True) == X).any(axis=-1)
    assert (found[~where] == 0).all()


def test_heads_with_equal_functions_have_other_maps_only_where_their_weights_differ() -> None:
    """flatten tiled from gap's kernel is gap, and so is its map."""
    gap = all_evidence("gap")[0]
    tiled = all_evidence("flatten_tiled")[0]
    np.testing.assert_allclose(tiled, gap, **SUM)


def test_grad_cam_of_gap_is_its_evidence_where_positive() -> None:
    maps_of, read = parts_of(head_of("gap"))
    maps, one = maps_of(jnp.asarray(X)), jnp.tile(jnp.eye(CLASSES)[1], (len(X), 1))
    np.testing.assert_allclose(grad_cam(read, maps, one), np.maximum(evidence(read, maps, one), 0), **SUM)


def test_grad_cam_weighs_a_channel_by_its_mean_gradient() -> None:
    head = head_of("flatten")
    maps_of, read = parts_of(head)
    maps, one = maps_of(jnp.asarray(X)), jnp.tile(jnp.eye(CLASSES)[2], (len(X), 1))
    weights = arrays(head)["dense/kernel"].reshape(SIDE**2, CHANNELS, CLASSES)[..., 2].mean(axis=0)
    np.testing.assert_allclose(grad_cam(read, maps, one), np.maximum(X @ weights, 0), **SUM)
