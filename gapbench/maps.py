"""Where in an image the evidence for a class lies: the exact maps of both heads, and Grad-CAM as a common yardstick.

A head reads maps m [H', W', C] as logits y(m). The evidence for class k at a position is (HiResCAM: Draelos & Carin
2020, arXiv 2011.08891)

    e_k(h, w) = sum_c m(h, w, c) · dy_k / dm(h, w, c)

Where y(t·m) - y(0) = t · (y(m) - y(0)) for t > 0, as of every head of one layer, Euler's theorem says that the map
sums, with the bias y(0), to the logit exactly. Of gap it is CAM (Zhou et al. 2016, arXiv 1512.04150) over H'·W', of
flatten what each position adds to the logit, of a maximum what stands where the maximum is. A head of two layers has
no such map; Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) weighs its maps by their mean gradient instead.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, UInt8

from gapbench.data.splits import Split
from gapbench.evaluate import in_batches
from gapbench.models.classifier import Classifier, Moments, normalise
from gapbench.models.dropout import keep_all

Maps = Float[Array, "B H W C"]
Positions = Float[Array, "B H W"]
Read = Callable[[Maps], Float[Array, "B K"]]


class Explained(NamedTuple):
    """Of a batch, for one class an image."""

    evidence: Positions  # e_k
    contrast: Positions  # e_k minus the mean over all classes: softmax sees differences alone
    gradcam: Positions  # relu(sum_c m(h, w, c) · mean_hw(dy_k / dm)): no sum of anything
    logits: Float[Array, "B K"]


def parts_of(head: nnx.Module) -> tuple[Callable[[Maps], Maps], Read]:
    """The head as maps and what reads them: its own 1×1 maps where it makes some, else the backbone's."""
    if hasattr(head, "maps") and hasattr(head, "read"):
        return head.maps, lambda maps: head.read(maps, keep_all)  # type: ignore[attr-defined]
    return lambda maps: maps, lambda maps: head(maps, keep_all)  # type: ignore[operator]


def evidence(read: Read, maps: Maps, weights: Float[Array, "B K"]) -> Positions:
    """sum_c m · d(sum_k w_k y_k) / dm, the weights one-hot for a single class."""
    return jnp.sum(maps * gradient(read, maps, weights), axis=-1)


def grad_cam(read: Read, maps: Maps, weights: Float[Array, "B K"]) -> Positions:
    """relu(sum_c a_c m_c), a_c the mean gradient of channel c over positions."""
    return nnx.relu(jnp.sum(maps * jnp.mean(gradient(read, maps, weights), axis=(1, 2), keepdims=True), axis=-1))


def gradient(read: Read, maps: Maps, weights: Float[Array, "B K"]) -> Maps:
    """Of sum_k w_k y_k with respect to the maps; images do not see each other in eval mode."""
    return jax.grad(lambda m: jnp.sum(read(m) * weights))(maps)


def bias(read: Read, maps: Maps) -> Float[Array, "B K"]:
    """y(0), what the evidence leaves of the logit."""
    return read(jnp.zeros_like(maps))


def explain_batch(
    graph: nnx.GraphDef,
    variables: Any,
    moments: Moments,
    images: UInt8[Array, "B H W C"],
    classes: Int[Array, "B"],
) -> Explained:
    """The maps of each image's class; `variables` as of `count_batch`."""
    model: Classifier = nnx.merge(graph, *variables)
    maps_of, read = parts_of(model.head)
    maps = maps_of(model.backbone(normalise(images, moments), False)).astype(jnp.float32)  # type: ignore[operator]
    logits = read(maps).astype(jnp.float32)
    one = jax.nn.one_hot(classes, logits.shape[-1], dtype=jnp.float32)
    centred = one - 1 / logits.shape[-1]
    return Explained(evidence(read, maps, one), evidence(read, maps, centred), grad_cam(read, maps, one), logits)


@functools.lru_cache(maxsize=64)
def compile_maps(graph: nnx.GraphDef) -> Callable[..., Explained]:
    """`explain_batch`, compiled once a net and size."""
    call: Callable[..., Explained] = jax.jit(functools.partial(explain_batch, graph))
    return call


def explain(graph: nnx.GraphDef, variables: Any, moments: Moments, split: Split) -> Explained:
    """The maps of the images of a split, each for its own class, [N, H', W']."""
    call = functools.partial(compile_maps(graph), variables, moments)
    explained: Explained = in_batches(call, split.images, split.labels)
    return explained
