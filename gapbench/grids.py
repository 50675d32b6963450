"""What is timed, and in which order: the cells of a grid, the important ones first. No JAX here."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from gapbench.counts import count_net
from gapbench.spec import Precision, RunSpec, validate

Phase = Literal["train", "infer"]


class Cell(NamedTuple):
    """What both heads are timed at."""

    px: int
    batch: int  # of one replica
    precision: Precision  # of activations and products
    fleet: int  # replicas, each with a state and a batch of its own, in one program
    phase: Phase  # train: a whole train step; infer: logits in eval mode

    def __str__(self) -> str:
        fleet = f", fleet of {self.fleet}" if self.fleet > 1 else ""
        return f"{self.px}px, batch {self.batch}, {self.precision}{fleet}, {self.phase}"


@dataclass(frozen=True)
class Grid:
    """What is timed: every combination, and in each axis the most important value first."""

    px: Sequence[int]
    batch: Sequence[int]
    precision: Sequence[Precision] = ("float32",)
    fleet: Sequence[int] = (1,)
    phase: Sequence[Phase] = ("train", "infer")

    @property
    def cells(self) -> list[Cell]:
        """Star-shaped: first the cells that leave the first values of the fewest axes, of those the nearest.

        However early the time ends, every axis has then been followed alone before two are combined.
        """
        axes: tuple[Sequence[Any], ...] = (self.px, self.batch, self.precision, self.fleet, self.phase)
        places = itertools.product(*(range(len(axis)) for axis in axes))
        near = sorted(places, key=lambda at: (sum(i > 0 for i in at), sum(at)))
        return [Cell(*(axis[i] for axis, i in zip(axes, at, strict=True))) for at in near]


def spec_at(spec: RunSpec, cell: Cell, head: str) -> RunSpec:
    """The spec of one head in one cell; raises UserError, naming the flag, where a size is too small for the net."""
    fields = spec.model_dump()
    fields["task"]["px"], fields["head"] = cell.px, head
    fields["recipe"] |= {"batch": cell.batch, "precision": cell.precision}
    return validate(RunSpec, fields, f"--px {cell.px}")


def closed_form(spec: RunSpec, cell: Cell, shape: tuple[int, int]) -> tuple[int | None, float]:
    """FLOPs of a step, and the bytes of the activations that training keeps: None and 0 without a closed form."""
    counts = count_net(spec, *shape)
    if counts is None:
        return None, 0.0
    images = cell.batch * cell.fleet
    passes = {"infer": 1, "train": 3}[cell.phase]  # the gradients of the weights and of the inputs are one each
    width = {"float32": 1.0, "bfloat16": 0.5}[cell.precision]
    return passes * images * counts.flops, width * images * counts.activation_bytes * (cell.phase == "train")
