"""How much memory a program needs and a device has left, and whether an error means that there was too little."""

import contextlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from gapbench.timings import MEMORY


def is_out_of_memory(error: Exception) -> bool:
    """Whether the host or a device had no room."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def memory_fields(compiled: Any) -> dict[str, int | None]:
    """The compiler's account of a program by the fields of a timing row; None where it does not say."""
    memory = compiled.memory_analysis()
    return {f"{name}_bytes": getattr(memory, f"{name}_size_in_bytes", None) for name in MEMORY}


def memory_stat(name: str, device: jax.Device | None = None) -> int | None:
    """One of a device's own counts in bytes: bytes_in_use, peak_bytes_in_use, bytes_limit; None: not reported."""
    stats = (device or jax.devices()[0]).memory_stats() or {}
    return int(stats[name]) if name in stats else None


def bytes_left(device: jax.Device | None = None) -> int | None:
    """What a device (the first, unless named) can still give; None where it does not say, as CPUs do not."""
    limit, used = memory_stat("bytes_limit", device), memory_stat("bytes_in_use", device)
    return None if limit is None or used is None else limit - used


def free_memory() -> float:
    """Bytes that the first device, or on a CPU the system, can still give; infinite where neither says."""
    if (left := bytes_left()) is not None:
        return float(left)
    with contextlib.suppress(OSError, IndexError):
        return 1024.0 * int(Path("/proc/meminfo").read_text().split("MemAvailable:")[1].split()[0])
    return math.inf


def least_left(devices: Sequence[jax.Device]) -> int | None:
    """Bytes that the fullest of the devices has left, on every host; None where devices do not tell."""
    own = [bytes_left(device) for device in devices if device.process_index == jax.process_index()]
    least = min((left for left in own if left is not None), default=-1)
    if jax.process_count() > 1:  # all hosts must choose the same width
        least = int(np.min(multihost_utils.process_allgather(np.asarray(least))))
    return None if least < 0 else least
