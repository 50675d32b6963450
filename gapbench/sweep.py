"""Which cells of an experiment are missing, and the worker processes that train them.

JAX is imported inside functions alone: each worker is pinned to a core of its own before it starts.
"""

import contextlib
import difflib
import fcntl
import json
import os
import warnings
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import pandas as pd
from joblib.externals.loky import FIRST_COMPLETED, get_reusable_executor, wait
from joblib.externals.loky.process_executor import TerminatedWorkerError

from gapbench.cells import NEWS, Own, find_platform, import_file, keep_again, run_cell, run_fleet, train_alone
from gapbench.cluster import is_follower
from gapbench.experiment import Experiment
from gapbench.records import Record, load_experiment, load_record, load_records, remove_parts, write_text
from gapbench.spec import RunSpec, UserError, explain
from gapbench.worker import WORKER_ENV, start_worker

ROOT = Path(__file__).parent.parent  # the checkout; experiments/ and results/ stand in it
NEWS_S = 0.5  # between two looks at a fleet's news
Driver = Literal["auto", "steps", "fleet"]  # auto: a fleet on an accelerator, steps on a CPU

Result = TypeVar("Result")


class News(NamedTuple):
    """What a fleet tells while it trains."""

    text: str = ""  # where it is now
    share: float = 0.0  # of its runs, counted in runs, that is trained
    note: str = ""  # what a person should know and can read later


def experiment_files() -> dict[str, Path]:
    """The experiments known by name: those of the checkout, then those of ./experiments."""
    folders = (ROOT / "experiments", Path("experiments"))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("[a-z]*.py"))}


def refuse_tuning_seeds(experiment: Experiment) -> None:
    """Raise UserError where a run has a seed on which its rates were chosen: what was tuned on cannot judge."""
    if experiment.tuned_on in experiment_files():
        tuning = find_experiment(experiment.tuned_on)[1]
        if used := {spec.seed for spec in tuning.runs} & {spec.seed for spec in experiment.runs}:
            raise UserError(
                f"--seeds: seed {min(used)} is one on which {experiment.tuned_on} chose the rates: give fewer"
            )


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
    from gapbench.audits import check_audit
    from gapbench.data import load, split
    from gapbench.models.classifier import check_names

    checked = {spec.model_copy(update={"seed": 0}): None for spec in runs}
    for spec in checked:
        check_names(spec)
    for task in dict.fromkeys(spec.task for spec in checked):
        split(load(task.dataset, task.px), task, seed=0)
    for spec in {(spec.task, spec.audit): spec for spec in checked}.values():
        check_audit(spec)


def cell_states(experiment: Experiment, out: Path) -> tuple[dict[str, str], list[str]]:
    """Status of every declared run (`missing` where there is no record), and one line a broken record."""
    records, broken = load_records(out)
    status = {record.run_id: record.status for record in records}
    return {spec.run_id: status.get(spec.run_id, "missing") for spec in experiment.all_runs}, broken


def missing_runs(experiment: Experiment, out: Path, only: str | None = None) -> list[RunSpec]:
    """The selected runs that have no record, pairs adjacent and the largest images first.

    An interrupted sweep so holds whole pairs, its last cells are the shortest, and two workers start by compiling
    different heads, each then finding the other's program in the shared compilation cache.

    Raises:
      UserError: a bad selection, a folder of another experiment, or a record that cannot be read.
    """
    declares(out, experiment)
    runs = select(experiment.all_runs, only)
    states, broken = cell_states(experiment, out)
    if broken:
        raise UserError(broken[0])
    todo = [spec for spec in runs if states[spec.run_id] == "missing"]
    return sorted(todo, key=lambda spec: (-spec.task.px, spec.seed))  # stable: the heads of a seed stay side by side


def run_sweep(
    path: Path, experiment: Experiment, todo: list[RunSpec], out: Path, workers: int, driver: Driver = "steps"
) -> Generator[Record | News]:
    """Train the given runs, yielding each record once it is on disk, in the order in which they end.

    The declaration is written first, so that a report knows what is missing. A fleet also yields its news.

    Raises:
      UserError: a second run in the same folder, or a folder that cannot be written.
    """
    own = Own(path, experiment.factories)
    follows = driver != "steps" and is_follower()  # the first process of a cluster holds the folder and writes
    with contextlib.nullcontext() if follows else lock_folder(out):
        if not follows:
            remove_parts(out)
            declare(experiment, out)
        if not todo:
            return
        executor = start_workers(workers)
        try:
            platform = "cpu" if driver == "steps" else executor.submit(find_platform).result()
            if driver == "steps" or (driver == "auto" and platform == "cpu"):
                yield from () if follows else run_steps(executor, own, todo, out, workers)
            else:
                executor.shutdown(wait=True, kill_workers=True)  # they are pinned, and hold the accelerator
                executor = start_workers(1, pin=platform == "cpu")
                yield from run_fleets(executor, own, todo, out)
        except TerminatedWorkerError as error:
            raise UserError(
                "a worker was killed, perhaps for want of memory: the finished runs are kept; try fewer --workers"
            ) from error
        finally:  # also when stopped by Ctrl-C or an error: no worker outlives the sweep
            executor.shutdown(wait=True, kill_workers=True)
            if not follows:
                remove_parts(out)


def start_workers(workers: int, pin: bool = True) -> Any:
    """Fresh processes, each made ready before its first task, so that none, idle or not, outlives this one.

    Not joblib.Parallel: with one worker it would train in this very process, which `start_worker` is not for. loky
    replaces a worker that has grown by 300 MB, and warns; ours keep a step's memory on purpose (gapbench/worker.py).
    """
    warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)
    return get_reusable_executor(
        max_workers=workers, env=WORKER_ENV, initializer=start_worker, initargs=(os.getpid(), pin)
    )


def run_steps(executor: Any, own: Own, todo: list[RunSpec], out: Path, workers: int) -> Generator[Record]:
    """One run a worker at a time, step by step."""
    waiting = iter(todo)
    running = {executor.submit(run_cell, spec, out, own) for spec in islice(waiting, workers)}
    while running:  # no more cells submitted than workers: nothing is left to cancel when the sweep is stopped
        ended, running = wait(running, return_when=FIRST_COMPLETED)
        running |= {executor.submit(run_cell, s, out, own) for s in islice(waiting, len(ended))}
        yield from (cell.result() for cell in ended)


def run_fleets(executor: Any, own: Own, todo: list[RunSpec], out: Path) -> Generator[Record | News]:
    """One fleet after the other, in one worker: a crash there is not one here, and costs a checkpoint's interval."""
    fleets: dict[RunSpec, list[RunSpec]] = {}
    for spec in todo:
        fleets.setdefault(spec.program, []).append(spec)
    read = 0
    for specs in fleets.values():
        job = executor.submit(run_fleet, specs, out, own)
        ended = False
        while not ended:
            ended = bool(wait([job], timeout=NEWS_S).done)
            lines, read = read_lines(out / NEWS, read)
            for line in lines:
                news = json.loads(line)
                name = news.get("record")
                yield load_record(out / "records" / f"{name}.json") if name else News(**news)
        job.result()


def read_lines(path: Path, start: int) -> tuple[list[str], int]:
    """The whole lines from byte `start` on, and the byte after them."""
    if not path.is_file():
        return [], start
    with path.open("rb") as file:
        file.seek(start)
        text = file.read()
    whole = text[: text.rfind(b"\n") + 1]
    return whole.decode().splitlines(), start + len(whole)


def declare(experiment: Experiment, out: Path) -> None:
    """Write the declaration beside its records; one that already declares these runs stays as it is.

    Raises UserError where `declares` does.
    """
    if not declares(out, experiment):
        write_text(out / "experiment.json", experiment.model_dump_json(indent=1) + "\n")


def declares(out: Path, experiment: Experiment) -> bool:
    """Whether the folder declares these runs already; it may be given more seeds and cells, but not others instead.

    Raises:
      UserError: the folder is another experiment's, or its records were made under other rules, which must not change
        once results are known.
    """
    if not (out / "experiment.json").is_file():
        return False
    old = load_experiment(out)
    ours, theirs = ({spec.model_copy(update={"seed": 0}) for spec in each.all_runs} for each in (experiment, old))
    if not (ours <= theirs or ours >= theirs) or old.factories != experiment.factories:
        raise UserError(f"{out}: holds an experiment of other runs; delete it, or choose another --out")
    rules = {"pair", "family", "targets", "train_losses"}
    same = old.model_dump(include=rules) == experiment.model_dump(include=rules)
    if not same and any((out / "records").glob("*.json")):
        raise UserError(f"{out}: its runs were made under other {', '.join(sorted(rules))}; choose another --out")
    return same and set(experiment.all_runs) <= set(old.all_runs)


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


def in_fresh_process(function: Callable[..., Result], *arguments: Any, pin: bool = True) -> Result:
    """The function's result from an interpreter of its own: pinned to a core, and ended with this process."""
    executor = start_workers(1, pin)
    try:
        result: Result = executor.submit(function, *arguments).result()
        return result
    finally:
        executor.shutdown(wait=True, kill_workers=True)


def train_net(record: Record, own: Own, folder: Path) -> None:
    """Train the net of a record again, in a fresh worker, and keep it in the folder.

    Raises:
      UserError: it cannot be trained here.
    """
    if reason := in_fresh_process(keep_again, record.spec, own, folder):
        raise UserError(f"{record.run_id} cannot be trained: {reason}; --experiment FILE for a head of your own")


def retrain(spec: RunSpec, own: Own) -> Record:
    """The record of one run, trained in a fresh worker and not written."""
    return in_fresh_process(train_alone, spec, own)
