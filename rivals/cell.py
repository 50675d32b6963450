"""What every rival is given: one net's initial weights, its images in memory, and the order of its batches.

NumPy alone, so that it can be read in an environment without JAX or without PyTorch. A rival is a file here with
`load(cells)`: it takes the seeds of one net (cells equal in head and size) and returns `train(steps, watch)`, which
starts from their initial weights, makes so many updates of each, and returns the losses before them, [S, T]; where
those cost it time, only if it is to `watch`.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Train = Callable[[int, bool], np.ndarray]  # steps, whether the losses are wanted -> losses [S, T], nats


class Cell(NamedTuple):
    """One run of the sweep."""

    name: str
    spec: dict[str, Any]  # the fields of its RunSpec: head, task, recipe, seed
    classes: int
    weights: Path  # .npz of gapbench.weights: backbone/convs/I/kernel [3 3 C_in C_out], head/dense/kernel [D K], biases
    images: np.ndarray  # uint8 [N, H, W, C]
    labels: np.ndarray  # int32 [N]
    order: np.ndarray  # int32 [T, B]: which images make each step's batch
    mean: np.ndarray  # float32 [C] of the training images, values in 0..1
    std: np.ndarray  # float32 [C]

    @property
    def arrays(self) -> dict[str, np.ndarray]:
        """The initial weights by name."""
        with np.load(self.weights, allow_pickle=False) as file:
            return dict(file)


def write_cell(folder: Path, cell: Cell) -> None:
    """Everything but the weights, which stand there already."""
    np.savez(folder / f"{cell.name}.data.npz", **{name: getattr(cell, name) for name in Cell._fields[4:]})
    (folder / f"{cell.name}.json").write_text(json.dumps({"spec": cell.spec, "classes": cell.classes}))


def read_cell(folder: Path, name: str) -> Cell:
    """The cell that `write_cell` left."""
    with np.load(folder / f"{name}.data.npz", allow_pickle=False) as file:
        return Cell(
            name=name, **json.loads((folder / f"{name}.json").read_text()), weights=folder / f"{name}.npz", **file
        )


def group_seeds(cells: Iterable[Cell]) -> list[list[Cell]]:
    """The cells by net: those of a group differ in the seed alone."""
    groups: dict[tuple[str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.spec["head"], cell.spec["task"]["px"]), []).append(cell)
    return list(groups.values())
