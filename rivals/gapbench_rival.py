"""gapbench itself: per step exactly what a sweep's worker does (`gapbench.train.train_run`), without its evaluations.

All calls into the library's training stand here.
"""

import os
from typing import Any

from gapbench.worker import xla_flags

os.environ["XLA_FLAGS"] = xla_flags()  # as `pin_process` does, before JAX starts

import jax
import jax.numpy as jnp
import numpy as np
from cell import Cell, Train

from gapbench import throughput
from gapbench.peaks import measure_peaks
from gapbench.spec import RunSpec
from gapbench.stopwatch import Timed
from gapbench.train import Constants, Program, TrainState, compile_program, init_state, make_constants
from gapbench.weights import import_weights

PACKAGES = ("flax", "jax", "optax")


def init_from(cell: Cell, spec: RunSpec) -> TrainState:
    """The state at step 0, with the cell's weights instead of its own."""
    _, state = init_state(spec, cell.images.shape[-1], cell.classes)
    return state._replace(params=import_weights(cell.weights, state.params))


def start(cell: Cell) -> tuple[Program, TrainState, Constants]:
    """The compiled program of a cell's net, the state at step 0, and what its steps share."""
    spec = RunSpec(**cell.spec)
    program = compile_program(spec.program, cell.images.shape[-1], cell.classes)
    moments = (jnp.asarray(cell.mean), jnp.asarray(cell.std))
    return program, init_from(cell, spec), make_constants(spec, moments)


def load(cells: list[Cell]) -> Train:
    """One seed after another; a pinned process each for two halves of the seeds."""
    starts = [start(cell) for cell in cells]

    def train(steps: int, watch: bool) -> np.ndarray:
        losses = []
        for cell, (program, first, constants) in zip(cells, starts, strict=True):
            state, pending = jax.tree.map(jnp.copy, first), []  # a step's input is donated
            for index in cell.order[:steps]:
                state, pulse = program.step(state, cell.images[index], cell.labels[index], constants)
                pending.append(pulse.loss)
            losses.append(jax.device_get(pending))
        return np.array(losses)

    return train


def profile(cell: Cell) -> dict[str, Any]:
    """What a step of a cell's net goes to: a `gapbench.operations.Profile`."""
    program, state, constants = start(cell)
    images, labels = cell.images[cell.order[0]], cell.labels[cell.order[0]]
    timed = Timed(lambda old: program.step(old, images, labels, constants), state, text=program.step.as_text() or "")
    return throughput.profile(timed, cell.spec["head"], cell.spec["task"]["px"]).model_dump(mode="json")


def measure_peak() -> float:
    """FLOP/s of a float32 matmul on this process's core."""
    return measure_peaks().matmul_flops_per_s["float32"]
