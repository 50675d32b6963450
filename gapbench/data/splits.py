"""Which images a run trains on, stops on and is judged on, and in which order; all drawn by name from its seed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int, Int32, UInt8

from gapbench.keys import generator_for
from gapbench.spec import Task, UserError, digest


@dataclass(frozen=True)
class Dataset:
    """One data set at one size, as `loading.load` gives it."""

    name: str
    px: int
    train_images: UInt8[np.ndarray, "N px px C"]
    train_labels: Int32[np.ndarray, "N"]
    test_images: UInt8[np.ndarray, "M px px C"]
    test_labels: Int32[np.ndarray, "M"]
    class_names: tuple[str, ...]
    fingerprint: str  # of the raw content, whatever the size and the packing; of canvases, of what was drawn
    train_masks: UInt8[np.ndarray, "N px px"] | None = None  # of canvases: 0, or the number of the object there
    test_masks: UInt8[np.ndarray, "M px px"] | None = None


class Split(NamedTuple):
    """Images, their labels, and where they stand in the data set."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, "N"]
    places: Int[np.ndarray, "N"]  # in the data set's training images, or for test in its test images


@dataclass(frozen=True)
class Splits:
    """The images of one task under one seed."""

    train: Split
    val: Split  # disjoint from train
    probe: Split  # a part of train, as large as test where it can be: what train metrics are evaluated on
    test: Split  # whole, whatever the seed
    curve: dict[str, Split]  # parts of `whole`, drawn by seed, for the curve: the whole costs too much there
    mean: Float32[np.ndarray, "C"]  # of train alone, values in 0..1
    std: Float32[np.ndarray, "C"]  # at least one grey level
    classes: int
    subset_hash: str  # of the train and val draw, the content and the size: equal in both runs of a pair

    @property
    def whole(self) -> dict[str, Split]:
        """What the last step is scored on, by the names of records."""
        return {"train": self.probe, "val": self.val, "test": self.test}


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


def part_of(split: Split, n: int, generator: np.random.Generator) -> Split:
    """At most `n` images of a split, stratified."""
    drawn = stratified(split.labels, min(n, len(split.labels)), generator)
    return Split(*(part[drawn] for part in split))


def moments(images: UInt8[np.ndarray, "N H W C"]) -> tuple[Float32[np.ndarray, "C"], Float32[np.ndarray, "C"]]:
    """Mean and standard deviation of each channel, values in 0..1; exact, from its histogram of 256 levels."""
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1 / 255).astype(np.float32)


def split(dataset: Dataset, task: Task, seed: int) -> Splits:
    """The draw knows neither the size nor the head; raises UserError when `task` does not fit the data set."""
    labels, classes, generator = dataset.train_labels, len(dataset.class_names), generator_for(seed, "subset")
    n, val_n, name, have = task.train_images, task.val_images, dataset.name, len(labels)
    if n + val_n > have:
        raise UserError(f"task.train_images={n} and val_images={val_n}: {name} has {have} training images; lower one")
    if n < classes:
        raise UserError(f"task.train_images={n}: {name} has {classes} classes; use at least that")
    train = stratified(labels, n, generator)
    rest = np.setdiff1d(np.arange(len(labels)), train)
    val = rest[stratified(labels[rest], val_n, generator)]
    probe = train[stratified(labels[train], min(len(dataset.test_labels), len(train)), generator)]
    train_split, val_split, probe_split = (Split(dataset.train_images[i], labels[i], i) for i in (train, val, probe))
    test = Split(dataset.test_images, dataset.test_labels, np.arange(len(dataset.test_labels)))
    whole = {"train": probe_split, "val": val_split, "test": test}
    curve = {name: part_of(part, task.curve_images, generator) for name, part in whole.items()}
    drawn = {"data": dataset.fingerprint, "px": dataset.px, "train": train.tolist(), "val": val.tolist()}
    mean, std = moments(train_split.images)
    return Splits(train_split, val_split, probe_split, test, curve, mean, std, classes, digest(drawn, 16))


def batches(n: int, batch: int, steps: int, seed: int) -> Int32[np.ndarray, "T B"]:
    """Indices of each step's batch: a new permutation each epoch, a short last batch filled from the next one."""
    generator = generator_for(seed, "order")
    order = np.concatenate([generator.permutation(n) for _ in range(-(-steps * batch // n))])
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)
