"""Records to tidy frames: one row a run, and one row a run and evaluation."""

import json
from pathlib import Path

import pandas as pd

from gapbench.records import Record
from gapbench.spec import UserError


def curves_frame(records: list[Record]) -> pd.DataFrame:
    """One row a run and evaluated step: the spec's fields, step, and loss and accuracy of train, val and test."""
    ran = [record for record in records if record.curve.step]
    if not ran:
        return pd.DataFrame(columns=["run_id", "step"])
    long = pd.concat(pd.DataFrame(dict(record.curve)).assign(run_id=record.run_id) for record in ran)
    wide = long.pivot(index=["run_id", "step"], columns="split", values=["loss", "accuracy"])
    wide.columns = wide.columns.map("{0[1]}_{0[0]}".format)
    rows = pd.DataFrame([{"run_id": record.run_id, **record.spec.row} for record in ran])
    return rows.merge(wide.reset_index(), on="run_id")  # in the order of the records


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
