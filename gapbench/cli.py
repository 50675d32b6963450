"""The `gapbench` command: parsing and printing only; here, the subcommands that train.

Heavy imports stay inside the subcommand that needs them.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from gapbench.cli_read import DATA_COMMANDS, REPRODUCED, at_least, compare, params, power, report
from gapbench.cli_time import time
from gapbench.spec import UserError

if TYPE_CHECKING:
    from gapbench.cells import Own

DESCRIPTION = "Flatten the last feature map, or average it first? Train pairs, time them, and read the verdicts."
FAILED = ("failed", "out_of_memory")  # statuses that are somebody's to mend; diverged is a result


def run(
    experiment: Positional[str],
    out: Path | None = None,
    workers: int | None = None,
    seeds: int | None = None,
    only: str | None = None,
    pilot: bool = False,
    driver: Literal["auto", "steps", "fleet"] = "auto",
    settings: Annotated[tuple[str, ...], arg(name="set", metavar="FIELD=VALUE ...")] = (),
    backbone: Annotated[str | None, arg(metavar="MODULE:FACTORY")] = None,
    head: Annotated[str | None, arg(metavar="MODULE:FACTORY")] = None,
) -> int:
    """Train the missing runs of an experiment: on a CPU one worker a core, on accelerators as fleets.

    Stop it whenever you like: a second call trains what is missing, to the same bytes.

    $ gapbench run size_sweep

    $ gapbench run size_sweep --seeds 3 --only "px == 14"

    $ gapbench run my_experiment.py --out results/mine

    $ gapbench run size_sweep --driver fleet

    $ gapbench run size_sweep --set recipe.peak_lr=0.05 task.px=20

    $ gapbench run size_sweep --set head=gmp backbone.norm=group

    $ gapbench run size_sweep --backbone mynets:resnet

    Args:
        experiment: A name in experiments/, or a path to your own file.
        out: Folder for the records (default: results/reproduced/NAME).
        workers: Processes, one core each (default: as many as there are cores).
        seeds: Train seeds 0 to N - 1 in every cell instead of the declared ones.
        only: Train the runs for which this holds, such as 'px == 28 and head == "gap"'.
        pilot: Train the pilot seeds instead, into the folder's own folder `pilot`.
        driver: steps: one run at a time in each worker. fleet: all runs of one shape together, on every device of
            every host. auto: a fleet where JAX finds an accelerator, else steps.
        settings: Set these fields of task, backbone and recipe in every run, or head in the arm under test. This, too,
            is an experiment, with a name and folder of its own: size_sweep+recipe.peak_lr=0.05.
        backbone: Import this backbone, from here or an installed package, and train it in place of the experiment's.
        head: Import this head, and train it in place of the one under test.
    """
    from rich.console import Console

    from gapbench.cells import Own
    from gapbench.factories import factory_of
    from gapbench.overrides import override
    from gapbench.progress import describe, watch_sweep
    from gapbench.sweep import (
        cell_states,
        check_runnable,
        find_experiment,
        missing_runs,
        refuse_tuning_seeds,
        run_sweep,
        select,
    )
    from gapbench.worker import usable_cores

    at_least("seeds", seeds, 1)
    at_least("workers", workers, 1)
    path, declared = find_experiment(experiment)
    name, notes = path.stem, tuple[str, ...]()
    factories = [made for made in (factory_of("backbone", backbone), factory_of("head", head)) if made]
    if settings or factories:
        declared, name, notes = override(declared, name, settings, factories)
    folder = out or REPRODUCED / name
    if pilot and seeds:
        raise UserError("--pilot has seeds of its own: leave out --seeds")
    if pilot:
        declared, folder = declared.pilot, folder / "pilot"
    if seeds:
        declared = declared.with_seeds(range(seeds))
        refuse_tuning_seeds(declared)
    todo = missing_runs(declared, folder, only)
    if todo:
        Own(None, declared.factories).register()
        check_runnable(todo)
    console = Console()
    already = len(select(declared.all_runs, only)) - len(todo)
    for line in (f"{name}: {already} done, {len(todo)} to train -> {folder}", *(f"  {note}" for note in notes)):
        console.print(line, highlight=False, soft_wrap=True)
    sweep = run_sweep(path, declared, todo, folder, workers or len(usable_cores()), driver)
    try:
        done = watch_sweep(sweep, len(todo), already, console)
    except KeyboardInterrupt:
        sweep.close()
        print("stopped: the finished runs are kept; the same command trains the rest", file=sys.stderr)
        return 130
    for record in done:
        if record.status in FAILED:
            print(describe(record), file=sys.stderr)
    states, _ = cell_states(declared, folder)
    failed = sum(state in FAILED for state in states.values())
    if failed:
        print(f"{failed} failed: delete their records in {folder / 'records'} to train them again", file=sys.stderr)
    return 1 if failed else 0


def status(experiment: Positional[str], out: Path | None = None) -> int:
    """Which cells are done, failed or missing; broken records are named and passed over.

    $ gapbench status size_sweep --out results/published/size_sweep

    $ gapbench status results/reproduced/size_sweep+recipe.peak_lr=0.05

    Args:
        experiment: A name in experiments/, a path to your own file, or the folder of a run.
        out: Folder of the records (default: results/reproduced/NAME).
    """
    from collections import Counter

    from gapbench.records import load_experiment
    from gapbench.sweep import cell_states, find_experiment

    if (Path(experiment) / "experiment.json").is_file():
        declared, folder = load_experiment(Path(experiment)), Path(experiment)
    else:
        path, declared = find_experiment(experiment)
        folder = REPRODUCED / path.stem
    states, broken = cell_states(declared, out or folder)
    for cell, specs in declared.cells.items():
        for arm in dict.fromkeys(spec.arm for spec in specs):
            counts = Counter(states[spec.run_id] for spec in specs if spec.arm == arm)
            told = ", ".join(f"{n} {state}" for state, n in counts.items())
            print(f"{cell.dataset.partition(',')[0]} {cell.label} {cell.regime} {arm}: {told}")
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


def own_of(record: Path, experiment: str | None) -> "Own":
    """Where the heads, backbones and data of a record's run are, which its folder or the user may know."""
    from gapbench.cells import Own
    from gapbench.records import load_experiment
    from gapbench.sweep import find_experiment

    folder = record.resolve().parent.parent
    factories = load_experiment(folder).factories if (folder / "experiment.json").is_file() else ()
    return Own(find_experiment(experiment)[0] if experiment else None, factories)


def verify(record: Positional[Path], experiment: str | None = None) -> int:
    """Train a record's spec again and compare every number. Exit 1 if one differs.

    $ gapbench verify results/published/size_sweep/records/RUN_ID.json

    Args:
        record: The record's file.
        experiment: The experiment's file, where it registers heads, backbones or data of its own.
    """
    from gapbench.analysis.compare import comparable
    from gapbench.records import load_record
    from gapbench.sweep import retrain

    old = load_record(record)
    new = retrain(old.spec, own_of(record, experiment))
    if new.status in FAILED and old.status not in FAILED:
        raise UserError(f"{old.run_id} cannot be trained: {new.reason}; --experiment FILE for a head of your own")
    if old.result == new.result:
        print(f"identical: {old.run_id}")
        return 0
    alike = (
        "the same versions and processor: this must not be"
        if comparable(old, new)
        else "other versions, processor or driver"
    )
    print(f"different: {old.run_id} ({alike}){f': {new.status}, {new.reason}' if new.reason else ''}")
    for split in old.final.keys() & new.final.keys():
        print(f"  {split}: accuracy {old.final[split].accuracy} -> {new.final[split].accuracy}")
    return 1


def predict(
    record: Positional[Path],
    images: Positional[tuple[Path, ...]],
    adapter: Literal["resize", "none", "pool", "interpolate"] = "resize",
    top: int = 3,
    out: Path | None = None,
    experiment: str | None = None,
) -> int:
    """What a trained net says of your images, and where its evidence lies: IMAGE-evidence.png beside each.

    The net is the one that was kept with the record; without one, the record's spec is trained again first. It knows
    what it was trained on: one of digits in white ink on black says anything of black ink on white.

    $ gapbench predict results/reproduced/maps/records/RUN_ID.json digit.png

    $ gapbench predict results/published/test_size/records/RUN_ID.json *.jpg --adapter none --out overlays

    Args:
        record: The record's file.
        images: PNG, JPEG, WebP, BMP, GIF, TIFF or PPM of any size; the centre square is looked at.
        adapter: How the net meets the size. resize: the image to the trained size. none: the image as it is, which GAP
            takes; pool, interpolate: as it is, for flatten.
        top: How many classes to print.
        out: Folder for the overlays (default: beside each image).
        experiment: The experiment's file, where it registers heads, backbones or data of its own.
    """
    from gapbench.data.formats import read_image
    from gapbench.nets import folder_of, load_net
    from gapbench.predict import predict as predict_image
    from gapbench.predict import write_overlay
    from gapbench.records import load_record
    from gapbench.sweep import train_net

    at_least("top", top, 1)
    if not images:
        raise UserError("predict: name at least one image")
    trained, own = load_record(record), own_of(record, experiment)
    if trained.status != "ok":
        raise UserError(f"{record}: the run is {trained.status} ({trained.reason}): there is no net to ask")
    places = [(out or path.parent) / f"{path.stem}-evidence.png" for path in images]
    if twice := [place for place in places if places.count(place) > 1]:
        raise UserError(f"predict: two images would be written to {twice[0]}; rename one, or ask one at a time")
    pixels = [read_image(path, trained.image_channels) for path in images]
    own.register()
    folder = folder_of(record)
    net = load_net(folder, trained.spec)
    if net is None:
        print(f"no net was kept in {folder}: training it again, {trained.spec.recipe.steps} steps", file=sys.stderr)
        train_net(trained, own, folder)
        net = load_net(folder, trained.spec)
        assert net is not None
    for path, image, place in zip(images, pixels, places, strict=True):
        said = predict_image(net, image, adapter)
        write_overlay(place, image, said.evidence)
        likeliest = list(said.probabilities.items())[:top]
        print(f"{path}: {', '.join(f'{name} {share:.1%}' for name, share in likeliest)} -> {place}")
        if abs(said.rest) > 0.01 * abs(said.logit):
            told = f"of the logit {said.logit:.2f} the map and the bias leave {said.rest:+.2f} unexplained"
            print(f"{place}: {told} (head {trained.spec.head!r}, {trained.spec.recipe.precision})", file=sys.stderr)
    return 0


def data() -> int:
    """Data sets: list | fetch NAME | add NAME PATH | check NAME (gapbench data --help)."""
    return main(["data", "--help"])


COMMANDS: dict[str, Any] = {
    command.__name__: command for command in (run, report, compare, power, time, params, status, verify, predict, data)
}


def main(arguments: list[str] | None = None) -> int:
    """Entry point: errors are one line on stderr with the mend; exit code 2 for bad input, 1 for a failed run."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments
    arguments = [word for word in arguments if word != "--debug"]
    commands, prog = COMMANDS, "gapbench"
    if arguments[:1] == ["data"]:
        commands, prog, arguments = DATA_COMMANDS, "gapbench data", arguments[1:]
    try:
        return tyro.extras.subcommand_cli_from_dict(commands, prog=prog, description=DESCRIPTION, args=arguments)
    except UserError as error:
        if debug:
            raise
        print(f"gapbench: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
