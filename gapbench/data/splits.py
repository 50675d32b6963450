"""Which images a run trains on, stops on and is judged on, and in which order; all drawn by name from its seed."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from gapbench.data.sizing import Dataset
from gapbench.data.strata import stratified
from gapbench.keys import generator_for
from gapbench.spec import Task, UserError, digest


class Split(NamedTuple):
    """Images and their labels."""

    images: UInt8[np.ndarray, "N H W C"]
    labels: Int32[np.ndarray, "N"]


CURVE_IMAGES = 2000


@dataclass(frozen=True)
class Splits:
    """The images of one task under one seed."""

    train: Split
    val: Split  # disjoint from train
    probe: Split  # a part of train, as large as test where it can be: what train metrics are evaluated on
    test: Split  # whole, whatever the seed
    test_probe: Split  # at most CURVE_IMAGES of it, the same for every seed: for the curve, where whole costs too much
    mean: Float32[np.ndarray, "C"]  # of train alone, values in 0..1
    std: Float32[np.ndarray, "C"]  # at least one grey level
    classes: int
    subset_hash: str  # of the train and val draw, the content and the size: equal in both runs of a pair


def moments(images: UInt8[np.ndarray, "N H W C"]) -> tuple[Float32[np.ndarray, "C"], Float32[np.ndarray, "C"]]:
    """Mean and standard deviation of each channel, values in 0..1; exact, from its histogram of 256 levels."""
    levels = np.arange(256) / 255
    counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in np.moveaxis(images, -1, 0)])
    share = counts / counts.sum(axis=1, keepdims=True)
    mean = share @ levels
    variance = (share * (levels - mean[:, None]) ** 2).sum(axis=1)
    return mean.astype(np.float32), np.maximum(np.sqrt(variance), 1 / 255).astype(np.float32)


def normalise(
    images: UInt8[np.ndarray, "N H W C"], mean: Float32[np.ndarray, "C"], std: Float32[np.ndarray, "C"]
) -> Float32[np.ndarray, "N H W C"]:
    """(images / 255 - mean) / std."""
    scaled: np.ndarray = (images.astype(np.float32) / np.float32(255) - mean) / std
    return scaled


def _check(dataset: Dataset, task: Task) -> None:
    have, classes = len(dataset.train_labels), len(dataset.class_names)
    if task.train_images + task.val_images > have:
        raise UserError(
            f"task.train_images={task.train_images} and val_images={task.val_images}: {dataset.name} has"
            f" {have} training images; lower one until their sum fits"
        )
    if task.train_images < classes:
        raise UserError(
            f"task.train_images={task.train_images}: {dataset.name} has {classes} classes; use at least that"
        )


def split(dataset: Dataset, task: Task, seed: int) -> Splits:
    """Train, validation, probe and test images; the draw knows neither the size nor the head.

    Raises:
      UserError: `task` asks for more training images than there are, or for fewer than classes.
    """
    _check(dataset, task)
    labels, generator = dataset.train_labels, generator_for(seed, "subset")
    train = stratified(labels, task.train_images, generator)
    rest = np.setdiff1d(np.arange(len(labels)), train)
    val = rest[stratified(labels[rest], task.val_images, generator)]
    probe = train[stratified(labels[train], min(len(dataset.test_labels), len(train)), generator)]
    train_split, val_split, probe_split = (Split(dataset.train_images[i], labels[i]) for i in (train, val, probe))
    mean, std = moments(train_split.images)
    test = Split(dataset.test_images, dataset.test_labels)
    test_probe = test
    if len(test.labels) > CURVE_IMAGES:
        part = stratified(test.labels, CURVE_IMAGES, generator_for(0, "subset"))
        test_probe = Split(test.images[part], test.labels[part])
    drawn = {"data": dataset.fingerprint, "px": dataset.px, "train": train.tolist(), "val": val.tolist()}
    return Splits(
        train=train_split,
        val=val_split,
        probe=probe_split,
        test=test,
        test_probe=test_probe,
        mean=mean,
        std=std,
        classes=len(dataset.class_names),
        subset_hash=digest(drawn, 16),
    )


def batches(n: int, batch: int, steps: int, seed: int) -> Int32[np.ndarray, "T B"]:
    """Indices of each step's batch: a new permutation each epoch, a short last batch filled from the next one."""
    generator = generator_for(seed, "order")
    epochs = -(-steps * batch // n)
    order = np.concatenate([generator.permutation(n) for _ in range(epochs)])
    return order[: steps * batch].reshape(steps, batch).astype(np.int32)
