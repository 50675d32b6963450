"""The accelerator's driver: the runs of one program train together, as many as fit, and survive a crash.

The device loop is `gapbench.replicas`. On a CPU a convolution in a compiled loop is about 30 times slower than one
that Python calls, so there the driver is `train_run`; both take the same `train_step`.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from gapbench.checkpoints import Checkpoint, load_checkpoint, remove_checkpoint, save_checkpoint
from gapbench.data import Dataset
from gapbench.evaluate import Score, mean_score
from gapbench.memory import is_out_of_memory, least_left
from gapbench.records import Fleet, provenance
from gapbench.replicas import (
    Part,
    Program,
    Replica,
    Resident,
    Sums,
    compile_fitting,
    enlist,
    fetch,
    make_mesh,
    make_resident,
    place,
    stack,
)
from gapbench.spec import RunSpec, digest
from gapbench.train import (
    Trained,
    empty_curve,
    empty_gradients,
    explain_divergence,
    extend_curve,
    extend_gradients,
)

PIECE = 100  # steps a call, at most: between calls progress is told and checkpoints are written
CHECKPOINT_S = 60.0  # what a crash may lose, beside the piece it falls into
HEADROOM = 0.9  # of the free memory: the rest is for what the compiler does not count, and for fragments


@dataclass(frozen=True)
class Voice:
    """What a person learns while a fleet trains."""

    note: Callable[[str], None] = lambda text: None
    tick: Callable[[int, int, int], None] = lambda step, steps, runs: None


@dataclass(frozen=True)
class Setting:
    """What the crews of one fleet share."""

    dataset: Dataset
    resident: Resident
    mesh: Mesh
    identity: str  # of program, data, code, versions and devices: a checkpoint of another is not gone on from
    folder: Path | None  # of the checkpoint; None: none is written
    checkpoint_s: float
    voice: Voice


@dataclass
class Clock:
    """How far the runs of one crew have come, as JSON holds it exactly."""

    identity: str
    runs: list[str]  # run_id by replica
    curves: list[dict[str, list[Any]]]
    gradients: list[dict[str, list[Any]]]
    finals: list[dict[str, list[float]]] = field(default_factory=list)  # loss and accuracy by split, at the end
    reasons: list[str] = field(default_factory=list)  # why a run ended early; empty while it goes on
    step: int = 0  # trained so far
    points: int = 0  # of the evaluation grid, done
    train_s: float = 0.0
    eval_s: float = 0.0


def train_fleet(
    specs: Sequence[RunSpec],
    dataset: Dataset,
    *,
    devices: Sequence[jax.Device] | None = None,
    width: int | None = None,
    free_bytes: int | None = None,
    checkpoints: Path | None = None,
    checkpoint_s: float = CHECKPOINT_S,
    voice: Voice | None = None,
) -> Iterator[list[tuple[RunSpec, Trained, Fleet]]]:
    """Train the specs of one program; yields crew by crew, a crew being what trains together.

    The seconds in `Trained.timing` are a crew's wall-clock, not divided; `replicas` beside them is the number of runs
    that shared them, and eval_s includes the last evaluation, of the whole splits. `width` (replicas a crew, at
    most) and `free_bytes` (of a device) override what the devices tell. A crew's checkpoint is deleted when the
    caller asks for the next one: write the records before that.
    """
    if len({spec.program for spec in specs}) != 1:
        raise ValueError(
            "a fleet is one program: its specs may differ in seed, peak_lr, weight decays and dropout rate"
        )
    devices = devices or jax.devices()
    told, mesh = least_left(devices), make_mesh(devices)
    free = free_bytes if free_bytes is not None else told and int(HEADROOM * told)
    shape = specs[0].program
    setting = Setting(
        dataset,
        make_resident(dataset, mesh),
        mesh,
        digest([provenance(), dataset.fingerprint, shape.model_dump()], 16),
        checkpoints and checkpoints / digest(shape.model_dump()),
        checkpoint_s,
        voice or Voice(),
    )
    saved = find_checkpoint(setting, specs)
    waiting, limit, program = list(specs), width or len(specs), None
    while waiting:
        known = saved.clock["runs"] if saved else []
        first = [spec for spec in waiting if spec.run_id in known] or waiting
        try:
            program = program or compile_fitting(shape, dataset, setting.resident, mesh, limit, free)
            crew = first[: min(limit, program.width)]
            trained, resumed = train_crew(program, crew, setting, saved)
        except Exception as error:
            if not is_out_of_memory(error) or program is None or program.width <= mesh.size:
                if setting.folder and jax.process_index() == 0:
                    remove_checkpoint(setting.folder)  # it may be the cause
                raise
            limit, program = program.width // 2, None  # it fitted by the compiler's account alone
            setting.voice.note(f"out of memory: {shape.head} at {shape.task.px} px goes on {limit} runs at a time")
            continue
        fleet = Fleet(replicas=len(specs), width=program.width, devices=mesh.size, resumed=resumed)
        yield [(spec, run, fleet) for spec, run in zip(crew, trained, strict=True)]
        waiting, saved = [spec for spec in waiting if spec not in crew], None
        if setting.folder and jax.process_index() == 0:
            remove_checkpoint(setting.folder)


def find_checkpoint(setting: Setting, specs: Sequence[RunSpec]) -> Checkpoint | None:
    """The fleet's checkpoint, or None, and a note why: a broken one or another's is never gone on from."""
    if setting.folder is None:
        return None
    saved, why = None, ""
    try:
        saved = load_checkpoint(setting.folder)
    except ValueError as error:
        why = str(error)
    if saved and saved.clock["identity"] != setting.identity:
        saved, why = None, "was left by other code, versions, devices or data"
    if saved and not {spec.run_id for spec in specs} & set(saved.clock["runs"]):
        saved, why = None, "holds none of these runs"
    if jax.process_count() > 1:  # all hosts go on from the same one, or none does
        steps = multihost_utils.process_allgather(np.asarray(saved.clock["step"] if saved else -1))
        saved = saved if len(set(steps.tolist())) == 1 else None
    if why:
        setting.voice.note(f"starting anew: the checkpoint in {setting.folder} {why}")
        if jax.process_index() == 0:
            remove_checkpoint(setting.folder)
    return saved


def train_crew(
    program: Program, crew: Sequence[RunSpec], setting: Setting, saved: Checkpoint | None
) -> tuple[list[Trained], bool]:
    """Train and evaluate what fits together, from the checkpoint where it has these runs; and whether it did."""
    replicas = [enlist(spec, setting.dataset) for spec in crew]
    padded = [*range(len(crew)), *[len(crew) - 1] * (program.width - len(crew))]  # copies, whose results are dropped
    inputs = place(stack([replicas[i].inputs for i in padded]), setting.mesh)
    carry = stack([(replicas[i].state, np.zeros((), np.int32)) for i in padded])
    clock = Clock(
        setting.identity,
        [spec.run_id for spec in crew],
        [empty_curve() for _ in crew],
        [empty_gradients() for _ in crew],
    )
    clock.finals, clock.reasons = [{} for _ in crew], ["" for _ in crew]
    resumed = saved is not None and set(clock.runs) <= set(saved.clock["runs"])
    if saved is not None and resumed:
        clock, leaves = take_runs(saved, clock.runs)
        carry = jax.tree.unflatten(jax.tree.structure(carry), [leaf[padded] for leaf in leaves])
        setting.voice.note(f"going on from step {clock.step} of {len(crew)} runs of {crew[0].head}")
    state, lost = place(carry, setting.mesh)
    recipe, (curve, whole) = crew[0].recipe, (replicas[0].curve, replicas[0].whole)
    grid, written = recipe.eval_steps, time.monotonic()
    while clock.points < len(grid) and not all(clock.reasons):
        begin, target = time.perf_counter(), grid[clock.points]
        stop = min(clock.step + PIECE, target)
        chunks = 0 if stop > clock.step else (whole if target == recipe.steps else curve)[-1].rows.stop
        bounds = np.asarray([clock.step, stop], np.int32), np.asarray([0, chunks], np.int32)
        state, lost, sums = program.call(state, lost, inputs, setting.resident, *bounds)
        sums = jax.device_get(sums)
        if stop > clock.step:
            if clock.step == grid[clock.points - 1]:  # the step after an evaluation
                for r, norms in enumerate(sums.gradient[: len(crew)]):
                    extend_gradients(clock.gradients[r], clock.step, norms)
            clock.step = stop
            clock.train_s += time.perf_counter() - begin
        else:
            judge(clock, sums, curve, whole if clock.points == len(grid) - 1 else ())
            clock.points += 1
            clock.eval_s += time.perf_counter() - begin
        setting.voice.tick(clock.step, recipe.steps, len(crew))
        if setting.folder and is_due(setting, written):
            leaves = jax.tree.leaves(fetch((state, lost)))
            rows = [np.asarray(leaf)[: len(crew)] for leaf in leaves]
            save_checkpoint(setting.folder, clock.step + clock.points, Checkpoint(rows, asdict(clock)))
            written = time.monotonic()
    states = fetch(state)
    timing = {"compile_s": program.compile_s, "train_s": clock.train_s, "eval_s": clock.eval_s, "replicas": len(crew)}
    return [finish(clock, r, replica, timing, states) for r, replica in enumerate(replicas)], resumed


def is_due(setting: Setting, written: float) -> bool:
    """Whether the time for a checkpoint has come, by the clock of the first host."""
    due = np.asarray(time.monotonic() - written >= setting.checkpoint_s)
    return bool(multihost_utils.broadcast_one_to_all(due) if jax.process_count() > 1 else due)


def judge(clock: Clock, sums: Sums, curve: Sequence[Part], whole: Sequence[Part]) -> None:
    """Enter one evaluation: a row a split in the curve of each run that goes on, and the scores of the last step."""
    for r in range(len(clock.runs)):
        if clock.reasons[r]:
            continue
        scores = read_scores(sums, r, curve)
        clock.reasons[r] = explain_divergence(int(sums.lost[r]), clock.step, scores)
        if clock.reasons[r]:
            continue
        extend_curve(clock.curves[r], clock.step, scores)
        scores = read_scores(sums, r, whole)
        clock.reasons[r] = explain_divergence(0, clock.step, scores)
        if not clock.reasons[r]:
            clock.finals[r] = {name: list(score) for name, score in scores.items()}


def read_scores(sums: Sums, r: int, parts: Sequence[Part]) -> dict[str, Score]:
    """One replica's score of each split."""
    return {part.name: mean_score(sums.losses[r, part.rows], sums.correct[r, part.rows], part.images) for part in parts}


def take_runs(saved: Checkpoint, runs: list[str]) -> tuple[Clock, list[np.ndarray]]:
    """These runs alone of a checkpoint, in this order: the records of the others were written before the crash."""
    clock = Clock(**saved.clock)
    rows = [clock.runs.index(run) for run in runs]
    clock = replace(
        clock,
        runs=runs,
        curves=[clock.curves[r] for r in rows],
        gradients=[clock.gradients[r] for r in rows],
        finals=[clock.finals[r] for r in rows],
        reasons=[clock.reasons[r] for r in rows],
    )
    return clock, [leaf[rows] for leaf in saved.leaves]


def finish(clock: Clock, r: int, replica: Replica, timing: dict[str, float], states: Any) -> Trained:
    """What `train_run` would have returned."""
    final = {name: Score(*score) for name, score in clock.finals[r].items()}
    state = jax.tree.map(lambda leaf: leaf[r], states)
    reason, curve = clock.reasons[r], clock.curves[r]
    return Trained(reason, curve, clock.gradients[r], final, replica.pairing, replica.parameters, timing, state)
