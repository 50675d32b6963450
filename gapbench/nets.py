"""A trained net: what is asked of it after training, and how it is kept (by Orbax, beside its record, out of git)."""

import functools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapbench.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from gapbench.models.classifier import Moments
from gapbench.spec import RunSpec, UserError
from gapbench.train import TrainState, init_state

Variables = tuple[Any, Any]  # parameters and batch statistics, as `count_batch` has them


class Net(NamedTuple):
    """Weights, and all that is needed to use them."""

    spec: RunSpec
    variables: Variables
    moments: Moments
    class_names: tuple[str, ...]

    @property
    def image_channels(self) -> int:
        """1 or 3."""
        return len(self.moments[0])

    @property
    def graph(self) -> nnx.GraphDef:
        """The net's static graph."""
        return graph_of(self.spec.program, self.image_channels, len(self.class_names))

    @property
    def initial(self) -> Variables:
        """The same net before its first step: the baseline of random weights."""
        _, state = init_state(self.spec, self.image_channels, len(self.class_names))
        return state.params, state.stats


@functools.lru_cache(maxsize=64)
def graph_of(shape: RunSpec, image_channels: int, classes: int) -> nnx.GraphDef:
    """One and the same object for all runs of a program, so that what is compiled for it is found again."""
    return init_state(shape, image_channels, classes)[0]


def folder_of(record: Path) -> Path:
    """Where the net of a record's file is kept."""
    return record.resolve().parent.parent / "checkpoints" / record.stem


def keep_net(folder: Path, net: Net) -> None:
    """Write the weights, in place of what stands there."""
    shutil.rmtree(folder, ignore_errors=True)
    leaves = [np.asarray(leaf) for leaf in jax.tree.leaves((net.variables, net.moments))]
    clock = {"run_id": net.spec.run_id, "class_names": list(net.class_names)}
    save_checkpoint(folder, net.spec.recipe.steps, Checkpoint(leaves, clock))


def load_net(folder: Path, spec: RunSpec) -> Net | None:
    """The kept net of a run; None where there is none.

    Raises:
      UserError: it cannot be read, or is another run's.
    """
    try:
        checkpoint = load_checkpoint(folder)
    except ValueError as error:
        raise UserError(f"{folder}: {error}; delete it, and the net is trained again") from error
    if checkpoint is None:
        return None
    if checkpoint.clock["run_id"] != spec.run_id:
        raise UserError(f"{folder}: holds {checkpoint.clock['run_id']}; delete it, and the net is trained again")
    *weights, mean, std = map(jnp.asarray, checkpoint.leaves)
    class_names = tuple(checkpoint.clock["class_names"])
    _, state = init_state(spec, len(mean), len(class_names))
    variables = jax.tree.unflatten(jax.tree.structure((state.params, state.stats)), weights)
    return Net(spec, variables, (mean, std), class_names)


def net_of(spec: RunSpec, state: TrainState, moments: Any, class_names: tuple[str, ...]) -> Net:
    """The net that a run left, with the moments of its training pixels."""
    mean, std = map(jnp.asarray, moments)
    return Net(spec, (state.params, state.stats), (mean, std), class_names)
