"""An experiment with some fields set otherwise: `gapbench run EXPERIMENT --set recipe.peak_lr=0.05 task.px=20`.

What comes out is another experiment, under a name of its own. Training it is for sweep.py, as with any.
"""

import difflib
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from gapbench.experiment import Experiment
from gapbench.factories import Factory
from gapbench.spec import Backbone, Declaration, Recipe, RunSpec, Task, UserError, digest, file_safe, validate

PARTS: dict[str, type[Declaration]] = {"task": Task, "backbone": Backbone, "recipe": Recipe}
FIELDS = ("head", *(f"{part}.{name}" for part, model in PARTS.items() for name in model.model_fields))
LONGEST_NAME = 120  # characters; a folder's may have 255 bytes


class Overridden(NamedTuple):
    """Another experiment, and what to call it."""

    experiment: Experiment
    name: str  # of its folder: `size_sweep+recipe.peak_lr=0.05`
    notes: tuple[str, ...]  # what a person should know of it


def override(experiment: Experiment, name: str, settings: Sequence[str], factories: Sequence[Factory]) -> Overridden:
    """The experiment with these fields of every run set so, and with these heads and backbones in place of its own.

    `head` is set in the arm under test alone. Runs that become equal are one run. The tuned regime stays where only
    sizes and numbers of images are others: its rates were chosen for the nets, recipes and data that it had. What a
    source reported of the original is left out.

    Raises:
      UserError: a setting that is none, or one that leaves no pair.
    """
    fields = parse_settings([*settings, *(f"{made.field}={made.name}" for made in factories)])
    where = "--set " + " ".join(f"{field}={text}" for field, text in fields.items())
    reference, under_test = experiment.pair
    changed = {spec: with_fields(spec, fields, spec.arm == under_test, where) for spec in experiment.runs}
    arms = {old.arm: new.arm for old, new in changed.items()}
    if arms[reference] == arms[under_test]:
        raise UserError(f"{where}: no pair is left, for {reference} and {under_test} are then both {arms[reference]}")
    runs = tuple(dict.fromkeys(changed.values()))
    alike = all(field.startswith("task.") and field != "task.dataset" for field in fields)
    tuned = experiment.tuned_on if alike else ""
    notes = []
    if len(runs) < len(changed):
        notes.append(f"{len(changed)} runs become {len(runs)}: the experiment varies what is set here")
    if experiment.tuned_on and not tuned:
        notes.append("without the tuned regime: its rates were chosen for other nets, recipes or data")
    values = {field: attrgetter(field)(changed[next(s for s in changed if s.arm == under_test)]) for field in fields}
    told = [f"{field}={values[field]}" for field in sorted(values)]
    declared = {
        **dict(experiment),
        "question": f"{experiment.question} With {', '.join(told)}.",
        "runs": runs,
        "pair": (arms[reference], arms[under_test]),
        "tuned_on": tuned,
        "tuned": experiment.tuned if tuned else {},
        "reported": None,
        "factories": (*experiment.factories, *factories),
    }
    return Overridden(validate(Experiment, declared, where), file_name([name, *told]), tuple(notes))


def parse_settings(settings: Iterable[str]) -> dict[str, str]:
    """Field to text; raises UserError for a field that is none, with the nearest, or is set twice."""
    fields: dict[str, str] = {}
    for setting in settings:
        field, equals, text = setting.partition("=")
        if not equals or not text:
            raise UserError(f"--set {setting}: give FIELD=VALUE, such as recipe.peak_lr=0.05")
        if field not in FIELDS:
            names = {known.rpartition(".")[2]: known for known in FIELDS}  # a part left out is the likeliest slip
            near = difflib.get_close_matches(field.rpartition(".")[2], names, n=1)
            hint = f"did you mean {names[near[0]]!r}?" if near else f"known: {', '.join(FIELDS)}"
            raise UserError(f"--set {setting}: no field {field!r}; {hint}")
        if field in fields:
            raise UserError(f"--set {setting}: {field} is set to {fields[field]} already; leave one out")
        fields[field] = text
    return fields


def with_fields(spec: RunSpec, fields: dict[str, str], under_test: bool, where: str) -> RunSpec:
    """The run with the fields set, their text read as each field's type has it."""
    values = spec.model_dump()
    for field, text in fields.items():
        part, _, name = field.rpartition(".")
        if part:
            values[part][name] = text
        elif under_test:
            values[name] = text
    return validate(RunSpec, values, where)


def file_name(words: Iterable[str]) -> str:
    """The words as one name that every file system takes."""
    name = file_safe("+".join(words))
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 9]}-{digest(name)}"
