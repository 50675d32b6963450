"""The `gapbench` command: parsing and printing only. Heavy imports stay inside the subcommand that needs them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from tyro.conf import Positional

from gapbench.spec import UserError

if TYPE_CHECKING:
    from gapbench.spec import RunSpec

DESCRIPTION = "Flatten the last feature map, or average it first? Train pairs, time them, and read the verdicts."
FAILED = ("failed", "out_of_memory")  # statuses that are somebody's to mend; diverged is a result
PUBLISHED, REPRODUCED = Path("results/published"), Path("results/reproduced")


def run(
    experiment: Positional[str],
    out: Path | None = None,
    workers: int | None = None,
    seeds: int | None = None,
    only: str | None = None,
    pilot: bool = False,
) -> int:
    """Train the missing runs of an experiment, one worker a core.

    Stop it whenever you like: a second call trains what is missing, to the same bytes.

    $ gapbench run size_sweep

    $ gapbench run size_sweep --seeds 3 --only "px == 14"

    $ gapbench run my_experiment.py --out results/mine

    Args:
        experiment: A name in experiments/, or a path to your own file.
        out: Folder for the records (default: results/reproduced/NAME).
        workers: Processes, one core each (default: as many as there are cores).
        seeds: Train seeds 0 to N - 1 in every cell instead of the declared ones.
        only: Train the runs for which this holds, such as 'px == 28 and head == "gap"'.
        pilot: Train the pilot seeds instead, into the folder's own folder `pilot`.
    """
    from rich.console import Console

    from gapbench.progress import describe, watch_sweep
    from gapbench.sweep import cell_states, check_runnable, core_count, find_experiment, missing_runs, run_sweep, select

    at_least("seeds", seeds, 1)
    at_least("workers", workers, 1)
    path, declared = find_experiment(experiment)
    folder = out or REPRODUCED / path.stem
    if pilot and seeds:
        raise UserError("--pilot has seeds of its own: leave out --seeds")
    if pilot:
        declared, folder = declared.pilot, folder / "pilot"
    if seeds:
        declared = declared.with_seeds(range(seeds))
    todo = missing_runs(declared, folder, only)
    if todo:
        check_runnable(todo)
    console = Console()
    already = len(select(declared.runs, only)) - len(todo)
    console.print(f"{path.stem}: {already} done, {len(todo)} to train -> {folder}", highlight=False, soft_wrap=True)
    sweep = run_sweep(path, declared, todo, folder, workers or core_count())
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


def report(
    folders: Positional[tuple[str, ...]],
    out: Path | None = None,
    readme: Path | None = None,
    plots: bool = False,
    check: bool = False,
) -> int:
    """Regenerate tables, figures, claims and the page from records; never trains.

    $ gapbench report size_sweep

    $ gapbench report results/published/size_sweep --check

    Args:
        folders: Folders of records, or names of experiments (results/reproduced/NAME, else results/published/NAME).
        out: Write below this folder instead of beside the records.
        readme: Also regenerate the generated blocks of this file, from these folders.
        plots: Regenerate the figures alone.
        check: Write nothing; exit 1 if a derived file differs from what is there by a byte.
    """
    from joblib import Parallel, cpu_count, delayed

    from gapbench.report import differing, make_report, verdict_lines, write_files
    from gapbench.report.readme import fill_blocks

    if not folders:
        raise UserError("report: name at least one folder of records, or an experiment")
    stale = []
    everything = []
    paths = [folder_of(name) for name in folders]
    # Forked: a report starts no threads, and a fresh interpreter would spend longer importing than drawing.
    made = Parallel(n_jobs=min(len(paths), cpu_count()), backend="multiprocessing")(
        delayed(make_report)(path, plots) for path in paths
    )
    for path, (evidence, files) in zip(paths, made, strict=True):
        everything.append(evidence)
        target = out / path.name if out else path
        if check:
            stale += [str(target / name) for name in differing(target, files)]
        else:
            write_files(target, files)
            print("\n".join([*verdict_lines(evidence), f"  -> {target if plots else target / 'index.html'}"]))
    if readme:
        stale += fill_blocks(readme, everything, write=not check)
    for name in stale if check else ():
        print(
            f"differs from its records: {name} (make report regenerates it; if nothing makes it any more, delete it)",
            file=sys.stderr,
        )
    return 1 if check and stale else 0


def folder_of(name: str) -> Path:
    """A folder of records, given as such or as an experiment's name."""
    for path in (Path(name), REPRODUCED / name, PUBLISHED / name):
        if (path / "experiment.json").is_file():
            return path
    raise UserError(f"no records in {name!r}: neither a folder with an experiment.json nor an experiment that was run")


def compare(folder: Positional[Path], published: Path | None = None) -> int:
    """Hold a reproduction against the published records: bits, intervals and claims. Exit 1 if it does not hold.

    $ gapbench compare results/reproduced/size_sweep

    Args:
        folder: The folder of your records.
        published: The folder to compare with (default: results/published/NAME).
    """
    from gapbench.analysis.compare import compare_folders

    result = compare_folders(published or PUBLISHED / folder.name, folder)
    print(f"records: {result.shared} of {result.shared + len(result.missing)} published runs are here")
    print(f"bits:    {result.identical} of {result.comparable} made with the same versions and processor are identical")
    print(f"cells:   {result.cells - len(result.outside)} of {result.cells} estimates inside the published interval")
    print(f"claims:  {result.claims - len(result.changed)} of {result.claims} verdicts agree")
    for line in (*result.missing, *result.different):
        print(f"  missing or different: {line}")
    for line in (*result.outside, *result.changed):
        print(f"  {line}")
    print("the published result holds here" if result.holds else "the published result does NOT hold here in full")
    return 0 if result.holds else 1


def time(
    experiment: Positional[str] = "size_sweep",
    px: tuple[int, ...] = (),
    batch: tuple[int, ...] = (),
    samples: int = 30,
    out: Path | None = None,
    once: bool = False,
) -> int:
    """Time both heads, interleaved, on the devices present: training step and inference.

    $ gapbench time

    $ gapbench time size_sweep --px 28 56 --batch 64 256 1024

    Args:
        experiment: Whose nets are timed.
        px: Input sizes (default: those of the experiment).
        batch: Batch sizes (default: the experiment's). A size stops at the first that does not fit in memory.
        samples: Samples a head and cell, all kept.
        out: Folder of the experiment's records (default: results/reproduced/NAME).
        once: Do nothing where this environment has been timed already.
    """
    from gapbench.progress import watch_cells
    from gapbench.sweep import find_experiment, pin_process, share_programs

    for flag, values in (("px", px), ("batch", batch), ("samples", (samples,))):
        for value in values:
            at_least(flag, value, 1)
    path, declared = find_experiment(experiment)
    folder = out or REPRODUCED / path.stem
    pin_process()
    share_programs()  # for what prepares the timing; the timed compilations pass it by
    from gapbench.data import load
    from gapbench.records import provenance
    from gapbench.throughput import time_device
    from gapbench.timings import file_name, write_throughput

    if once and (folder / "throughput" / file_name(provenance())).is_file():
        print(f"timed already: {folder / 'throughput' / file_name(provenance())}")
        return 0
    spec = declared.runs[0]
    dataset = load(spec.task.dataset, spec.task.px)  # for the shape of its images and the number of its classes
    sizes = px or tuple(dict.fromkeys(run_spec.task.px for run_spec in declared.runs))
    batches = batch or (spec.recipe.batch,)
    with watch_cells(1 + 2 * len(sizes) * len(batches)) as progress:
        result = time_device(
            spec,
            declared.pair,
            sizes,
            batches,
            image_channels=dataset.train_images.shape[-1],
            classes=len(dataset.class_names),
            samples=samples,
            progress=progress,
        )
    print(write_throughput(folder, result))
    return 0


def params(
    channels: int = 32,
    feature_px: int = 10,
    classes: int | None = None,
    spec: Path | None = None,
    image_channels: int | None = None,
) -> int:
    """Parameters, arithmetic and memory of every head, in closed form; the defaults are the article's example.

    $ gapbench params --channels 32 --feature-px 10 --classes 2

    $ gapbench params --spec results/published/size_sweep/records/RUN_ID.json

    Args:
        channels: C, maps of the last feature map.
        feature_px: H', side of the last feature map.
        classes: K.
        spec: Count the whole net of a run's spec, or of a record, instead.
        image_channels: Of the input, with --spec.
    """
    from rich.console import Console
    from rich.table import Table

    from gapbench.counts import HEAD_COUNTS, Counts, count_backbone, count_head

    for flag, value in (
        ("channels", channels),
        ("feature-px", feature_px),
        ("classes", classes),
        ("image-channels", image_channels),
    ):
        at_least(flag, value, 1)
    run_spec, known = load_spec(spec) if spec else (None, {})
    backbone = Counts(0, 0, 0)
    classes = classes or known.get("classes") or 2
    image_channels = image_channels or known.get("image_channels") or 1
    if run_spec:
        channels, feature_px = run_spec.backbone.channels, run_spec.backbone.feature_px(run_spec.task.px)
        backbone = count_backbone(run_spec, image_channels)
    title = f"{channels} maps of {feature_px}×{feature_px}, {classes} classes" + (f", net of {spec}" if spec else "")
    table = Table("head", "parameters", "flatten / this", "FLOP an image", "activation bytes", title=title)
    most = (backbone + count_head("flatten", channels, feature_px, classes)).parameters
    for head in HEAD_COUNTS:
        counts = backbone + count_head(head, channels, feature_px, classes)
        ratio = f"{most / counts.parameters:.2f}"
        table.add_row(head, f"{counts.parameters:,}", ratio, f"{counts.flops:,}", f"{counts.activation_bytes:,}")
    Console().print(table)
    return 0


def load_spec(path: Path) -> "tuple[RunSpec, dict[str, Any]]":
    """A run's spec and what else its JSON file says: nothing, or the fields of a record."""
    import json

    from gapbench.spec import RunSpec, validate

    try:
        raw = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"--spec {path}: not a readable JSON file ({error})") from error
    fields = raw if isinstance(raw, dict) and "spec" in raw else {}
    return validate(RunSpec, fields.get("spec", raw), str(path)), fields


def status(experiment: Positional[str], out: Path | None = None) -> int:
    """Which cells are done, failed or missing; broken records are named and passed over.

    $ gapbench status size_sweep --out results/published/size_sweep

    Args:
        experiment: A name in experiments/, or a path to your own file.
        out: Folder of the records (default: results/reproduced/NAME).
    """
    from collections import Counter

    from gapbench.sweep import cell_states, find_experiment

    path, declared = find_experiment(experiment)
    states, broken = cell_states(declared, out or REPRODUCED / path.stem)
    cells: dict[tuple[str, int, str], Counter[str]] = {}
    for spec in declared.runs:
        cells.setdefault((spec.task.dataset, spec.task.px, spec.head), Counter())[states[spec.run_id]] += 1
    for (dataset, px, head), counts in cells.items():
        print(f"{dataset} {px:>3} px {head:<10}", ", ".join(f"{n} {state}" for state, n in counts.items()))
    for line in broken:
        print(f"broken: {line}", file=sys.stderr)
    return 1 if broken else 0


def verify(record: Positional[Path], experiment: str | None = None) -> int:
    """Train a record's spec again and compare every number. Exit 1 if one differs.

    $ gapbench verify results/published/size_sweep/records/RUN_ID.json

    Args:
        record: The record's file.
        experiment: The experiment's file, where it registers heads, backbones or data of its own.
    """
    from gapbench.analysis.compare import comparable
    from gapbench.records import load_record
    from gapbench.sweep import find_experiment, retrain

    old = load_record(record)
    new = retrain(old.spec, find_experiment(experiment)[0] if experiment else None)
    if new.status in FAILED and old.status not in FAILED:
        raise UserError(f"{old.run_id} cannot be trained: {new.reason}; --experiment FILE for a head of your own")
    if old.result == new.result:
        print(f"identical: {old.run_id}")
        return 0
    alike = (
        "the same versions and processor: this must not be" if comparable(old, new) else "other versions or processor"
    )
    print(f"different: {old.run_id} ({alike}){f': {new.status}, {new.reason}' if new.reason else ''}")
    for split in old.final.keys() & new.final.keys():
        print(f"  {split}: accuracy {old.final[split].accuracy} -> {new.final[split].accuracy}")
    return 1


def data_list() -> int:
    """The data sets known here, and where they are.

    $ gapbench data list
    """
    from gapbench.data import describe

    for row in describe():
        facts = ", ".join(
            f"{value:,} {unit}"
            for value, unit in ((row.images, "images"), (row.px, "px"), (row.classes, "classes"))
            if value
        )
        print(f"{row.name:<16} {facts:<34} {row.where}")
    return 0


def data_fetch(name: Positional[str]) -> int:
    """Download a data set into the cache, checksum verified, unless it is here.

    $ gapbench data fetch fashion_mnist
    """
    from gapbench.data import fetch

    for path in fetch(name):
        print(path)
    return 0


def data_add(name: Positional[str], path: Positional[Path]) -> int:
    """Register a folder, zip or tar of your own as folder:NAME (train/<class>/*, test/<class>/*).

    $ gapbench data add birds PATH
    """
    from gapbench.data import add

    add(name, path)
    print(f"folder:{name}")
    return 0


def data_check(name: Positional[str]) -> int:
    """Read every image of a data set and count.

    $ gapbench data check mnist5k
    """
    from gapbench.data import check

    found = check(name)
    print(f"{found.name}: fingerprint {found.fingerprint}, shapes {', '.join(map(str, found.shapes))}")
    for class_name, n in found.train_images.items():
        print(f"  {class_name:<16} {n:>6} train {found.test_images.get(class_name, 0):>6} test")
    return 0


def data() -> int:
    """Data sets: list | fetch NAME | add NAME PATH | check NAME (gapbench data --help)."""
    return main(["data", "--help"])


COMMANDS: dict[str, Any] = {
    command.__name__: command for command in (run, report, compare, time, params, status, verify, data)
}
DATA_COMMANDS: dict[str, Any] = {"list": data_list, "fetch": data_fetch, "add": data_add, "check": data_check}


def at_least(flag: str, value: int | None, least: int) -> None:
    """Raise UserError for a number below `least`; None means the flag was not given."""
    if value is not None and value < least:
        raise UserError(f"--{flag} {value}: must be at least {least}")


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
