"""What a killed fleet goes on from: the newest state on disk, whole and its own, or none at all."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from gapbench.spec import digest
from gapbench.train import hash_arrays

OPTIONS = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)


class Checkpoint(NamedTuple):
    """Arrays on the host, and beside them what JSON holds exactly: step, seconds, curves, whose they are."""

    leaves: list[np.ndarray]  # replicas along the first axis
    clock: dict[str, Any]


def save_checkpoint(folder: Path, step: int, checkpoint: Checkpoint) -> None:
    """Write a new checkpoint, then delete the one before it: a crash at any moment leaves one of them whole."""
    leaves, clock = checkpoint
    sealed = {"clock": clock, "seal": seal(checkpoint)}
    with ocp.CheckpointManager(folder.absolute(), options=OPTIONS) as manager:
        manager.save(step, args=ocp.args.Composite(leaves=ocp.args.PyTreeSave(leaves), rest=ocp.args.JsonSave(sealed)))


def load_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint; None where there is none.

    Raises:
      ValueError: it cannot be read, or is not bit for bit what was saved.
    """
    if not folder.is_dir():
        return None
    try:
        with ocp.CheckpointManager(folder.absolute(), options=OPTIONS) as manager:
            if (step := manager.latest_step()) is None:
                return None
            wanted = ocp.args.Composite(leaves=ocp.args.PyTreeRestore(), rest=ocp.args.JsonRestore())
            stored = manager.restore(step, args=wanted)
        checkpoint = Checkpoint([np.asarray(leaf) for leaf in stored["leaves"]], stored["rest"]["clock"])
        whole = stored["rest"]["seal"] == seal(checkpoint)
    except Exception as error:  # whatever the store raises on what is not its own
        raise ValueError(f"cannot be read ({type(error).__name__})") from error
    if not whole:
        raise ValueError("is not what was saved")
    return checkpoint


def remove_checkpoint(folder: Path) -> None:
    """Delete it, and the folder of checkpoints when it was the last."""
    shutil.rmtree(folder, ignore_errors=True)
    if folder.parent.is_dir() and not any(folder.parent.iterdir()):
        folder.parent.rmdir()


def seal(checkpoint: Checkpoint) -> str:
    """A hash of every bit of it."""
    return digest([checkpoint.clock, hash_arrays(checkpoint.leaves)], 16)
