"""The subcommands that train nothing: report, compare, power, params, and those of `gapbench data`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from gapbench.spec import UserError

if TYPE_CHECKING:
    from gapbench.spec import RunSpec

PUBLISHED, REPRODUCED = Path("results/published"), Path("results/reproduced")


def at_least(flag: str, value: int | None, least: int) -> None:
    """Raise UserError for a number below `least`; None means the flag was not given."""
    if value is not None and value < least:
        raise UserError(f"--{flag} {value}: must be at least {least}")


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
            page = target / "index.html" if "index.html" in files else target
            print("\n".join([*verdict_lines(evidence), f"  -> {page}"]))
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
    from gapbench.race import FILE

    for path in (Path(name), REPRODUCED / name, PUBLISHED / name):
        if any((path / declared).is_file() for declared in ("experiment.json", FILE)):
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

    if not published and not (PUBLISHED / folder.name).is_dir() and (folder / "experiment.json").is_file():
        raise UserError(f"nothing is published as {folder.name} to compare with: give --published FOLDER")
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


def power(experiment: Positional[str], margin: float | None = None) -> int:
    """How many pairs a margin would take, from the spread that the records show; trains nothing.

    $ gapbench power size_sweep --margin 0.002

    $ gapbench power results/published/size_sweep

    Args:
        experiment: A folder of records, or the name of an experiment that was run.
        margin: The smallest difference that matters, a fraction: 0.002 is 0.2 points (default: the claims' margins).
    """
    from gapbench.analysis.evidence import load_evidence
    from gapbench.report.power import power_table

    if margin is not None and not 0 < margin < 1:
        raise UserError(f"--margin {margin:g}: a fraction above 0 and below 1, such as 0.002 for 0.2 points")
    print(power_table(load_evidence(folder_of(experiment)), margin).markdown, end="")
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
    from rich.table import Column, Table

    from gapbench.counts import Counts, count_backbone, count_head, listed_heads

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
    table = Table(
        Column("head", no_wrap=True), "parameters", "flatten / this", "FLOP an image", "activation bytes", title=title
    )
    most = (backbone + count_head("flatten", channels, feature_px, classes)).parameters
    for head in listed_heads(feature_px):
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
    print(f"{'canvas:NAME':<16} {'any size':<34} drawn from any of these: known boxes and pixels among clutter")
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


DATA_COMMANDS: dict[str, Any] = {"list": data_list, "fetch": data_fetch, "add": data_add, "check": data_check}
