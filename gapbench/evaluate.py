"""The one evaluation: every split, padded and masked, in eval mode, so that every image counts exactly once."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, UInt8

from gapbench.models.classifier import Moments, normalise

BATCH = 100  # images a call (on the CPU larger ones leave the cache); the last batch of a split is padded to it


class Score(NamedTuple):
    """Mean cross entropy in nats, and the fraction of images classified correctly."""

    loss: float
    accuracy: float


def count_batch(
    graph: nnx.GraphDef,
    variables: Any,
    moments: Moments,
    images: UInt8[Array, "B H W C"],
    labels: Int[Array, "B"],
    counts: Bool[Array, "B"],
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Summed loss and number correct over the images that count (`counts` is False on padding).

    `variables` are the states that `graph` merges with: parameters, and batch statistics.
    """
    logits = nnx.merge(graph, *variables)(normalise(images, moments), train=False)
    return count_logits(logits, labels, counts)


def count_logits(
    logits: Float[Array, "B K"], labels: Int[Array, "B"], counts: Bool[Array, "B"]
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """`count_batch` from the logits on."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    correct = jnp.argmax(logits, axis=-1) == labels
    return jnp.sum(jnp.where(counts, losses, 0.0)), jnp.sum(counts & correct)


def evaluate(
    count: Callable[..., tuple[jax.Array, jax.Array]],
    images: UInt8[np.ndarray, "N H W C"],
    labels: Int[np.ndarray, "N"],
) -> Score:
    """Score of one split; `count(images, labels, counts)` is `count_batch` with the model and the moments filled in."""
    sums = [count(*batch) for batch in padded_batches(images, labels, np.ones(len(labels), bool))]
    losses, correct = zip(*jax.device_get(sums), strict=True)  # one wait for the whole split
    return mean_score(losses, correct, len(labels))


def padded_batches(*columns: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """The columns by batches of one shape, the last one filled up with zeros (False)."""
    for start in range(0, len(columns[0]), BATCH):
        parts = [column[start : start + BATCH] for column in columns]
        yield tuple(np.pad(part, [(0, BATCH - len(part))] + [(0, 0)] * (part.ndim - 1)) for part in parts)


def in_batches(function: Callable[..., Any], images: UInt8[np.ndarray, "N H W C"], *columns: np.ndarray) -> Any:
    """`function(images, *columns)` of all images, batch by batch; its arrays [N, ...] on the host."""
    outs = [function(*batch) for batch in padded_batches(images, *columns)]
    return jax.tree.map(lambda *arrays: np.concatenate(arrays)[: len(images)], *jax.device_get(outs))


def mean_score(losses: Any, correct: Any, images: int) -> Score:
    """The score of so many images from the sums of their batches, added up in double precision."""
    return Score(float(np.sum(losses, dtype=np.float64)) / images, float(np.sum(correct)) / images)
