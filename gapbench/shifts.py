"""Does a net say the same of an image that is moved?"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Int, UInt8

from gapbench.data import Dataset, Split
from gapbench.maps import in_batches
from gapbench.models.classifier import Moments, normalise
from gapbench.nets import Net, Variables


def audit_shifts(net: Net, dataset: Dataset, test: Split, shifts: tuple[int, ...]) -> dict[str, list[Any]]:
    """`consistency`: the share of images that keep their predicted class when moved down and to the right by so many px
    (after Zhang 2019, arXiv 1904.11486); `accuracy`: the share that is then classified correctly.

    What leaves the image comes in again on the other side, so that a net with circular padding and GAP cannot change
    its mind at multiples of its stride. Images whose object that would cut are left out; `images` counts the rest.
    """
    call = functools.partial(compile_prediction(net.graph), net.variables, net.moments)
    before = in_batches(call, test.images)
    table: dict[str, list[Any]] = {"shift": [], "images": [], "consistency": [], "accuracy": []}
    for shift in (0, *shifts):
        whole = np.ones(len(test.labels), bool)
        if dataset.test_masks is not None and shift:
            masks = dataset.test_masks[test.places] > 0
            whole = ~(masks[:, -shift:].any(axis=(1, 2)) | masks[:, :, -shift:].any(axis=(1, 2)))
        after = in_batches(call, np.roll(test.images, (shift, shift), axis=(1, 2)))[whole]
        n = int(whole.sum())
        row = (shift, n, float((after == before[whole]).sum() / n), float((after == test.labels[whole]).sum() / n))
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
    return table


@functools.lru_cache(maxsize=64)
def compile_prediction(graph: nnx.GraphDef) -> Any:
    """The class of the largest logit."""

    def predict(variables: Variables, moments: Moments, images: UInt8[Array, "B H W C"]) -> Int[Array, "B"]:
        return jnp.argmax(nnx.merge(graph, *variables)(normalise(images, moments), train=False), axis=-1)

    return jax.jit(predict)
