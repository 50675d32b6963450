"""Which cells of an experiment are missing, and the worker processes that train them.

JAX is imported inside functions alone: each worker is pinned to a core of its own before it starts.
"""

import contextlib
import difflib
import fcntl
import importlib.util
import os
import sys
from collections.abc import Generator, Iterator
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
from joblib.externals.loky import FIRST_COMPLETED, get_reusable_executor, wait
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gapbench.records import SCHEMA, Record, load_experiment, load_records, remove_parts, write_record, write_text
from gapbench.spec import Experiment, RunSpec, UserError, explain
from gapbench.worker import WORKER_ENV, start_worker

ROOT = Path(__file__).parent.parent  # the checkout; experiments/ and results/ stand in it


def experiment_files() -> dict[str, Path]:
    """The experiments known by name: those of the checkout, then those of ./experiments."""
    folders = (ROOT / "experiments", Path("experiments"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("[a-z]*.py"))}


def import_file(path: Path) -> ModuleType:
    """Run an experiment's file, which may also register heads, backbones and data of the user's own."""
    module_spec = importlib.util.spec_from_file_location(f"gapbench_experiment_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # where dataclasses look their annotations up
    module_spec.loader.exec_module(module)
    return module


def find_experiment(name: str) -> tuple[Path, Experiment]:
    """The file and declaration of an experiment, by name or by path.

    Raises:
      UserError: no such name (with the nearest), or a file that cannot be run or declares no EXPERIMENT.
    """
    files = experiment_files()
    path = Path(name) if name.endswith(".py") else files.get(name)
    if path is None or not path.is_file():
        near = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(files)}; or a path to a .py file"
        raise UserError(f"unknown experiment {name!r}: {hint}")
    try:
        experiment = getattr(import_file(path), "EXPERIMENT", None)
    except UserError:
        raise
    except Exception as error:  # whatever the user's own file raises
        raise UserError(f"{path}: {explain(error)}") from error
    if not isinstance(experiment, Experiment):
        raise UserError(f"{path}: declares no EXPERIMENT = Experiment(...)")
    return path, experiment


def select(runs: tuple[RunSpec, ...], only: str | None) -> list[RunSpec]:
    """The runs for which the expression holds, e.g. `px == 28 and head == "gap"` (pandas' query syntax).

    Raises:
      UserError: the expression cannot be evaluated, or holds for no run.
    """
    if only is None:
        return list(runs)
    rows = pd.DataFrame([spec.row for spec in runs])
    try:
        holds = pd.Series(rows.eval(only, engine="python"), index=rows.index)
        if holds.dtype != bool:
            raise ValueError("not a condition")
        kept = rows.index[holds]
    except Exception as error:  # pandas raises what the expression raises
        columns = ", ".join(map(str, rows.columns[rows.nunique() > 1]))
        raise UserError(f"--only {only!r}: {error}; the fields that vary are {columns}") from error
    if not len(kept):
        raise UserError(f"--only {only!r}: no run matches")
    return [runs[i] for i in kept]


def check_runnable(runs: list[RunSpec]) -> None:
    """Raise UserError before anything is trained: an unknown name, missing data, or a subset that is too large.

    Reading the data here also fills the cache that the workers share.
    """
    from gapbench.data import load, split
    from gapbench.models.classifier import check_names

    checked = {spec.model_copy(update={"seed": 0}): None for spec in runs}
    for spec in checked:
        check_names(spec)
    for task in dict.fromkeys(spec.task for spec in checked):
        split(load(task.dataset, task.px), task, seed=0)


def cell_states(experiment: Experiment, out: Path) -> tuple[dict[str, str], list[str]]:
    """Status of every declared run (`missing` where there is no record), and one line a broken record."""
    records, broken = load_records(out)
    status = {record.run_id: record.status for record in records}
    return {spec.run_id: status.get(spec.run_id, "missing") for spec in experiment.runs}, broken


def missing_runs(experiment: Experiment, out: Path, only: str | None = None) -> list[RunSpec]:
    """The selected runs that have no record, pairs adjacent and the largest images first.

    An interrupted sweep so holds whole pairs, its last cells are the shortest, and two workers start by compiling
    different heads, each then finding the other's program in the shared compilation cache.

    Raises:
      UserError: a bad selection, or a record that cannot be read.
    """
    runs = select(experiment.runs, only)
    states, broken = cell_states(experiment, out)
    if broken:
        raise UserError(broken[0])
    todo = [spec for spec in runs if states[spec.run_id] == "missing"]
    return sorted(todo, key=lambda spec: (-spec.task.px, spec.seed))  # stable: the heads of a seed stay side by side


def run_sweep(path: Path, experiment: Experiment, todo: list[RunSpec], out: Path, workers: int) -> Generator[Record]:
    """Train the given runs, yielding each record once it is on disk, in the order in which they end.

    The declaration is written first, so that a report knows what is missing.

    Raises:
      UserError: a second run in the same folder, or a folder that cannot be written.
    """
    with lock_folder(out):
        remove_parts(out)
        declare(experiment, out)
        if not todo:
            return
        # Not joblib.Parallel: with one worker it would train in this very process, which start_worker is not for.
        executor = get_reusable_executor(max_workers=workers, env=WORKER_ENV)
        try:
            waiting = iter(todo)
            running = {executor.submit(run_cell, spec, out, path, os.getpid()) for spec in islice(waiting, workers)}
            while running:  # no more cells submitted than workers: nothing is left to cancel when the sweep is stopped
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {executor.submit(run_cell, s, out, path, os.getpid()) for s in islice(waiting, len(ended))}
                yield from (cell.result() for cell in ended)
        except TerminatedWorkerError as error:
            raise UserError(
                "a worker was killed, perhaps for want of memory: the finished runs are kept; try fewer --workers"
            ) from error
        finally:  # also when stopped by Ctrl-C or an error: no worker outlives the sweep
            executor.shutdown(wait=True, kill_workers=True)


def declare(experiment: Experiment, out: Path) -> None:
    """Write the declaration beside its records; one that already declares these runs stays as it is.

    Raises:
      UserError: the records there were made under other rules, which must not change once results are known.
    """
    path = out / "experiment.json"
    if path.is_file() and any((out / "records").glob("*.json")):
        old = load_experiment(out)
        rules = {"pair", "family", "targets", "train_losses", "regime"}
        if old.model_dump(include=rules) != experiment.model_dump(include=rules):
            raise UserError(f"{out}: its runs were made under other {', '.join(sorted(rules))}; choose another --out")
        if set(experiment.runs) <= set(old.runs):
            return
    write_text(path, experiment.model_dump_json(indent=1) + "\n")


@contextlib.contextmanager
def lock_folder(out: Path) -> Iterator[None]:
    """Hold the folder for one run; the lock is on the folder itself and goes with the process, however it ends."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        folder = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise UserError(f"cannot write to {out}: {error.strerror}; choose another --out") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise UserError(f"another gapbench run is writing to {out}: wait for it, or choose another --out") from error
    finally:
        os.close(folder)


def run_cell(spec: RunSpec, out: Path, experiment: Path, parent: int) -> Record:
    """Train one spec in a worker and write its record; what goes wrong in training is a record too."""
    start_worker(parent)
    import_file(experiment)  # for what it registers
    record, timing = train_record(spec)
    write_record(out, record, timing)
    return record


def retrain(spec: RunSpec, experiment: Path | None = None) -> Record:
    """The record of one run, trained in a fresh worker and not written."""
    executor = get_reusable_executor(max_workers=1, env=WORKER_ENV)
    try:
        record: Record = executor.submit(train_alone, spec, experiment, os.getpid()).result()
    finally:
        executor.shutdown(wait=True, kill_workers=True)
    return record


def train_alone(spec: RunSpec, experiment: Path | None, parent: int) -> Record:
    """What `retrain`'s worker does."""
    start_worker(parent)
    if experiment:
        import_file(experiment)
    return train_record(spec)[0]


def train_record(spec: RunSpec) -> tuple[Record, dict[str, float]]:
    """The record of one run, and its times in seconds."""
    from gapbench.data import load
    from gapbench.records import provenance
    from gapbench.train import train_run

    fields: dict[str, Any] = {  # as JSON would give them: the schema validates
        "schema": SCHEMA,
        "run_id": spec.run_id,
        "pair_id": spec.pair_id,
        "spec": spec,
        "provenance": provenance(),
    }
    try:
        dataset = load(spec.task.dataset, spec.task.px)
        trained = train_run(spec, dataset)
    except Exception as error:
        memory = isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        return Record(**fields, status="out_of_memory" if memory else "failed", reason=reason), {}
    fields |= {
        "status": "diverged" if trained.reason else "ok",
        "reason": trained.reason,
        "curve": trained.curve,
        "final": {split: score._asdict() for split, score in trained.final.items()},
        "pairing": trained.pairing,
        "parameters": trained.parameters,
        "image_channels": dataset.train_images.shape[-1],
        "classes": len(dataset.class_names),
    }
    return Record(**fields), trained.timing
