"""One timing after another, each in a fresh interpreter: what differs between processes is then seen as spread.

The parent never starts JAX, so that an accelerator's memory is all its child's.
"""

import math
import time
from pathlib import Path
from typing import Any

from gapbench.cells import Own
from gapbench.experiment import Experiment
from gapbench.grids import Grid
from gapbench.progress import watch_cells
from gapbench.spec import RunSpec
from gapbench.sweep import in_fresh_process
from gapbench.timings import Convolutions, Throughput, merge


def time_processes(
    path: Path,
    experiment: Experiment,
    grid: Grid,
    *,
    processes: int,
    samples: int = 30,
    budget_s: float = math.inf,
    profile: Path | None = None,
    platform: str = "cpu",
) -> Throughput:
    """The grid, timed by one process after another; what is left of the time is shared by those still to come."""
    start, parts = time.perf_counter(), list[Throughput]()
    for process in range(processes):
        share_s = max(0.0, budget_s - (time.perf_counter() - start)) / (processes - process)
        options = {
            "samples": samples,
            "process": process,
            "budget_s": share_s,
            "profile_to": None if process else profile,
        }
        title = f"process {process + 1} of {processes}, " if processes > 1 else ""
        work = (time_alone, path, experiment, grid, options, title)
        parts.append(in_fresh_process(*work, pin=platform == "cpu"))
    return merge(parts)


def time_alone(path: Path, experiment: Experiment, grid: Grid, options: dict[str, Any], title: str) -> Throughput:
    """What one process times, on images of the experiment's data set in channels and classes."""
    Own(path, experiment.factories).register()
    from gapbench.data import load
    from gapbench.throughput import time_device

    spec = experiment.runs[0]
    dataset = load(spec.task.dataset, spec.task.px)
    shape = (dataset.train_images.shape[-1], len(dataset.class_names))
    with watch_cells(len(grid.cells) + 2) as told:
        return time_device(spec, experiment.pair, grid, shape, progress=lambda text: told(title + text), **options)


def time_convolutions_alone(
    spec: RunSpec, grid: Grid, options: dict[str, Any], write_table: bool, once: bool
) -> Convolutions | None:
    """What the one process times, and its table written on demand; None where the table has every shape already."""
    from gapbench import methods
    from gapbench.data import load

    channels = load(spec.task.dataset, spec.task.px).train_images.shape[-1]
    if once and methods.in_table(spec.backbone, grid, channels):
        return None
    with watch_cells(len(methods.convolutions_of(spec.backbone, grid, channels))) as progress:
        result = methods.time_convolutions(spec.backbone, grid, channels, progress=progress, **options)
    if write_table:
        methods.write_table(result)
    return result
