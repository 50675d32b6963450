"""Other sizes than a net was built for: which heads take them, what the adapters do, and what a user is told."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.models.classifier import init_classifier
from gapbench.models.dropout import keep_all
from gapbench.models.heads import grid_pool
from gapbench.nets import Net
from gapbench.sizes import adapters, check_size, compile_statistics, interpolated, logits_at, pad
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError

MOMENTS = (jnp.zeros(1), jnp.ones(1))


def net(head: str, norm: str = "none") -> Net:
    spec = RunSpec(
        task=Task(dataset="digits", px=8, train_images=100),
        backbone=Backbone(width=4, stages=1, norm=norm),  # type: ignore[arg-type]
        head=head,
        recipe=Recipe(peak_lr=1e-3, batch=10, steps=2, eval_every=1),
        seed=0,
    )
    model = init_classifier(spec, 1, 10)
    _, params, stats = nnx.split(model, nnx.Param, ...)
    return Net(spec, (params, stats), MOMENTS, tuple(map(str, range(10))))


def model_of(made: Net) -> nnx.Module:
    return nnx.merge(made.graph, *made.variables)


def images(px: int) -> np.ndarray:
    return np.random.default_rng(px).integers(0, 256, (3, px, px, 1), dtype=np.uint8)


def test_which_heads_take_which_sizes_and_with_what() -> None:
    assert adapters(net("gap"), 12) == ["none", "resize"]
    assert adapters(net("ladder:2"), 12) == ["none", "resize"]
    assert adapters(net("flatten"), 12) == ["resize", "pool", "interpolate"]
    assert adapters(net("flatten_tiled"), 12) == ["none", "resize"]  # a ladder: its grid pools any map
    assert adapters(net("flatten_lowrank"), 12) == ["resize", "pool"]
    assert adapters(net("flatten"), 9) == ["none", "resize", "pool", "interpolate"]  # its map has the side of 8 px
    assert adapters(net("gap"), 1) == ["resize"]


def test_a_size_that_a_head_cannot_take_names_the_head_its_size_and_the_adapters() -> None:
    told = (
        r"head 'flatten' was built for 8 px, a map of 4×4, and 12 px make it 6×6;"
        r" adapters that can: resize, pool, interpolate"
    )
    with pytest.raises(UserError, match=told):
        check_size(net("flatten"), 12, "none")
    with pytest.raises(UserError, match=r"head 'gap' has no weight a position to interpolate; .* none, resize"):
        check_size(net("gap"), 12, "interpolate")
    check_size(net("gap"), 12, "none")


def test_at_their_own_size_all_ways_are_one() -> None:
    made = net("flatten")
    model = model_of(made)
    plain = logits_at(made.spec, model, jnp.asarray(images(8)), MOMENTS, "none")
    for adapter in ("resize", "pool", "interpolate"):
        np.testing.assert_allclose(logits_at(made.spec, model, jnp.asarray(images(8)), MOMENTS, adapter), plain, 1e-5)


def test_interpolated_weights_keep_the_logits_of_constant_maps_and_are_bilinear() -> None:
    made = net("flatten")
    head = model_of(made).head
    constant = jnp.broadcast_to(jnp.asarray([0.5, -1.0, 2.0, 0.1]), (1, 4, 4, 4))
    for side in (2, 4, 7, 8):
        larger = jnp.broadcast_to(constant[:, :1, :1], (1, side, side, 4))
        inner = interpolated(head, larger, 4)
        if side % 4 == 0 or side == 2:  # else bilinear weights do not sum to the same in every row
            np.testing.assert_allclose(inner, head(constant, keep_all), rtol=1e-4, atol=1e-5)
    # a map that is each position twice each way: half-pixel centres put the doubled weights on both sides of it
    kernel = np.asarray(head.dense.kernel[...]).reshape(4, 4, 4, 10)
    mean = np.asarray(interpolated(head, jnp.ones((1, 8, 8, 4)), 4))
    np.testing.assert_allclose(mean[0], kernel.sum(axis=(0, 1, 2)) + np.asarray(head.dense.bias[...]), rtol=1e-4)


def test_pooling_averages_the_map_to_the_side_that_the_head_knows() -> None:
    made = net("flatten")
    model = model_of(made)
    x = jnp.asarray(images(16))
    maps = model.backbone(x.astype(jnp.float32) / 255, False)
    expected = model.head(grid_pool(maps, 4), keep_all)
    np.testing.assert_allclose(logits_at(made.spec, model, x, MOMENTS, "pool"), expected, rtol=1e-5)


def test_a_gap_net_at_twice_the_size_of_a_repeated_image_sees_the_same_inside() -> None:
    made = net("gap")
    assert logits_at(made.spec, model_of(made), jnp.asarray(images(13)), MOMENTS, "none").shape == (3, 10)


def test_new_statistics_are_those_of_the_batch_and_the_running_ones_stay() -> None:
    made = net("flatten", norm="batch")
    before = [np.asarray(leaf) for leaf in nnx.to_flat_state(made.variables[1]).leaves]
    new = compile_statistics(made.graph)(made.variables, MOMENTS, jnp.asarray(images(12)))
    first = model_of(made).backbone.convs[0](jnp.asarray(images(12)).astype(jnp.float32) / 255)
    np.testing.assert_allclose(new["backbone"]["norms"][0]["mean"][...], first.mean(axis=(0, 1, 2)), rtol=1e-4)
    np.testing.assert_allclose(new["backbone"]["norms"][0]["var"][...], first.var(axis=(0, 1, 2)), rtol=1e-3)
    after = [np.asarray(leaf) for leaf in nnx.to_flat_state(made.variables[1]).leaves]
    np.testing.assert_equal(before, after)


def test_padding_puts_the_image_in_the_middle() -> None:
    made = pad(images(4), 7)
    np.testing.assert_array_equal(made[:, 1:5, 1:5], images(4))
    assert int(made.sum()) == int(images(4).sum())
