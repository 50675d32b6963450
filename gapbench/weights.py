"""A net's parameters as one `.npz` that other libraries can read, and back again: every array under its path."""

import io
import zipfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from gapbench.records import write_bytes
from gapbench.spec import UserError

Params = Any  # an Params, whose own annotations beartype cannot read


def name_arrays(params: Params) -> dict[str, jax.Array]:
    """Every parameter by name: `backbone/convs/0/kernel` [3 3 C_in C_out], `head/dense/bias` [K]."""
    return {"/".join(map(str, path)): variable.get_value() for path, variable in nnx.to_flat_state(params)}


def export_weights(params: Params, path: Path) -> None:
    """Write the whole file or none of it; raises UserError where it cannot be written."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(array) for name, array in name_arrays(params).items()}
    np.savez(buffer, **arrays)
    write_bytes(path, buffer.getvalue())


def import_weights(path: Path, like: Params) -> Params:
    """Parameters with the structure of `like` and the values of the file, bit for bit.

    Raises:
      UserError: not an .npz of plain arrays, or an array that is missing, unknown, or of another shape or type.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            found = dict(file)
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:  # TypeError: a lone .npy
        raise UserError(f"{path}: not readable as .npz weights ({error}); export them again") from error
    wanted = name_arrays(like)
    if unequal := sorted(wanted.keys() ^ found.keys()):
        raise UserError(f"{path}: {'no' if unequal[0] in wanted else 'unknown'} array {unequal[0]!r}: another net's?")
    for name, array in wanted.items():
        have, want = ((a.dtype.name, a.shape) for a in (found[name], array))
        if have != want:
            raise UserError(f"{path}: {name} is {have[0]}{list(have[1])}, this net has {want[0]}{list(want[1])}")
    flat = nnx.to_flat_state(like)
    loaded = [(at, v.replace(jnp.asarray(found["/".join(map(str, at))]))) for at, v in flat]
    return nnx.from_flat_state(loaded)
