"""Does a net say the same of an image that is moved?"""

from typing import Any

import numpy as np
from jaxtyping import Bool

from gapbench.data import Dataset, Split
from gapbench.nets import Net, logits_of


def audit_shifts(net: Net, dataset: Dataset, test: Split, shifts: tuple[int, ...]) -> dict[str, list[Any]]:
    """`consistency`: the share of images that keep their predicted class when moved down and to the right by so many px
    (after Zhang 2019, arXiv 1904.11486); `accuracy`: the share that is then classified correctly.

    What leaves the image comes in again on the other side, so that a net with circular padding and GAP cannot change
    its mind at multiples of its stride. Images whose object that would cut are left out; `images` counts the rest.
    """
    before = logits_of(net, test.images).argmax(axis=1)
    table: dict[str, list[Any]] = {"shift": [], "images": [], "consistency": [], "accuracy": []}
    for shift in (0, *shifts):
        whole = stays_whole(dataset, test, shift)
        after = logits_of(net, np.roll(test.images, (shift, shift), axis=(1, 2))).argmax(axis=1)[whole]
        n = int(whole.sum())
        row = (shift, n, float((after == before[whole]).sum() / n), float((after == test.labels[whole]).sum() / n))
        for column, value in zip(table.values(), row, strict=True):
            column.append(value)
    return table


def stays_whole(dataset: Dataset, test: Split, shift: int) -> Bool[np.ndarray, "N"]:
    """Which images' objects the border does not cut when they are moved so far; all, where no object is known."""
    if dataset.test_masks is None or not shift:
        return np.ones(len(test.labels), bool)
    masks = dataset.test_masks[test.places] > 0
    return ~(masks[:, -shift:].any(axis=(1, 2)) | masks[:, :, -shift:].any(axis=(1, 2)))
