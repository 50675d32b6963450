"""Timings to one tidy frame: a row an environment and cell, the pair's ratio, and how near the roofs both heads are."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from gapbench.analysis.stats import nested_interval
from gapbench.timings import Throughput, TimingRow, block_ratios

# By column, a row's field: of the median over processes, since a program is compiled by each
KEPT = (
    *("trace_s", "lower_s", "compile_s", "flops", "xla_flops", "xla_bytes", "moved_bytes"),
    *("argument_bytes", "temp_bytes", "predicted_bytes", "peak_bytes"),
)


def throughput_frame(results: list[Throughput]) -> pd.DataFrame:
    """One row an environment and cell: images per second of both heads, and their paired ratio.

    The ratio is the median over the A B B A blocks of all processes (n blocks) of treatment / reference; its interval
    draws processes, then blocks. `status` is ok where at least one process timed both heads.
    """
    rows: list[dict[str, Any]] = []
    for result in results:
        source = result.provenance
        environment = {name: source[name] for name in ("platform", "device", "devices")}
        slow_downs = [canary.slow_down for canary in result.canaries]
        environment |= {"jax": source["packages"]["jax"], "power": result.power}
        environment["slow_down"] = max(slow_downs, key=abs) if slow_downs else np.nan
        for cell in dict.fromkeys(row.cell for row in result.rows):
            by_head = {head: [r for r in result.rows if (r.cell, r.head) == (cell, head)] for head in result.pair}
            rows.append(environment | cell._asdict() | pair_columns(result, by_head))
    order = {"train": 0, "infer": 1, "float32": 0, "bfloat16": 1}
    rows.sort(
        key=lambda r: (r["device"], r["jax"], order[r["precision"]], r["fleet"], order[r["phase"]], r["px"], r["batch"])
    )
    return pd.DataFrame(rows)


def pair_columns(result: Throughput, by_head: dict[str, list[TimingRow]]) -> dict[str, Any]:
    """Both heads in one cell, over the processes that timed it."""
    pairs = list(zip(*by_head.values(), strict=True))
    timed = [pair for pair in pairs if all(row.status == "ok" for row in pair)]
    ended = next(row for row in (*timed[:1], *pairs)[0])
    columns: dict[str, Any] = {
        "steps_per_call": ended.steps_per_call,
        "status": ended.status,
        "reason": ended.reason,
        "processes": len(timed),
        "processes_left_out": len(pairs) - len(timed),
    }
    for i, head in enumerate(result.pair):
        columns |= head_columns(result, head, [pair[i] for pair in timed or pairs])
    if timed:
        columns |= nested_interval(np.stack([block_ratios(*pair) for pair in timed]))._asdict()
    return columns


def head_columns(result: Throughput, head: str, rows: list[TimingRow]) -> dict[str, Any]:
    """One head's speed, what it is of the device's own peaks, memory and energy; medians over processes."""
    columns: dict[str, Any] = {f"{head}_{name}": median(getattr(row, name) for row in rows) for name in KEPT}
    if rows[0].status == "ok":
        images_per_s = np.concatenate([row.images_per_s for row in rows])
        low, middle, high = np.quantile(images_per_s, [0.25, 0.5, 0.75])
        columns |= {
            f"{head}_images_per_s_median": float(middle),
            f"{head}_images_per_s_q25": float(low),
            f"{head}_images_per_s_q75": float(high),
            f"{head}_step_s_p95": float(np.quantile(np.concatenate([row.samples_s for row in rows]), 0.95)),
            f"{head}_energy_j_per_image": median(row.energy_j and row.energy_j / row.images for row in rows),
        }
        achieved = [roofline(result, row) for row in rows]
        columns |= {f"{head}_{name}": median(row[name] for row in achieved) for name in achieved[0]}
        peaks = [peak.matmul_flops_per_s[rows[0].precision] for peak in result.peaks]
        columns |= {
            "matmul_flops_per_s": median(peaks),
            "copy_bytes_per_s": median(p.copy_bytes_per_s for p in result.peaks),
        }
    return columns


def roofline(result: Throughput, row: TimingRow) -> dict[str, float | None]:
    """A row's place under the roofs that its own process measured, in its own precision: closed-form FLOPs."""
    peaks = next(peaks for peaks in result.peaks if peaks.process == row.process)
    step_s = float(np.median(row.samples_s))
    flops, moved = row.flops, row.moved_bytes
    return {
        "flops_per_s": flops and flops / step_s,
        "of_matmul_peak": flops and flops / step_s / peaks.matmul_flops_per_s[row.precision],
        "of_copy_peak": moved and moved / step_s / peaks.copy_bytes_per_s,
        "flops_per_byte": flops / moved if flops and moved else None,
    }


def median(values: Iterable[float | None]) -> float:
    """Of what is known; nan where nothing is."""
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else np.nan
