"""Records to tidy frames: one row a run, and one row a run and evaluation."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gapbench.analysis.stats import median_interval
from gapbench.records import Record
from gapbench.spec import UserError
from gapbench.timings import Throughput, block_ratios


def curves_frame(records: list[Record]) -> pd.DataFrame:
    """One row a run and evaluated step: the spec's fields, step, and loss and accuracy of train, val and test."""
    parts = []
    for record in records:
        long = pd.DataFrame({name: list(column) for name, column in record.curve if column})
        if not long.empty:
            wide = long.pivot(index="step", columns="split", values=["loss", "accuracy"])
            wide.columns = wide.columns.map("{0[1]}_{0[0]}".format)
            parts.append(wide.reset_index().assign(run_id=record.run_id, **record.spec.row))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["run_id", "step"])


def timing_frame(folder: Path, records: list[Record]) -> pd.DataFrame:
    """One row a run: compile_s, train_s and eval_s, where they were kept and are its own: those of a fleet are not."""
    rows = []
    for record in records:
        path = folder / "timing" / f"{record.run_id}.json"
        try:
            times = dict(json.loads(path.read_text())) if path.is_file() and not record.fleet else {}
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not readable as JSON ({error}); delete it, only the seconds are lost") from error
        rows.append({"run_id": record.run_id, **times})
    return pd.DataFrame(rows, columns=["run_id", "compile_s", "train_s", "eval_s"])


def throughput_frame(results: list[Throughput]) -> pd.DataFrame:
    """One row an environment, size, batch and phase: images per second of both heads, and their paired ratio.

    The ratio is the median over A B B A blocks of treatment / reference, with its interval over blocks (n).
    """
    rows: list[dict[str, Any]] = []
    for result in results:
        source = result.provenance
        both: dict[tuple[int, int, str], dict[str, Any]] = {}
        for timing in result.rows:
            both.setdefault((timing.px, timing.batch, timing.phase), {})[timing.head] = timing
        for (px, batch, phase), heads in both.items():
            row: dict[str, Any] = {
                "platform": source["platform"],
                "device": source["device"],
                "devices": source["devices"],
                "jax": source["packages"]["jax"],
                "px": px,
                "batch": batch,
                "phase": phase,
                "precision": heads[result.pair[0]].precision,
                "status": "ok" if all(timing.status == "ok" for timing in heads.values()) else "out_of_memory",
            }
            for head in result.pair:
                timing = heads[head]
                kept = ("trace_s", "lower_s", "compile_s", "flops", "xla_flops", "argument_bytes", "temp_bytes")
                values = ((name, getattr(timing, name)) for name in kept)
                row |= {f"{head}_{name}": np.nan if value is None else value for name, value in values}
                if timing.status == "ok":
                    low, median, high = np.quantile(timing.images_per_s, [0.25, 0.5, 0.75])
                    row |= {
                        f"{head}_images_per_s_median": float(median),
                        f"{head}_images_per_s_q25": float(low),
                        f"{head}_images_per_s_q75": float(high),
                        f"{head}_step_s_p95": float(np.quantile(timing.samples_s, 0.95)),
                        f"{head}_of_matmul_peak": None
                        if timing.flops is None
                        else timing.flops / float(np.median(timing.samples_s)) / result.peaks.matmul_flops_per_s,
                    }
            if row["status"] == "ok":
                row |= median_interval(block_ratios(*(heads[head] for head in result.pair)))._asdict()
            rows.append(row)
    return pd.DataFrame(rows)
