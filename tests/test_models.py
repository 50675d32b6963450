"""Backbones against NumPy and XLA's own operations, and whole nets: streams, gradients, names and dropout."""

import re
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.models.backbones import NORMS, max_pool
from gapbench.models.classifier import Classifier, check_names, init_classifier
from gapbench.models.registry import HEADS
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError

sys.path.insert(0, str(Path(__file__).parent))
from heads_at_hand import CLASSES, EVERY_HEAD, SUM, numbers


def spec_of(head: str = "gap", norm: str = "none", padding: str = "zero", **changes: Any) -> RunSpec:
    return RunSpec(
        task=Task(dataset="digits", px=8, train_images=100),
        backbone=Backbone.model_validate({"width": 4, "stages": 1, "norm": norm, "padding": padding}),
        head=head,
        recipe=Recipe(peak_lr=1e-3, batch=8, steps=2, eval_every=1, **changes),
        seed=0,
    )


@pytest.mark.parametrize(("height", "width"), [(6, 4), (7, 4), (7, 5), (2, 3)])
def test_max_pool_is_that_of_flax_and_drops_an_odd_last_row_or_column(height: int, width: int) -> None:
    x = jnp.asarray(numbers(2, height, width, 3))
    expected = nnx.max_pool(x, (2, 2), strides=(2, 2), padding="VALID")
    np.testing.assert_array_equal(max_pool(x), expected)  # a maximum rounds nothing


def test_the_gradient_of_max_pool_without_ties_is_that_of_flax() -> None:
    x, weights = jnp.asarray(numbers(2, 7, 6, 3)), jnp.asarray(numbers(2, 3, 3, 3, seed=1))
    assert np.unique(x).size == x.size  # no ties
    ours, theirs = (
        jax.grad(lambda x, pool=pool: jnp.sum(weights * pool(x)))(x)
        for pool in (max_pool, lambda x: nnx.max_pool(x, (2, 2), strides=(2, 2), padding="VALID"))
    )
    np.testing.assert_array_equal(ours, theirs)  # each weight goes to one pixel, unchanged
    assert np.count_nonzero(ours) == weights.size


def test_a_tie_shares_the_gradient_and_loses_none_of_it() -> None:
    gradient = jax.grad(lambda x: jnp.sum(max_pool(x)))(jnp.ones((1, 2, 2, 1)))
    np.testing.assert_array_equal(gradient[0, :, :, 0], [[0.25, 0.25], [0.25, 0.25]])


@pytest.mark.parametrize("image_channels", [1, 3])
@pytest.mark.parametrize("padding", ["zero", "valid", "circular"])
def test_the_first_convolution_pads_as_numpy_does(padding: str, image_channels: int) -> None:
    x, kernel = numbers(2, 7, 6, image_channels), numbers(3, 3, image_channels, 4, seed=1)
    net: Any = init_classifier(spec_of(padding=padding), image_channels, 10)
    first = net.backbone.convs[0]
    first.kernel[...] = jnp.asarray(kernel)
    # padded by hand with NumPy's own modes, then without padding: "wrap" is what circular means
    mode = {"zero": "constant", "circular": "wrap"}.get(padding)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode) if mode else x
    expected = jax.lax.conv_general_dilated(padded, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    np.testing.assert_allclose(first(jnp.asarray(x)), expected, **SUM)


def test_the_backbone_is_convolutions_relus_and_a_pool_in_that_order() -> None:
    x = numbers(2, 6, 6, 1)
    net: Any = init_classifier(spec_of(padding="valid"), 1, 10)
    kernels = [np.asarray(conv.kernel[...]) for conv in net.backbone.convs]
    for conv, bias in zip(net.backbone.convs, (0.1, -0.2), strict=True):
        conv.bias[...] = jnp.full(4, bias)
    for kernel, bias in zip(kernels, (0.1, -0.2), strict=True):
        side = x.shape[1] - 2
        x = sum(x[:, i : i + side, j : j + side] @ kernel[i, j] for i in range(3) for j in range(3)) + bias
        x = np.maximum(x, 0)  # also after the second: it commutes with the pool
    expected = x.reshape(2, 1, 2, 1, 2, 4).max(axis=(2, 4))
    actual = net.backbone(jnp.asarray(numbers(2, 6, 6, 1)), False)
    np.testing.assert_allclose(actual, expected, **SUM)
    assert np.count_nonzero(expected) > 0


def gradients(spec: RunSpec) -> dict[str, np.ndarray]:
    """By path, of the summed cross entropy of eight random images, as training computes it."""
    graph, params, rest = nnx.split(init_classifier(spec, 1, CLASSES), nnx.Param, ...)
    x, labels = jnp.asarray(numbers(8, 8, 8, 1)), np.arange(8) % CLASSES

    def loss(params: Any) -> jax.Array:
        logits = nnx.merge(graph, params, rest, copy=True)(x, train=True)
        return -jnp.sum(jax.nn.log_softmax(logits)[np.arange(8), labels])

    leaves = jax.tree_util.tree_leaves_with_path(jax.jit(jax.grad(loss))(params))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


@pytest.mark.parametrize(
    ("head", "norm"),
    [*((head, "none") for head in EVERY_HEAD), ("flatten", "group"), ("gap", "group"), ("gap", "batch")],
)
def test_every_parameter_receives_a_gradient(head: str, norm: str) -> None:
    sizes = {path: np.abs(leaf).max() for path, leaf in gradients(spec_of(head, norm)).items()}
    of_head = len(jax.tree.leaves(nnx.state(init_classifier(spec_of(head), 1, CLASSES).head, nnx.Param)))
    assert len(sizes) == 2 * 2 + of_head + (
        4 if norm != "none" else 0
    )  # kernel and bias, and scale and shift of a norm
    for path, size in sizes.items():
        if norm == "batch" and "convs" in path and "bias" in path:
            assert size < 1e-4, path  # the batch mean takes a convolution's bias away again: rounding is left
        else:
            assert size > 1e-3, path


@pytest.mark.parametrize("norm", NORMS)
def test_in_evaluation_an_image_s_logits_do_not_depend_on_the_rest_of_its_batch(norm: str) -> None:
    net, x = init_classifier(spec_of(norm=norm), 1, 10), jnp.asarray(numbers(6, 8, 8, 1))
    others = jnp.concatenate([x[:3], 5 + 3 * x[3:]])
    np.testing.assert_array_equal(net(x)[:3], net(others)[:3])  # the same program on the same rows
    assert np.abs(net(x)[3:] - net(others)[3:]).max() > 1e-2


def test_in_training_batch_norm_does_mix_the_images_and_moves_its_running_mean() -> None:
    net, x = init_classifier(spec_of(norm="batch"), 1, 10), jnp.asarray(numbers(6, 8, 8, 1))
    others = jnp.concatenate([x[:3], 5 + 3 * x[3:]])
    assert np.abs(net(x, train=True)[:3] - net(others, train=True)[:3]).max() > 1e-2
    mean: Any = init_classifier(spec_of(norm="batch"), 1, 10)
    before = np.array(mean.backbone.norms[0].mean[...])
    conv = mean.backbone.convs[0](x)
    mean(x, train=True)
    # momentum 0.9: 0.9·old + 0.1·batch mean
    expected = 0.9 * before + 0.1 * np.asarray(conv).mean(axis=(0, 1, 2))
    np.testing.assert_allclose(mean.backbone.norms[0].mean[...], expected, **SUM)


def test_group_norm_makes_each_group_of_eight_channels_standard() -> None:
    x = 3 + 2 * numbers(2, 4, 4, 16)
    norm: Any = NORMS["group"](16, nnx.Rngs(0))
    groups = x.reshape(2, 16, 2, 8)
    mean, std = (statistic(groups, axis=(1, 3), keepdims=True) for statistic in (np.mean, np.std))
    # flax adds 1e-6 to the variance of about 4, and takes it as E[x²] - E[x]²: some 1e-6 of rounding each
    np.testing.assert_allclose(
        norm(jnp.asarray(x), False), ((groups - mean) / std).reshape(x.shape), rtol=1e-4, atol=1e-5
    )


def test_backbone_and_head_draw_from_their_own_streams() -> None:
    flatten, gap = (nnx.state(init_classifier(spec_of(head), 1, 10), nnx.Param) for head in ("flatten", "gap"))
    jax.tree.map(np.testing.assert_array_equal, flatten["backbone"], gap["backbone"])
    spec = spec_of().model_copy(update={"seed": 1})
    other: Any = nnx.state(init_classifier(spec, 1, 10), nnx.Param)
    for part, kernel in (("backbone", lambda s: s["convs"][0]["kernel"]), ("head", lambda s: s["dense"]["kernel"])):
        assert np.abs(kernel(other[part])[...] - kernel(gap[part])[...]).max() > 0.01


def test_the_first_kernels_have_the_spread_that_their_initialisers_promise() -> None:
    net: Any = init_classifier(spec_of().model_copy(update={"backbone": Backbone(width=64, stages=1)}), 1, 10)
    # he_normal: variance 2 / fan_in; the second convolution has 9·64 inputs and 36,864 weights,
    # so the measured deviation is within 3 / sqrt(2·36,864) = 1.1 % of the true one
    kernel = np.asarray(net.backbone.convs[1].kernel[...])
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=0.012)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (spec_of("flaten"), "unknown head 'flaten': did you mean 'flatten'"),
        (spec_of("gap:relu"), "head 'gap:relu': gap takes no argument"),
        (spec_of("gap_conv:rely"), "head 'gap_conv:rely': gap_conv takes only :relu"),
        (spec_of("ladder"), "head 'ladder': ladder takes :g with a whole g from 1 to H' = 4, the side of this feature"),
        (spec_of("ladder:5"), "head 'ladder:5': ladder takes :g with a whole g from 1 to H' = 4"),
        (spec_of("ladder_tiled:0"), "head 'ladder_tiled:0': ladder_tiled takes :g"),
        (spec_of("ladder:02"), "head 'ladder:02': ladder takes :g"),  # one name for one head
        (spec_of("flatten_conv:gelu"), "head 'flatten_conv:gelu': flatten_conv takes only :relu"),
        (spec_of().model_copy(update={"backbone": Backbone(kind="plian")}), "unknown backbone 'plian': did you mean"),
    ],
)
def test_an_unknown_name_or_argument_is_refused_before_a_net_is_built(spec: RunSpec, message: str) -> None:
    for refuse in (check_names, lambda spec: init_classifier(spec, 1, CLASSES)):
        with pytest.raises(UserError, match=message) as raised:
            refuse(spec)
        assert "\n" not in str(raised.value)


def test_known_heads_are_accepted_and_a_head_of_one_s_own_may_take_any_argument(monkeypatch: Any) -> None:
    for head in EVERY_HEAD:
        check_names(spec_of(head))
    monkeypatch.setitem(HEADS, "mine", HEADS["gap"])
    check_names(spec_of("mine:3"))


class SameMap(nnx.Module):
    """Stands for a backbone."""

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        return x


class SameVector(nnx.Module):
    """Stands for a head."""

    def __call__(self, x: jax.Array, drop: Any) -> jax.Array:
        return drop(x.mean(axis=(1, 2)))


def test_dropout_acts_on_the_head_s_input_in_training_alone() -> None:
    net, ones, half = Classifier(SameMap(), SameVector()), jnp.ones((20, 1, 1, 10)), jnp.asarray(0.5)
    np.testing.assert_array_equal(net(ones), np.ones((20, 10)))
    np.testing.assert_array_equal(net(ones, train=True), np.ones((20, 10)))
    dropped = net(ones, train=True, dropout=(half, jax.random.key(0)))
    assert set(np.unique(dropped)) == {0.0, 2.0}  # kept ones are scaled by 1 / (1 - 0.5)
    assert np.abs(dropped - net(ones, train=True, dropout=(half, jax.random.key(1)))).max() == 2.0
    np.testing.assert_array_equal(dropped, net(ones, train=True, dropout=(half, jax.random.key(0))))
    rarely = net(ones, train=True, dropout=(jnp.asarray(0.01), jax.random.key(0)))
    assert 0.9 < np.mean(rarely != 0) < 1


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        (((3, 3, 10), (10,)), "the backbone returns [B, 1, 1, 10] where the spec and the data say [B, 3, 3, 10]"),
        (((1, 1, 10), (11,)), "the head returns [B, 10] where the spec and the data say [B, 11]"),
    ],
)
def test_a_net_of_another_shape_than_declared_is_refused(shapes: Any, told: str) -> None:
    with pytest.raises(UserError, match=re.escape(told)):
        Classifier(SameMap(), SameVector(), shapes=shapes)(jnp.ones((20, 1, 1, 10)))
