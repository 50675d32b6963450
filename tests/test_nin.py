"""Network in Network against NumPy and its published size, and the dropout between a backbone's stages."""

import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.counts import count_backbone, count_head
from gapbench.models.backbones import max_pool3, mean_pool3
from gapbench.models.classifier import init_classifier
from gapbench.models.dropout import drop_maps
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError, validate

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import SUM, arrays, numbers


def spec_of(head: str = "gap_conv:relu", px: int = 8, **backbone: Any) -> RunSpec:
    return RunSpec(
        task=Task(dataset="digits", px=px, train_images=100),
        backbone=Backbone.model_validate({"kind": "nin", "width": 6} | backbone),
        head=head,
        recipe=Recipe(peak_lr=1e-3, batch=8, steps=2, eval_every=1),
        seed=0,
    )


def pool_by_hand(x: np.ndarray, statistic: Any) -> np.ndarray:
    """Windows of three with stride 2, cut off at the edge."""
    rows, columns = (range(0, side // 2 * 2, 2) for side in x.shape[1:3])
    return np.array([[statistic(x[:, h : h + 3, w : w + 3], axis=(1, 2)) for w in columns] for h in rows]).transpose(
        2, 0, 1, 3
    )


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 6), (3, 2), (5, 9)])
def test_the_pools_are_those_of_caffe_at_even_and_odd_sizes(height: int, width: int) -> None:
    x = numbers(2, height, width, 3)
    ours = max_pool3(jnp.asarray(x))
    # Caffe: ceil((px - 3) / 2) + 1 windows without padding
    assert ours.shape == (2, -(-(height - 3) // 2) + 1, -(-(width - 3) // 2) + 1, 3)
    np.testing.assert_array_equal(ours, pool_by_hand(x, np.max))
    np.testing.assert_allclose(mean_pool3(jnp.asarray(x)), pool_by_hand(x, np.mean), **SUM)


def test_the_gradient_of_the_max_pool_goes_to_the_greatest_of_each_window() -> None:
    x, weights = numbers(1, 7, 6, 1), numbers(1, 3, 3, 1, seed=1)
    gradient = jax.grad(lambda x: jnp.sum(weights * max_pool3(x)))(jnp.asarray(x))
    expected = np.zeros_like(x)
    for h in range(3):
        for w in range(3):
            window = x[0, 2 * h : 2 * h + 3, 2 * w : 2 * w + 3, 0]
            i, j = np.unravel_index(window.argmax(), window.shape)
            expected[0, 2 * h + i, 2 * w + j, 0] += weights[0, h, w, 0]  # windows overlap: some win twice
    np.testing.assert_allclose(gradient, expected, **SUM)


def test_the_net_computes_its_three_blocks() -> None:
    x, net = numbers(2, 9, 9, 2), init_classifier(spec_of(px=9), 2, 3)
    p = arrays(net)
    for block, pool in enumerate((np.max, np.mean, None)):
        kernel = p[f"backbone/convs/{block}/kernel"]
        side, height = len(kernel), x.shape[1]
        edge = (side // 2, side // 2)
        padded = np.pad(x, ((0, 0), edge, edge, (0, 0)))
        shifted = ((padded[:, i : i + height, j : j + height], kernel[i, j]) for i in range(side) for j in range(side))
        if block == 0:
            start = x
        x = np.maximum(sum(part @ weights for part, weights in shifted) + p[f"backbone/convs/{block}/bias"], 0)
        for layer in range((2, 2, 1)[block]):
            name = f"backbone/layers/{block}/{layer}"
            x = np.maximum(x @ p[f"{name}/kernel"] + p[f"{name}/bias"], 0)
        x = pool_by_hand(x, pool) if pool else x
    assert x.shape == (2, 2, 2, 6)
    assert np.count_nonzero(x) > 10
    np.testing.assert_allclose(net.backbone(jnp.asarray(start), False), x, **SUM)
    logits = np.maximum(x @ p["head/conv/kernel"] + p["head/conv/bias"], 0).mean(axis=(1, 2))
    np.testing.assert_allclose(net(jnp.asarray(start)), logits, **SUM)


def test_at_the_paper_s_width_it_has_the_published_number_of_parameters() -> None:
    spec = spec_of(px=32, width=192)
    assert (spec.backbone.channels, spec.backbone.feature_px(32)) == (192, 8)  # 32 -> 16 -> 8
    # (75 + 1)·192 + 193·160 + 161·96, (2400 + 1)·192 + 2·193·192, (1728 + 1)·192 + 193·192
    backbone = count_backbone(spec, 3)
    assert backbone.parameters == 60_928 + 535_104 + 369_024
    # and 193·10 of its last layer: 966,986, as counted on the Caffe model of the authors
    assert backbone.parameters + count_head("gap_conv:relu", 192, 8, 10).parameters == 966_986
    multiply_adds = (75 * 192 + 192 * 160 + 160 * 96) * 1024, (2400 + 2 * 192) * 192 * 256, (1728 + 192) * 192 * 64
    assert backbone.flops == 2 * sum(multiply_adds)
    kept = (192 + 160 + 96) * 1024 + 96 * 256, 3 * 192 * 256 + 192 * 64, 2 * 192 * 64  # and the pooled maps
    assert backbone.activation_bytes == 4 * sum(kept)


@pytest.mark.parametrize(("px", "width", "image_channels"), [(8, 6, 1), (13, 24, 3), (28, 12, 1)])
@pytest.mark.parametrize("head", ["gap_conv:relu", "flatten_conv:relu", "flatten"])
def test_the_closed_forms_are_those_of_the_built_net(head: str, px: int, width: int, image_channels: int) -> None:
    spec = spec_of(head, px, width=width)
    shapes = nnx.eval_shape(lambda: nnx.state(init_classifier(spec, image_channels, 10), nnx.Param))
    built = {part: sum(leaf.size for leaf in jax.tree.leaves(shapes[part])) for part in ("backbone", "head")}
    side = spec.backbone.feature_px(px)
    assert count_backbone(spec, image_channels).parameters == built["backbone"]
    assert count_head(head, width, side, 10).parameters == built["head"]
    images = jnp.zeros((2, px, px, image_channels))
    maps = nnx.eval_shape(lambda: init_classifier(spec, image_channels, 10).backbone(images, False))
    assert maps.shape == (2, side, side, width)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stages": 3}, "stages=3: nin has no other stages than 2; leave it out"),
        ({"norm": "batch"}, "norm=batch: nin has no other norm than none; leave it out"),
        ({"padding": "valid"}, "padding=valid: nin has no other padding than zero; leave it out"),
        ({"width": 16}, "width=16: nin has maps of 5/6 and 1/2 of it, so use a multiple of 6"),
        ({"dropout": 1.0}, "dropout: Input should be less than 1"),
    ],
)
def test_what_network_in_network_does_not_have_is_refused_in_one_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        validate(Backbone, {"kind": "nin", "width": 12} | change, "here")
    assert "\n" not in str(raised.value)


def test_maps_are_dropped_element_by_element_and_differently_at_each_place() -> None:
    ones, key = jnp.ones((4, 8, 8, 16)), jax.random.key(0)
    first, again, second = (drop_maps(ones, 0.25, key, place) for place in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 1
    assert set(np.unique(first)) == {np.float32(0), np.float32(1 / 0.75)}
    # of 4,096 elements a quarter: its standard deviation is sqrt(0.25 · 0.75 / 4096) = 0.7 %
    np.testing.assert_allclose(np.mean(first == 0), 0.25, atol=0.03)
    np.testing.assert_array_equal(drop_maps(ones, 0.25, None, 0), ones)


@pytest.mark.parametrize("backbone", [{}, {"kind": "plain", "width": 4}])
def test_a_backbone_drops_between_its_stages_in_training_alone(backbone: dict[str, Any]) -> None:
    dry, wet = (init_classifier(spec_of("gap", dropout=rate, **backbone), 1, 10) for rate in (0.0, 0.5))
    x, keys = jnp.asarray(numbers(8, 8, 8, 1)), [jax.random.key(seed) for seed in (0, 1)]
    np.testing.assert_array_equal(wet(x), dry(x))
    np.testing.assert_array_equal(wet(x, backbone_key=keys[0]), dry(x))  # a key is no training
    one, other = (wet(x, train=True, backbone_key=key) for key in keys)
    assert np.abs(one - other).max() > 1e-2
    assert np.abs(one - dry(x, train=True)).max() > 1e-2
    np.testing.assert_array_equal(one, wet(x, train=True, backbone_key=keys[0]))


def test_after_the_last_stage_nothing_is_dropped_by_the_backbone() -> None:
    net = init_classifier(spec_of("gap", kind="plain", width=4, stages=1, dropout=0.5), 1, 10)
    x = jnp.asarray(numbers(8, 8, 8, 1))
    np.testing.assert_array_equal(net(x, train=True, backbone_key=jax.random.key(0)), net(x))


def test_every_parameter_receives_a_gradient() -> None:
    graph, params = nnx.split(init_classifier(spec_of(px=12, width=24), 1, 3), nnx.Param)
    x, labels = jnp.asarray(numbers(16, 12, 12, 1)), np.arange(16) % 3

    def loss(params: Any) -> jax.Array:
        return -jnp.sum(jax.nn.log_softmax(nnx.merge(graph, params)(x, train=True))[np.arange(16), labels])

    leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    assert len(leaves) == 2 * (3 + 5 + 1)
    for path, leaf in leaves:
        assert np.abs(leaf).max() > 1e-3, jax.tree_util.keystr(path)
