"""Records to tidy frames: one row a run, and one row a run and evaluation."""

import json
from pathlib import Path

import pandas as pd

from gapbench.records import Record
from gapbench.spec import UserError


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
    """One row a run: compile_s, train_s and eval_s, where they were kept and are its own: those of a fleet are not.

    And what its audits took, where there were any: audit_s, and image_s_{px}_{adapter} an image.
    """
    rows = []
    for record in records:
        path = folder / "timing" / f"{record.run_id}.json"
        try:
            times = dict(json.loads(path.read_text())) if path.is_file() and not record.fleet else {}
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}: not readable as JSON ({error}); delete it, only the seconds are lost") from error
        rows.append({"run_id": record.run_id, **times})
    others = sorted({name for row in rows for name in row} - {"run_id", "compile_s", "train_s", "eval_s"})
    return pd.DataFrame(rows, columns=["run_id", "compile_s", "train_s", "eval_s", *others])
