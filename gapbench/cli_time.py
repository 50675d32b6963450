"""The subcommand `gapbench time`."""

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from gapbench.cli_read import REPRODUCED, at_least
from gapbench.spec import Precision, UserError

if TYPE_CHECKING:
    from gapbench.experiment import Experiment
    from gapbench.grids import Grid


def time(
    experiment: Positional[str] = "size_sweep",
    px: tuple[int, ...] = (),
    batch: tuple[int, ...] = (),
    precision: tuple[Precision, ...] = (),
    fleet: tuple[int, ...] = (),
    samples: int = 30,
    processes: int = 3,
    budget_s: float | None = None,
    profile: Path | None = None,
    out: Path | None = None,
    once: bool = False,
    convolutions: bool = False,
    write_table: bool = False,
) -> int:
    """Time both heads, interleaved, on the devices present: training step and inference.

    Give each flag's most important value first: cells that change few flags from their first values are timed first.

    $ gapbench time

    $ gapbench time size_sweep --px 28 56 --batch 64 256 1024 --processes 1

    $ gapbench time --precision float32 bfloat16 --fleet 1 8 64 --budget-s 300 --profile results/profile

    $ gapbench time --convolutions --px 28 --fleet 1 8 64 --write-table

    Args:
        experiment: Whose nets are timed.
        px: Input sizes (default: those of the experiment).
        batch: Batch sizes of one replica (default: the experiment's). Beyond the first that does not fit: skipped.
        precision: Of activations and products (default: the experiment's).
        fleet: Replicas in one program, each with a state and a batch of its own (default: 1).
        samples: Samples a head, cell and process, all kept.
        processes: Fresh interpreters that time the whole grid one after another: intervals are over them, too.
        budget_s: Seconds, shared by the processes, after which the remaining cells are recorded as skipped.
        profile: Folder for a trace of the first cell, for TensorBoard or Perfetto, and operations.json: each head's
            seconds by operation. Made after the timing.
        out: Folder of the experiment's records (default: results/reproduced/NAME).
        once: Do nothing where this environment has been timed already (with --write-table: where the table has it).
        convolutions: Time the ways of computing a fleet's convolutions instead, in one process.
        write_table: With --convolutions: let this device use the fastest of them from now on.
    """
    from gapbench.grids import Grid, spec_at
    from gapbench.sweep import find_experiment

    numbers = {"px": px, "batch": batch, "fleet": fleet, "samples": (samples,), "processes": (processes,)}
    for flag, values in numbers.items():
        for value in values:
            at_least(flag, value, 1)
    if budget_s is not None and not budget_s > 0:
        raise UserError(f"--budget-s {budget_s:g}: must be above 0")
    if write_table and not convolutions:
        raise UserError("--write-table: goes with --convolutions")
    if convolutions and profile:
        raise UserError("--profile: traces the heads, so leave out --convolutions")
    path, declared = find_experiment(experiment)
    spec = declared.runs[0]
    grid = Grid(
        px=distinct(px) or distinct(run_spec.task.px for run_spec in declared.runs),
        batch=distinct(batch) or (spec.recipe.batch,),
        precision=distinct(precision) or (spec.recipe.precision,),
        fleet=distinct(fleet) or (1,),
    )
    for cell in grid.cells:
        spec_at(spec, cell, spec.head)
    options: dict[str, Any] = {"samples": samples, "budget_s": math.inf if budget_s is None else budget_s}
    folder = out or REPRODUCED / path.stem
    try:
        if convolutions:
            return time_ways(declared, grid, folder, once, write_table, options)
        options |= {"processes": processes, "profile": profile}
        return time_heads(path, declared, grid, folder, once, options)
    except KeyboardInterrupt:
        print("stopped: nothing was written", file=sys.stderr)
        return 130


def distinct(values: Any) -> tuple[Any, ...]:
    """Each value once, in order."""
    return tuple(dict.fromkeys(values))


def time_heads(
    path: Path, declared: "Experiment", grid: "Grid", folder: Path, once: bool, options: dict[str, Any]
) -> int:
    """Time the pair and write its file."""
    from gapbench.processes import time_processes
    from gapbench.records import provenance
    from gapbench.sweep import in_fresh_process
    from gapbench.timings import Throughput, timing_file, write_throughput

    source = in_fresh_process(provenance)
    there = timing_file(folder, Throughput, source)
    if once and there.is_file():
        print(f"timed already: {there}")
        return 0
    result = time_processes(path, declared, grid, platform=source["platform"], **options)
    print(write_throughput(folder, result))
    return 0


def time_ways(
    declared: "Experiment", grid: "Grid", folder: Path, once: bool, write_table: bool, options: dict[str, Any]
) -> int:
    """Time the ways of convolving, write their file and, if asked, the table."""
    from gapbench.processes import time_convolutions_alone
    from gapbench.records import provenance
    from gapbench.sweep import in_fresh_process
    from gapbench.timings import Convolutions, timing_file, write_throughput

    source = in_fresh_process(provenance)
    there = timing_file(folder, Convolutions, source)
    if once and not write_table and there.is_file():
        print(f"timed already: {there}")
        return 0
    work = (time_convolutions_alone, declared.runs[0], grid, options, write_table, once and write_table)
    result = in_fresh_process(*work, pin=source["platform"] == "cpu")
    if result is None:
        print("timed already: the table has every shape on this kind of device")
        return 0
    if skipped := [row for row in result.rows if row.status == "skipped"]:
        print(f"{len(skipped)} of {len(result.rows)} timings skipped: {skipped[0].reason}", file=sys.stderr)
    print(write_throughput(folder, result))
    return 0
