"""Records, experiments and timings made by hand for the tests: nothing is trained, every number is chosen.

The default run has numbers that can be worked out in the head: 11 evaluations at steps 0, 10, ..., 100; the train loss
falls on a straight line from 2 to 0, so it passes 0.5 at step 75; the test accuracy and the overfit never change.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from gapbench.analysis.cards import make_cards
from gapbench.analysis.claims import Card
from gapbench.analysis.evidence import Evidence, derive
from gapbench.analysis.frames import curves_frame
from gapbench.analysis.metrics import measures_frame
from gapbench.analysis.speed import throughput_frame
from gapbench.counts import HEAD_COUNTS, count_backbone, count_spec_head
from gapbench.experiment import Experiment, grid
from gapbench.records import SPLITS, Record, write_record, write_text
from gapbench.spec import Backbone, Recipe, RunSpec, Task
from gapbench.timings import Canary, Peaks, Throughput, TimingRow, write_throughput

STEPS = 100
EVALUATIONS = range(0, STEPS + 1, 10)
CLASSES = 10
PROVENANCE = {
    "gapbench": "0.1.0",
    "python": "3.13.0",
    "packages": {"jax": "1.2.3", "numpy": "4.5.6"},
    "platform": "cpu",
    "device": "test processor",
    "devices": 1,
    "precision": "default",
    "xla_flags": "",
}
Curves = dict[str, Sequence[float]]


def experiment(seeds: int = 8, sizes: Iterable[int] = (8,), **fields: Any) -> Experiment:
    """Both heads, `seeds` pairs at each size; the targets are 0.9 and 0.5, overfit is matched at a train loss of 0.5.

    Both convolutions of the net have 40 + 148 parameters; on 8×8 the heads have (4·4·4 + 1)·10 = 650 and 50.
    """
    runs = grid(
        task=[Task(dataset="digits", px=px, train_images=100) for px in sizes],
        backbone=Backbone(width=4, stages=1),
        head=fields.pop("heads", ("flatten", "gap")),
        recipe=Recipe(peak_lr=1e-2, batch=16, steps=STEPS, eval_every=10),
        seed=range(seeds),
    )
    rules = {"family": ("C2", "C5"), "targets": (0.9, 0.5), "train_losses": (0.5, 1.0)}
    return Experiment(**{"question": "Is a made-up effect found?", "runs": runs, **rules, **fields})


def curves(
    reach: int | None = 20, overfit: float = 0.1, test: float | Sequence[float] = 0.7, **columns: Sequence[float]
) -> Curves:
    """One value an evaluation: validation accuracy is 0.2 before step `reach` (None: never), 0.9 at it, 0.95 after."""
    tests = [test for _ in EVALUATIONS] if isinstance(test, float) else list(test)
    made: Curves = {
        "train_loss": [2 - 2 * step / STEPS for step in EVALUATIONS],
        "train": [accuracy + overfit for accuracy in tests],
        "val": [0.2 if reach is None or step < reach else 0.9 if step == reach else 0.95 for step in EVALUATIONS],
        "test": tests,
    }
    return {**made, **columns}


def wobble(seed: int, order: int) -> float:
    """The spread over seeds: each of -1, -7/9, ..., 1 once in ten seeds, in one of the orders 1, 3, 7 and 9."""
    return (seed * order % 10 - 4.5) / 4.5


def record(spec: RunSpec, run: Curves | None = None, status: str = "ok", upto: int = STEPS, **fields: Any) -> Record:
    """A run with these curves; one that did not end ok has its evaluations up to the step `upto`, and no final."""
    run = run or curves()
    losses = {"train": run["train_loss"], "val": [1.0] * len(EVALUATIONS), "test": [1.0] * len(EVALUATIONS)}
    kept = [(i, split) for i, step in enumerate(EVALUATIONS) if step <= upto for split in SPLITS]
    made = {
        "schema": 2,
        "run_id": spec.run_id,
        "pair_id": spec.pair_id,
        "spec": spec,
        "status": status,
        "reason": "" if status == "ok" else "made so by a test",
        "curve": {
            "step": [EVALUATIONS[i] for i, _ in kept],
            "split": [split for _, split in kept],
            "loss": [losses[split][i] for i, split in kept],
            "accuracy": [run[split][i] for i, split in kept],
        },
        "gradients": gradients(spec, upto),
        "final": {s: {"loss": losses[s][-1], "accuracy": run[s][-1]} for s in SPLITS} if status == "ok" else {},
        "pairing": {"data": "d", "subset": f"s{spec.seed}", "backbone": f"b{spec.seed}", "order": f"o{spec.seed}"},
        "parameters": parameters(spec),
        "image_channels": 1,
        "classes": CLASSES,
        "provenance": PROVENANCE,
    }
    return Record.model_validate({**made, **fields})


def gradients(spec: RunSpec, upto: int) -> dict[str, list[float]]:
    """Norms of the steps that begin at the evaluations: flatten's backbone begins at 8, gap's at 2, and both halve."""
    steps = [step for step in EVALUATIONS if step < upto]
    first = {"flatten": 8.0}.get(spec.head, 2.0)
    return {"step": steps, "backbone": [first / 2**i for i in range(len(steps))], "head": [1.0 for _ in steps]}


def parameters(spec: RunSpec) -> dict[str, int]:
    """What the built net would have; a head without closed form gets 77."""
    own = count_spec_head(spec, CLASSES).parameters if spec.head in HEAD_COUNTS else 77
    return {"backbone": count_backbone(spec, 1).parameters, "head": own}


def sweep(declared: Experiment, run: Callable[[RunSpec], Curves] = lambda _: curves(), **fields: Any) -> list[Record]:
    """A record for every declared run, its curves chosen by `run`."""
    return [record(spec, run(spec), **fields) for spec in declared.all_runs]


def by_head(flatten: Callable[[int], Curves], gap: Callable[[int], Curves]) -> Callable[[RunSpec], Curves]:
    """Curves chosen by head and seed."""
    return lambda spec: {"flatten": flatten, "gap": gap}[spec.head](spec.seed)


# The whole sweep that most tests of the report read: an effect at two sizes; one of gap's runs never gets to 0.9.
DECLARED = experiment(seeds=4, sizes=(8, 12))
EFFECT = by_head(
    lambda s: curves(20 + 10 * (s % 2), 0.2 + 0.01 * wobble(s, 7), 0.70 + 0.01 * wobble(s, 1)),
    lambda s: curves(50 + 10 * (s % 2) if s < 3 else None, 0.1 + 0.01 * wobble(s, 3), 0.75 + 0.01 * wobble(s, 9)),
)


def throughput(
    declared: Experiment,
    *ratios: Sequence[float],
    phases: Iterable[str] = ("train", "infer"),
    cell: dict[str, Any] | None = None,
    last_s: float = 0.02,
    **provenance: Any,
) -> Throughput:
    """A timing of every size at the experiment's batch, one process for each list of ratios.

    In block i of process p gap is `ratios[p][i]` times as fast as flatten; the canary takes 0.02 s, then `last_s`.
    """
    rows, batch = [], declared.runs[0].recipe.batch
    for process, of_blocks in enumerate(ratios):
        flatten_s = [0.01 * (1 + i / 100) for i in range(len(of_blocks))]  # the machine slows down, block by block
        gap_s = [seconds / ratio for seconds, ratio in zip(flatten_s, of_blocks, strict=True)]
        for px in dict.fromkeys(spec.task.px for spec in declared.runs):
            for phase in phases:
                for head, block_s in zip(declared.pair, (flatten_s, gap_s), strict=True):
                    made = {"px": px, "batch": batch, "phase": phase, "head": head, "process": process}
                    made |= {"status": "ok", "compile_s": 1.5, "calls_per_sample": 1, "flops": 10**6}
                    made |= {f"{name}_bytes": 2**20 for name in ("argument", "output", "temp", "alias")}
                    made["samples_s"] = tuple(seconds for seconds in block_s for _ in range(2))
                    rows.append(TimingRow.model_validate(made | (cell or {})))
    peaks = {"matmul_flops_per_s": {"float32": 1e10, "bfloat16": 4e10}, "copy_bytes_per_s": 1e10}
    return Throughput.model_validate(
        {
            "schema": 2,
            "provenance": {**PROVENANCE, **provenance},
            "pair": declared.pair,
            "backbone": declared.runs[0].backbone,
            "recipe": declared.runs[0].recipe,
            "image_channels": 1,
            "classes": CLASSES,
            "peaks": [Peaks(process=process, **peaks) for process in range(len(ratios))],
            "canaries": [Canary(process=process, first_s=0.02, last_s=last_s) for process in range(len(ratios))],
            "rows": rows,
        }
    )


def measured(declared: Experiment, records: list[Record]) -> pd.DataFrame:
    """The measures of the records."""
    return measures_frame(records, curves_frame(records), declared)


def cards_of(declared: Experiment, records: list[Record], *timed: Throughput) -> dict[tuple[str, int | None], Card]:
    """The judged cards by claim and size."""
    cards = make_cards(declared, records, measured(declared, records), throughput_frame(list(timed)))
    return {(card.claim, card.px): card for card in cards}


def evidence_of(declared: Experiment, effect: Callable[[RunSpec], Curves], name: str = "made_up") -> Evidence:
    """What follows from the records of a whole sweep that nobody timed."""
    times = pd.DataFrame(columns=["run_id", "compile_s", "train_s", "eval_s"])
    none = pd.DataFrame()
    return derive(Evidence(name, declared, sweep(declared, effect), none, none, times, none, []))


def write_folder(path: Path, declared: Experiment, records: Iterable[Record], *timed: Throughput) -> Path:
    """The folder that a sweep and a timing would have left."""
    write_text(path / "experiment.json", declared.model_dump_json(indent=1) + "\n")
    for made in records:
        write_record(path, made, {"compile_s": 2.0, "train_s": 5.0, "eval_s": 1.0})
    for result in timed:
        write_throughput(path, result)
    return path
