"""gapbench itself: per step exactly what a sweep's worker does (`gapbench.train.train_run`), without its evaluations.

All calls into the library's training stand here.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gapbench.worker import xla_flags

os.environ["XLA_FLAGS"] = xla_flags()  # as `pin_process` does, before JAX starts

import jax
import jax.numpy as jnp
import numpy as np
from cell import Cell, Train

from gapbench.keys import key_for
from gapbench.operations import Profile, read_operations
from gapbench.peaks import measure_peaks
from gapbench.spec import RunSpec
from gapbench.stopwatch import Timed, trace
from gapbench.train import Constants, Program, TrainState, compile_program, init_state, make_hyper
from gapbench.weights import import_weights

PACKAGES = ("flax", "jax", "optax")


def init_from(cell: Cell, spec: RunSpec) -> TrainState:
    """The state at step 0, with the cell's weights instead of its own."""
    _, state = init_state(spec, cell.images.shape[-1], cell.classes)
    return state._replace(params=import_weights(cell.weights, state.params))


def load_one(cell: Cell) -> tuple[Program, Callable[[int], list[jax.Array]]]:
    """The compiled program of a cell's net, and what trains it for so many steps, and returns the losses."""
    spec = RunSpec(**cell.spec)
    program = compile_program(spec.program, cell.images.shape[-1], cell.classes)
    start, moments = init_from(cell, spec), (jnp.asarray(cell.mean), jnp.asarray(cell.std))
    constants = Constants(moments, key_for(spec.seed, "dropout"), make_hyper(spec.recipe))

    def train(steps: int) -> list[jax.Array]:
        state, losses = jax.tree.map(jnp.copy, start), []  # a step's input is donated
        for index in cell.order[:steps]:
            state, loss = program.step(state, cell.images[index], cell.labels[index], constants)
            losses.append(loss)
        return losses

    return program, train


def load(cells: list[Cell]) -> Train:
    """One seed after another; a pinned process each for two halves of the seeds."""
    trains = [load_one(cell)[1] for cell in cells]
    return lambda steps, watch: np.array([jax.device_get(train(steps)) for train in trains])


def profile(cell: Cell, steps: int) -> dict[str, Any]:
    """What the steps of a cell's net go to: a `gapbench.operations.Profile`."""
    program, train = load_one(cell)
    timed = Timed(lambda carry: (carry, train(steps)), ())
    with tempfile.TemporaryDirectory() as folder:
        step_s = trace(timed, Path(folder), calls=1) / steps
        operations = read_operations(Path(folder), program.step.as_text() or "", steps)
    px, head = cell.spec["task"]["px"], cell.spec["head"]
    return Profile(head=head, px=px, step_s=step_s, operations=operations).model_dump(mode="json")


def measure_peak() -> float:
    """FLOP/s of a float32 matmul on this process's core."""
    return measure_peaks().matmul_flops_per_s["float32"]
