"""Other sizes than a net was built for: which heads take them, what the adapters do, and what a user is told."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.special import log_softmax

from gapbench.data import load, split
from gapbench.data.sizing import resize
from gapbench.data.splits import part_of
from gapbench.models.classifier import init_classifier
from gapbench.models.dropout import keep_all
from gapbench.models.heads import grid_pool
from gapbench.nets import Net
from gapbench.sizes import (
    EVALUATED,
    adapters,
    audit_sizes,
    check_size,
    compile_statistics,
    interpolated,
    logits_at,
    pad,
)
from gapbench.spec import Backbone, Recipe, RunSpec, Task, UserError

MOMENTS = (jnp.zeros(1), jnp.ones(1))


def net(head: str, norm: str = "none", padding: str = "zero") -> Net:
    spec = RunSpec(
        task=Task(dataset="digits", px=8, train_images=100),
        backbone=Backbone(width=4, stages=1, norm=norm, padding=padding),  # type: ignore[arg-type]
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
    # one position of 8×8 alone shows its weight: half-pixel centres, three parts of the nearest and one of the next
    kernel = np.asarray(head.dense.kernel[...]).reshape(4, 4, 4, 10)
    spot = jnp.zeros((1, 8, 8, 4)).at[0, 2, 7, 1].set(1.0)
    expected = (0.75 * kernel[1, 3, 1] + 0.25 * kernel[0, 3, 1]) * 16 / 64
    found = np.asarray(interpolated(head, spot, 4))[0] - np.asarray(head.dense.bias[...])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_pooling_averages_the_map_to_the_side_that_the_head_knows() -> None:
    made = net("flatten")
    model = model_of(made)
    x = jnp.asarray(images(16))
    maps = model.backbone(x.astype(jnp.float32) / 255, False)
    expected = model.head(grid_pool(maps, 4), keep_all)
    np.testing.assert_allclose(logits_at(made.spec, model, x, MOMENTS, "pool"), expected, rtol=1e-5)


def test_a_gap_net_on_a_circle_says_the_same_of_an_image_and_of_four_copies_of_it() -> None:
    made = net("gap", padding="circular")
    one, four = images(8), np.tile(images(8), (1, 2, 2, 1))
    logits = [logits_at(made.spec, model_of(made), jnp.asarray(x), MOMENTS, "none") for x in (one, four)]
    np.testing.assert_allclose(logits[1], logits[0], rtol=1e-4, atol=1e-5)
    assert np.ptp(np.asarray(logits[0])) > 0.01


@pytest.mark.parametrize(("head", "norm"), [("gap", "none"), ("flatten", "batch")])
def test_every_row_of_the_audit_is_what_the_net_says_of_those_images(head: str, norm: str) -> None:
    made = net(head, norm)
    splits = split(load("digits", 8), made.spec.task, 0)
    table, timing = audit_sizes(made, splits, (6, 12))
    generator = np.random.default_rng(0)
    parts = {
        "val": part_of(splits.val, EVALUATED["val"], generator),
        "test": part_of(splits.test, EVALUATED["test"], generator),
    }
    rows = list(zip(*table.values(), strict=True))
    adapted = {"gap": ("none", "resize"), "flatten": ("resize", "pool", "interpolate")}[head]
    expected = {("resized", 8, "none", "own")}
    for fit, px, adapter in product(("resized", "padded"), (6, 12), adapted):
        if (fit, px) != ("padded", 6):
            expected |= {(fit, px, adapter, "own")}
            expected |= {(fit, px, adapter, "new")} if norm == "batch" and adapter != "resize" else set()
    assert {row[:4] for row in rows} == expected
    assert len(rows) == 2 * len(expected)
    assert set(timing) == {f"image_s_{px}_{adapter}" for fit, px, adapter, how in expected if fit == "resized"}
    for fit, px, adapter, statistics, name, loss, accuracy in rows:
        part = parts[name]
        whole = load("digits", px)
        source = whole.test_images if name == "test" else whole.train_images
        seen = source[part.places] if fit == "resized" else pad(part.images, px)
        variables = made.variables
        if statistics == "new":
            train = part_of(splits.train, 500, np.random.default_rng(0))  # all of them: only the order is drawn
            again = whole.train_images[train.places] if fit == "resized" else pad(train.images, px)
            variables = (variables[0], compile_statistics(made.graph)(variables, MOMENTS, jnp.asarray(again)))
        if adapter == "resize":
            seen = resize(seen, 8)
        model = nnx.merge(made.graph, *variables)
        logits = np.asarray(logits_at(made.spec, model, jnp.asarray(seen), MOMENTS, adapter), float)
        assert (logits.argmax(axis=1) == part.labels).mean() == pytest.approx(accuracy, abs=0.006)  # ties by rounding
        picked = log_softmax(logits, axis=1)[np.arange(len(part.labels)), part.labels]
        assert -picked.mean() == pytest.approx(loss, rel=1e-3)


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
