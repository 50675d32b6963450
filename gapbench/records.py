"""One immutable JSON file a run: its schema, its provenance, and the check that two of them may be compared."""

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

import gapbench
from gapbench.experiment import Experiment
from gapbench.spec import Declaration, ModelT, PositiveInt, RunSpec, UserError, validate

SCHEMA = 2
Status = Literal["ok", "diverged", "out_of_memory", "failed"]
SPLITS = ("train", "val", "test")
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Value = int | Annotated[float, Field(allow_inf_nan=False)] | str
Accuracy = Annotated[float, Field(ge=0, le=1)]


class Table(Declaration):
    """Columns side by side, a row an evaluation."""

    @model_validator(mode="after")
    def _columns_are_equally_long(self) -> "Table":
        if len({len(column) for _, column in self}) > 1:
            *names, last = (name for name, _ in self)
            raise ValueError(f"the columns {', '.join(names)} and {last} differ in length")
        return self


class Curve(Table):
    """The evaluations as equally long columns, one row a step and split."""

    step: tuple[int, ...] = ()
    split: tuple[Literal["train", "val", "test"], ...] = ()
    loss: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = ()  # mean cross entropy, nats
    accuracy: tuple[Accuracy, ...] = ()  # fraction


class Gradients(Table):
    """L2 norms of one batch's gradient, in the step that begins at each evaluation but the last; column by column."""

    step: tuple[int, ...] = ()
    backbone: tuple[NonNegative, ...] = ()
    head: tuple[NonNegative, ...] = ()


def equally_long(columns: dict[str, tuple[Value, ...]]) -> dict[str, tuple[Value, ...]]:
    """Raises ValueError unless the columns are."""
    if len({len(column) for column in columns.values()}) > 1:
        raise ValueError(f"the columns {', '.join(columns)} differ in length")
    return columns


AuditTable = Annotated[dict[str, tuple[Value, ...]], AfterValidator(equally_long)]


class Final(Declaration):
    """One split at the last step."""

    loss: float
    accuracy: Accuracy


class Fleet(Declaration):
    """What trained together with a run, in one program."""

    replicas: PositiveInt  # runs that shared the program
    width: PositiveInt  # replicas it held at a time, copies that fill the devices included; below `replicas`: split
    devices: PositiveInt
    resumed: bool  # whether it went on from a checkpoint


class Record(Declaration):
    """What one run left: raw values, no rounding, and nothing that differs between two equal runs.

    Wall-clock times do differ, so they stand beside the record, in `timing/RUN_ID.json`.
    """

    schema_: Literal[2] = Field(2, alias="schema")
    run_id: str
    pair_id: str
    spec: RunSpec
    status: Status
    reason: str = ""  # why the status is not ok
    curve: Curve = Curve()
    gradients: Gradients = Gradients()
    final: dict[Literal["train", "val", "test"], Final] = {}  # empty unless the status is ok
    pairing: dict[str, str] = {}  # hashes of what the runs of a pair share: `train.start_run`
    parameters: dict[str, int] = {}  # of the backbone and of the head, counted on the built net
    image_channels: int = 0  # of the data set; 0 where the run failed before it was read
    classes: int = 0
    audits: dict[str, AuditTable] = {}  # what the spec's `audit` asked: by name, columns of equal length
    fleet: Fleet | None = None  # None: trained alone, step by step
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _is_whole(self) -> "Record":
        if self.run_id != self.spec.run_id:
            raise ValueError(f"run_id {self.run_id!r} does not belong to the spec ({self.spec.run_id!r})")
        if (self.status == "ok") != (set(self.final) == set(SPLITS)):
            raise ValueError("final: must have every split when the status is ok, and none otherwise")
        if self.status == "ok" and self.curve.step[-1:] != (self.spec.recipe.steps,):
            raise ValueError("curve: ends before the last step")
        return self

    @property
    def result(self) -> str:
        """Everything but fleet and provenance, as canonical text: equal for two bit-identical runs."""
        return self.model_dump_json(exclude={"fleet", "provenance"}, by_alias=True)


@functools.cache
def provenance() -> dict[str, Any]:
    """Where numbers come from: code, versions, processor and flags; never a host or user name. Starts JAX.

    Read once a process: the code that runs is the code that was there when it started.
    """
    import jax

    devices = jax.devices()
    packages = ("jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "gapbench": gapbench.__version__,  # a plain checkout has no metadata
        **source_state(),
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "platform": devices[0].platform,
        "device": devices[0].device_kind if devices[0].platform != "cpu" else cpu_model(),
        "devices": len(devices),
        "precision": str(jax.config.jax_default_matmul_precision or "default"),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def cpu_model() -> str:
    """The processor's own name (JAX calls every one of them cpu) and the widest vectors it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    flags = named.get("flags", "").split()
    widest = next((isa for isa in ("avx512f", "avx2", "avx") if isa in flags), platform.machine())
    family = f"family {named['cpu family']} model {named['model']}" if "cpu family" in named else ""
    return " ".join(filter(None, (named.get("model name", platform.machine()), family, widest)))


def source_state() -> dict[str, Any]:
    """The git commit of the library and whether its files differ from it; None where there is no checkout."""
    root = Path(__file__).parent.parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changes = git("status", "--porcelain", "--", "gapbench", "experiments", "rivals", "requirements.lock")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changes is None else bool(changes)}


def write_text(path: Path, text: str) -> None:
    """Write the whole file or none of it: a temporary file beside it, flushed to disk, then renamed.

    Raises:
      UserError: the folder cannot be written or the disk is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`, for bytes."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True) if path.parent.is_dir() else None
        raise UserError(
            f"cannot write {path}: {error.strerror}; free space or permission there, or choose another --out"
        ) from error


def write_fields(path: Path, fields: Mapping[str, Any], by_row: Collection[str] = ()) -> None:
    """Write JSON, a line a field, and of the lists `by_row` a line an element: short, and readable in a diff."""

    def text(name: str, value: Any) -> str:
        if name not in by_row:
            return json.dumps(value, allow_nan=False)
        return "[" + ",".join(f"\n{json.dumps(row, allow_nan=False)}" for row in value) + "\n]"

    lines = (f"{json.dumps(name)}: {text(name, value)}" for name, value in fields.items())
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def remove_parts(folder: Path) -> None:
    """Delete temporary files that a killed process left behind."""
    for part in (*folder.glob(".*.part"), *folder.glob("*/.*.part")):
        part.unlink(missing_ok=True)


def write_record(out: Path, record: Record, timing: dict[str, float]) -> None:
    """Write `records/RUN_ID.json`, and its times beside it; a record that exists stays as it is."""
    path = out / "records" / f"{record.run_id}.json"
    if not path.exists():
        write_text(out / "timing" / f"{record.run_id}.json", json.dumps(timing, indent=1) + "\n")
        write_fields(path, record.model_dump(mode="json", by_alias=True))


def load_record(path: Path) -> Record:
    """Raises UserError that names the file when it is truncated, of another schema or not a record."""
    if path.suffix != ".json":
        raise UserError(f"{path}: not a record, which is a file RUN_ID.json in an experiment's folder records/")
    return load_json(Record, path, "delete it and run the experiment again")


def load_json(model: type[ModelT], path: Path, mend: str) -> ModelT:
    """A file of ours; UserError names it and the mend when it is truncated, of another schema or not a `model`."""
    if not path.is_file():
        raise UserError(f"{path}: no such file")
    try:
        raw = json.loads(path.read_text())
        if (schema := dict(raw).get("schema")) != SCHEMA:
            raise UserError(f"{path}: schema {schema!r}, this gapbench reads {SCHEMA}")
        return validate(model, raw, str(path))
    except UserError as error:
        raise UserError(f"{error}; {mend}") from error
    except (ValueError, TypeError, OSError) as error:  # TypeError: not an object
        raise UserError(f"{path}: not readable as JSON ({error}); {mend}") from error


def load_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Every readable record of an experiment's folder, in the order of their names, and one line a broken file."""
    records, broken = [], []
    for path in sorted((folder / "records").glob("*.json")):
        try:
            records.append(load_record(path))
        except UserError as error:
            broken.append(str(error))
    return records, broken


def load_experiment(folder: Path) -> Experiment:
    """The declaration stored with the records, so that a report needs nothing but its folder."""
    path = folder / "experiment.json"
    if not path.is_file():
        raise UserError(f"no experiment in {folder} (experiment.json is missing): gapbench run EXPERIMENT makes one")
    return validate(Experiment, path.read_text(), str(path))


def load_folder(folder: Path) -> tuple[Experiment, list[Record]]:
    """An experiment and its records so far; raises UserError on the first broken record or unequal pair."""
    experiment = load_experiment(folder)
    records, broken = load_records(folder)
    if broken:
        raise UserError(broken[0] + (f" (and {len(broken) - 1} more: gapbench status)" if broken[1:] else ""))
    declared = {spec.run_id for spec in experiment.all_runs}
    records = [record for record in records if record.run_id in declared]
    check_pairs(records)
    return experiment, records


def check_pairs(records: Iterable[Record]) -> None:
    """Refuse to join runs of one pair that did not share data, subset, initial backbone, batch order and augmentation.

    Raises:
      UserError: naming the two records and the hash that differs.
    """
    first: dict[tuple[Any, ...], Record] = {}  # with this hash, by pair: one that failed early, for instance, has none
    for record in records:
        if record.pair_id != record.spec.pair_id:
            raise UserError(f"{record.run_id}: pair_id does not belong to its spec")
        recipe = record.spec.recipe
        length = {"order": (recipe.steps, recipe.batch)}  # what runs of other lengths cannot share
        others = {name: first.setdefault((record.pair_id, name, length.get(name)), record) for name in record.pairing}
        if unequal := [name for name, other in others.items() if other.pairing[name] != record.pairing[name]]:
            raise UserError(
                f"{others[unequal[0]].run_id} and {record.run_id} are no pair: {', '.join(unequal)} differ;"
                " delete both and run again with one version of the code and data"
            )
