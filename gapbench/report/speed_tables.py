"""Throughput frame to tables: how fast the pair is, and what of the device it uses."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from gapbench.analysis.evidence import Evidence
from gapbench.report.table import Columns, Row, Table, between, number, percent
from gapbench.timings import SLOW_DOWN

CELL: Columns = {
    "device": lambda r: f"{r['platform'].upper()}: {r['device']}, jax {r['jax']}",
    "phase": lambda r: r["phase"],
    "px": lambda r: str(r["px"]),
    "batch": lambda r: str(r["batch"]),
    "precision": lambda r: r["precision"],
    "fleet": lambda r: str(r["fleet"]) + (f" ({r['steps_per_call']} steps a call)" if r["steps_per_call"] > 1 else ""),
}


def warnings(throughput: pd.DataFrame) -> str:
    """What a reader must know before the numbers: nothing timed, no accelerator, a slow-down, one process, gaps."""
    if throughput.empty:
        return "NO TIMINGS YET: gapbench time makes them."
    told = []
    if set(throughput["platform"]) == {"cpu"}:
        told.append("CPU rows only: no accelerator was measured.")
    for device, rows in throughput.groupby("device", sort=False):
        slow = rows["slow_down"].iloc[0]
        if abs(slow) > SLOW_DOWN:
            told.append(f"SLOW-DOWN on {device}: timed again at the end, the first cell took {100 * slow:+.0f} % time.")
    if (throughput["processes"] == 1).any():
        told.append("Some cells are of one process: their intervals are too narrow.")
    ended = throughput["status"].value_counts()
    told += [f"{ended[status]} cells {status}." for status in ("skipped", "out_of_memory") if status in ended]
    return " ".join(told)


def both(evidence: Evidence, column: str, text: Callable[[Any], str]) -> Callable[[Row], str]:
    """`flatten's, gap's` of a column that each head has; one dash where neither has it."""

    def cell(row: Row) -> str:
        values = [row.get(f"{head}_{column}") for head in evidence.experiment.pair]
        return "–" if all(pd.isna(value) for value in values) else ", ".join(map(text, values))

    return cell


def throughput_table(evidence: Evidence) -> Table:
    """Images per second of both heads, and their paired ratio, by device and cell."""
    throughput = evidence.throughput
    flatten, gap = evidence.experiment.pair

    def speed(row: Row, head: str) -> str:
        ends = between(row.get(f"{head}_images_per_s_q25"), row.get(f"{head}_images_per_s_q75"), number)
        return "–" if ends == "–" else f"{number(row.get(f'{head}_images_per_s_median'))} {ends}"

    def blocks(row: Row) -> str:
        return f"{int(row['n'])} of {row['processes']}" if pd.notna(row.get("n")) else "–"

    columns: Columns = {
        **CELL,
        f"{flatten} images/s (IQR)": lambda r: speed(r, flatten),
        f"{gap} images/s (IQR)": lambda r: speed(r, gap),
        f"{gap} / {flatten}": lambda r: number(r.get("estimate")),
        "95 % interval": lambda r: between(r.get("low"), r.get("high"), number),
        "n blocks of processes": blocks,
        f"p95 s a step ({flatten}, {gap})": both(evidence, "step_s_p95", number),
        "trace s": both(evidence, "trace_s", lambda value: number(value, 2)),
        "lower s": both(evidence, "lower_s", lambda value: number(value, 2)),
        "compile s": both(evidence, "compile_s", lambda value: number(value, 2)),
        "status": lambda r: f"{r['status']}: {r['reason']}" if r["reason"] else r["status"],
    }
    caption = (
        "Throughput of the pair, interleaved A B B A on random images (on a CPU: one core); images per second are of"
        " the whole fleet. The ratio is the median over all blocks; its 95 % interval is a percentile bootstrap that"
        " draws processes, then blocks within each. What varied: the process (a fresh interpreter, compiled anew)"
        f" and the moment of the call; the device and its driver did not. {warnings(throughput)}"
    ).strip()
    return Table("throughput", caption, throughput, columns)


RAW = ("platform", "device", "jax", "phase", "px", "batch", "precision", "fleet", "steps_per_call", "status", "power")
OF_HEADS = ("flops", "xla_flops", "flops_per_s", "of_matmul_peak", "of_copy_peak", "flops_per_byte", "moved_bytes")
MEMORY = ("predicted_bytes", "peak_bytes", "energy_j_per_image")


def efficiency_table(evidence: Evidence) -> Table:
    """FLOPs, shares of the measured peaks, memory and energy of both heads in every timed cell."""
    throughput, pair = evidence.throughput, evidence.experiment.pair
    raw = throughput
    if not throughput.empty:
        heads = [f"{head}_{name}" for name in (*OF_HEADS, *MEMORY) for head in pair]
        kept = [*RAW, "matmul_flops_per_s", "copy_bytes_per_s", *heads]
        raw = throughput[throughput["status"] == "ok"].reindex(columns=kept).reset_index(drop=True)
    columns: Columns = {
        **CELL,
        "GFLOP a step": both(evidence, "flops", lambda value: number(value / 1e9)),
        "by XLA": both(evidence, "xla_flops", lambda value: number(value / 1e9)),
        "GFLOP/s": both(evidence, "flops_per_s", lambda value: number(value / 1e9)),
        "of matmul peak": both(evidence, "of_matmul_peak", percent),
        "matmul peak, GFLOP/s": lambda r: number(r["matmul_flops_per_s"] / 1e9),
        "of copy bandwidth": both(evidence, "of_copy_peak", percent),
        "copy, GB/s": lambda r: number(r["copy_bytes_per_s"] / 1e9),
        "FLOP a byte": both(evidence, "flops_per_byte", number),
        "predicted MiB": both(evidence, "predicted_bytes", lambda value: number(value / 2**20)),
        "peak MiB": both(evidence, "peak_bytes", lambda value: number(value / 2**20)),
        "mJ an image": both(evidence, "energy_j_per_image", lambda value: number(value * 1e3)),
    }
    sources = sorted({power for power in throughput["power"] if power}) if not throughput.empty else []
    caption = (
        f"What of the device the pair uses ({', '.join(pair)}). FLOPs in closed form, training as three forward passes,"
        " beside XLA's count; peaks are a matmul in the row's precision and a copy, measured by the same processes."
        " Bytes moved are XLA's count for the compiled program, or what it holds if that is more (a library's kernel"
        " counts as none): a lower bound. Predicted memory: arguments, outputs and temporaries; peak memory where the"
        " device reports it and no earlier program's was higher. Energy: of the whole device, idle power included,"
        f" {'from ' + ', '.join(sources) if sources else 'which nothing here reports'}. {warnings(throughput)}"
    ).strip()
    return Table("efficiency", caption, raw, columns)
