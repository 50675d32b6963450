"""How many, and which, images of each class are drawn; who draws, and why, is for sources.py and splits.py."""

import numpy as np
from jaxtyping import Int, Int32


def allocate(counts: Int[np.ndarray, "K"], n: int) -> Int[np.ndarray, "K"]:
    """`n` places shared in proportion to `counts` by largest remainder, in exact integers; needs n <= sum(counts)."""
    total = int(counts.sum())
    places = n * counts // total
    largest = np.argsort(-(n * counts % total), kind="stable")  # ties go to the lower class
    places[largest[: n - int(places.sum())]] += 1
    return places


def stratified(labels: Int32[np.ndarray, "N"], n: int, generator: np.random.Generator) -> Int[np.ndarray, "n"]:
    """Ascending indices of `n` images, each class in proportion; one generator state nests smaller draws in larger."""
    places = allocate(np.bincount(labels), n)
    order = generator.permutation(len(labels))
    drawn = [order[labels[order] == label][:many] for label, many in enumerate(places)]
    return np.sort(np.concatenate(drawn))
