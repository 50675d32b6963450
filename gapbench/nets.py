"""A trained net: what is asked of it after training, and how it is kept (by Orbax, beside its record, out of git)."""

import functools
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, UInt8

from gapbench.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from gapbench.data.splits import Dataset, Splits
from gapbench.evaluate import in_batches
from gapbench.models.classifier import Moments, normalise
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


@functools.lru_cache(maxsize=64)
def compile_logits(graph: nnx.GraphDef) -> Any:
    """The logits of a batch of images."""

    def logits(variables: Variables, moments: Moments, images: UInt8[Array, "B H W C"]) -> Float[Array, "B K"]:
        return nnx.merge(graph, *variables)(normalise(images, moments), train=False)

    return jax.jit(logits)


def logits_of(net: Net, images: UInt8[np.ndarray, "N H W C"]) -> Float[np.ndarray, "N K"]:
    """Of images of the size that the net was trained at."""
    logits = in_batches(functools.partial(compile_logits(net.graph), net.variables, net.moments), images)
    return np.asarray(logits)


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
    initial, structure = jax.tree.flatten((state.params, state.stats))
    if [leaf.shape for leaf in initial] != [leaf.shape for leaf in weights]:
        raise UserError(f"{folder}: its weights are of another net than {spec.head!r} is now; delete it")
    variables = jax.tree.unflatten(structure, weights)
    return Net(spec, variables, (mean, std), class_names)


def net_of(spec: RunSpec, state: TrainState, dataset: Dataset, splits: Splits) -> Net:
    """The net that a run left, with the moments of its training pixels."""
    moments = (jnp.asarray(splits.mean), jnp.asarray(splits.std))
    return Net(spec, (state.params, state.stats), moments, dataset.class_names)
