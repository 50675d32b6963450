"""What a worker process does: train one spec, or a fleet of them, and write the records.

JAX is imported inside functions alone: `worker.start_worker` comes first.
"""

import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from gapbench.cluster import initialize_cluster
from gapbench.factories import Factory
from gapbench.records import SCHEMA, Fleet, Record, write_record
from gapbench.spec import Audit, RunSpec, explain

if TYPE_CHECKING:
    from gapbench.data import Dataset
    from gapbench.train import Trained

NEWS = ".fleet.part"  # in the sweep's folder: a line of JSON for all that happens in a fleet, while it happens


def import_file(path: Path) -> ModuleType:
    """Run an experiment's file, which may also register heads, backbones and data of the user's own."""
    module_spec = importlib.util.spec_from_file_location(f"gapbench_experiment_{path.stem}", path)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # where dataclasses look their annotations up
    module_spec.loader.exec_module(module)
    return module


class Own(NamedTuple):
    """Where a worker finds the heads, backbones and data that a run names and gapbench does not have."""

    file: Path | None  # of the experiment
    factories: tuple[Factory, ...] = ()

    def register(self) -> None:
        """Make them known in this process."""
        if self.file:
            import_file(self.file)
        for factory in self.factories:
            factory.register()


def find_platform() -> str:
    """JAX's default platform on this machine, in a worker that may go on to train."""
    import jax

    return jax.default_backend()


def run_cell(spec: RunSpec, out: Path, own: Own) -> Record:
    """Train one spec in a worker and write its record; what goes wrong in training is a record too."""
    own.register()
    record, timing = train_record(spec, out)
    write_record(out, record, timing)
    return record


def train_alone(spec: RunSpec, own: Own) -> Record:
    """A record that is not written."""
    own.register()
    return train_record(spec)[0]


def keep_again(spec: RunSpec, own: Own, folder: Path) -> str:
    """Train a spec, and keep its net in the folder; returns why that failed."""
    from gapbench.data import load, split
    from gapbench.nets import keep_net, net_of
    from gapbench.train import train_run

    own.register()
    try:
        dataset = load(spec.task.dataset, spec.task.px)
        trained = train_run(spec, dataset)
        if not trained.reason:
            keep_net(folder, net_of(spec, trained.state, dataset, split(dataset, spec.task, spec.seed)))
    except Exception as error:
        return explain(error)
    return trained.reason


def train_record(spec: RunSpec, out: Path | None = None) -> tuple[Record, dict[str, float]]:
    """The record of one run trained step by step, and its times in seconds; an audited net is kept below `out`."""
    from gapbench.data import load
    from gapbench.train import train_run

    try:
        dataset = load(spec.task.dataset, spec.task.px)
        return trained_record(spec, dataset, train_run(spec, dataset), out)
    except Exception as error:
        return failed_record(spec, error), {}


def run_fleet(specs: Sequence[RunSpec], out: Path, own: Own) -> None:
    """Train specs of one program in a worker, and write each record as soon as its crew ends; news go to a file.

    In a cluster every process trains, and the first writes.
    """
    initialize_cluster()
    import jax

    from gapbench.data import load
    from gapbench.fleet import Voice, train_fleet

    own.register()
    leads = jax.process_index() == 0

    def tell(**news: Any) -> None:
        if leads:
            with (out / NEWS).open("a") as file:
                file.write(json.dumps(news) + "\n")

    def write(record: Record, timing: dict[str, float]) -> None:
        if leads:
            write_record(out, record, timing)
            tell(record=record.run_id)

    label, waiting = f"{specs[0].head} {specs[0].task.px} px", list(specs)
    voice = Voice(
        note=lambda text: tell(note=text),
        tick=lambda step, steps, runs: tell(
            text=f"{label}: step {step} of {steps}, {runs} runs", share=runs * step / steps
        ),
    )
    try:
        tell(text=f"{label}: compiling for {len(specs)} runs", share=0.0)
        dataset = load(specs[0].task.dataset, specs[0].task.px)
        for crew in train_fleet(specs, dataset, checkpoints=out / "checkpoints", voice=voice):
            for spec, trained, fleet in crew:
                waiting.remove(spec)
                try:
                    ended = trained_record(spec, dataset, trained, out if leads else None, fleet)
                except Exception as error:  # of an audit: the crew's other runs are not to blame
                    ended = failed_record(spec, error), {}
                write(*ended)
    except Exception as error:
        for spec in waiting:
            write(failed_record(spec, error), {})


def trained_record(
    spec: RunSpec, dataset: "Dataset", trained: "Trained", out: Path | None, fleet: Fleet | None = None
) -> tuple[Record, dict[str, float]]:
    """What the run left, the answers to its spec's `audit` and its times; an audited net is kept below `out`."""
    audits, timing = dict[str, Any](), trained.timing
    if spec.audit != Audit() and not trained.reason:
        from gapbench.audits import audit_net
        from gapbench.data import split
        from gapbench.nets import keep_net, net_of

        splits = split(dataset, spec.task, spec.seed)
        net = net_of(spec, trained.state, dataset, splits)
        audits, seconds = audit_net(net, dataset, splits)
        timing = timing | seconds
        if out:
            keep_net(out / "checkpoints" / spec.run_id, net)
    record = make_record(
        spec,
        status="diverged" if trained.reason else "ok",
        reason=trained.reason,
        curve=trained.curve,
        gradients=trained.gradients,
        final={split: score._asdict() for split, score in trained.final.items()},
        pairing=trained.pairing,
        parameters=trained.parameters,
        image_channels=dataset.train_images.shape[-1],
        classes=len(dataset.class_names),
        audits=audits,
        fleet=fleet,
    )
    return record, timing


def failed_record(spec: RunSpec, error: Exception) -> Record:
    """Why there is no result."""
    from gapbench.memory import is_out_of_memory

    reason = f"{type(error).__name__}: {error}".splitlines()[0]
    return make_record(spec, status="out_of_memory" if is_out_of_memory(error) else "failed", reason=reason)


def make_record(spec: RunSpec, **fields: Any) -> Record:
    """A record of this spec and process; the fields as JSON would give them, for the schema validates."""
    from gapbench.records import provenance

    fields |= {"schema": SCHEMA, "run_id": spec.run_id, "pair_id": spec.pair_id, "spec": spec}
    return Record(**fields, provenance=provenance())
