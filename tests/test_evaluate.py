"""Every image counts exactly once, whatever the size of the split, and padding never does."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gapbench.evaluate import BATCH, count_batch, evaluate
from gapbench.models.classifier import normalise

RNG = np.random.default_rng(0)
KERNEL = (0.3 * RNG.standard_normal((2 * 2 * 3, 4))).astype(np.float32)
BIAS = np.array([3.0, 0.0, 0.0, 0.0], np.float32)  # a black image is mostly taken for class 0, which labels padding
MOMENTS = jnp.asarray([0.4, 0.5, 0.6]), jnp.asarray([0.2, 0.3, 0.4])
# float32 logits of twelve terms near one against float64: 1e-6 relative; the sum over images adds as much again.
ROUNDING = 1e-5


class Linear(nnx.Module):
    """Pixels to logits; as a classifier, it is told whether it trains."""

    def __init__(self) -> None:
        self.kernel, self.bias = nnx.Param(jnp.asarray(KERNEL)), nnx.Param(jnp.asarray(BIAS))

    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        assert not train
        return x.reshape(len(x), -1) @ self.kernel[...] + self.bias[...][None]


GRAPH, PARAMS = nnx.split(Linear())
COUNT = jax.jit(partial(count_batch, GRAPH, (PARAMS,), MOMENTS))


def made(n: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.integers(0, 256, (n, 2, 2, 3), np.uint8), rng.integers(0, 4, n).astype(np.int32)


def reference(images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Mean cross entropy and accuracy over all images at once, in float64."""
    mean, std = (np.asarray(m, np.float64) for m in MOMENTS)
    logits = ((images / 255 - mean) / std).reshape(len(labels), -1) @ KERNEL.astype(np.float64) + BIAS
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
    return float(losses.mean()), float((logits.argmax(axis=1) == labels).mean())


@pytest.mark.parametrize("n", [1, BATCH - 1, BATCH, BATCH + 1, 2 * BATCH + 37])
def test_the_score_is_that_of_all_images_at_once(n: int) -> None:
    images, labels = made(n)
    score, (loss, accuracy) = evaluate(COUNT, images, labels), reference(images, labels)
    np.testing.assert_allclose(score.loss, loss, rtol=ROUNDING)
    assert score.accuracy == accuracy  # a count over a count: exact


def test_padding_would_count_as_correct_were_it_not_masked() -> None:
    images, labels = made(BATCH + 3)
    labels[:] = 3  # nearly all wrong, while every padded image, black and of class 0, would be right
    assert reference(np.zeros((1, 2, 2, 3), np.uint8), np.zeros(1, np.int32))[1] == 1.0

    def unmasked(x: Any, y: Any, counts: Any) -> Any:
        return COUNT(x, y, np.ones_like(counts))

    loss, accuracy = reference(images, labels)
    assert evaluate(COUNT, images, labels).accuracy == accuracy
    # 97 padded images more in the sum, over 103 images
    np.testing.assert_allclose(evaluate(unmasked, images, labels).accuracy, accuracy + 97 / 103, rtol=1e-12)
    assert evaluate(unmasked, images, labels).loss - loss > 1e-3  # their small losses


def test_an_evaluation_without_the_partial_batch_gives_another_number() -> None:
    images, labels = made(BATCH + 37)
    labels[BATCH:] = 3
    whole, cut = evaluate(COUNT, images, labels), evaluate(COUNT, images[:BATCH], labels[:BATCH])
    np.testing.assert_allclose(whole.loss, reference(images, labels)[0], rtol=ROUNDING)
    assert abs(whole.loss - cut.loss) > 0.05
    assert abs(whole.accuracy - cut.accuracy) > 0.01


def test_every_call_has_one_shape_and_each_image_counts_in_one_of_them() -> None:
    images, labels = made(2 * BATCH + 37)
    calls = []

    def count(x: Any, y: Any, counts: Any) -> Any:
        calls.append((x.shape, y.shape, int(counts.sum())))
        return COUNT(x, y, counts)

    evaluate(count, images, labels)
    assert calls == [((BATCH, 2, 2, 3), (BATCH,), n) for n in (BATCH, BATCH, 37)]


def test_a_loss_that_is_not_finite_is_not_hidden_by_the_mean() -> None:
    images, labels = made(BATCH + 1)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), PARAMS)
    score = evaluate(jax.jit(partial(count_batch, GRAPH, (broken,), MOMENTS)), images, labels)
    assert np.isnan(score.loss)


def test_padding_adds_nothing_even_where_its_own_loss_is_not_finite() -> None:
    kernel = np.zeros_like(KERNEL)
    kernel[:, 0] = 3e38  # black pixels, below the mean, make the logit of class 0 overflow to minus infinity
    steep = jax.tree.map(lambda leaf: jnp.asarray(kernel) if leaf.ndim == 2 else jnp.zeros_like(leaf), PARAMS)
    count = jax.jit(partial(count_batch, GRAPH, (steep,), MOMENTS))
    black = np.zeros((1, 2, 2, 3), np.uint8)
    assert np.isinf(evaluate(count, black, np.zeros(1, np.int32)).loss)
    # taken for class 1, its logits are -inf, 0, 0, 0: log 3; the 99 padded ones are black and of class 0
    np.testing.assert_allclose(evaluate(count, black, np.ones(1, np.int32)).loss, np.log(3), rtol=ROUNDING)


def test_pixels_are_normalised_by_channel() -> None:
    images = np.array([[[[0, 255, 51]]]], np.uint8)
    # (0 - 0.4) / 0.2 = -2; (1 - 0.5) / 0.3 = 5/3; (0.2 - 0.6) / 0.4 = -1
    np.testing.assert_allclose(normalise(jnp.asarray(images), MOMENTS), [[[[-2, 5 / 3, -1]]]], rtol=ROUNDING)
