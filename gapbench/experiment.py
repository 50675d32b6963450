"""A question, the runs that answer it, and the rules that were fixed before they ran."""

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, Field, model_validator

from gapbench.factories import Factory
from gapbench.spec import ARM_FIELDS, Declaration, Fraction, RunSpec, Seed, UserError, validate

Regime = Literal["shared", "tuned"]


class Cell(NamedTuple):
    """Where arms are compared: one row of a table. Its pairs share every field of the spec but what makes an arm."""

    regime: str
    dataset: str
    px: int
    factors: str  # what else varies in the experiment, such as `peak_lr 0.003`; empty where nothing does

    @property
    def label(self) -> str:
        """`28 px, peak_lr 0.003`."""
        return ", ".join(filter(None, (f"{self.px} px", self.factors)))


class Reported(Declaration):
    """What somebody else printed of the same arms."""

    source: str  # as `Lin et al. 2013, table 4`
    differs: str  # what is not the same here: whole sentences
    test_error: dict[str, Fraction]  # by arm


class Experiment(Declaration):
    """A declaration, which never changes once it has records.

    Two regimes: in the shared one every arm of a cell has the same recipe, in the tuned one each arm has the peak
    learning rate that `tuned` gives it, and all the rest is equal.
    """

    question: str
    runs: tuple[RunSpec, ...]  # of the shared regime
    tuned_on: str = ""  # the experiment whose records chose `tuned`, targets and train_losses, on seeds of its own
    tuned: dict[str, Annotated[float, Field(gt=0)]] = {}  # peak_lr by head
    pair: tuple[str, str] = ("flatten", "gap")  # the reference arm and the one under test
    axis: Literal["px", "train_images", "peak_lr", "steps"] = "px"  # what the figures run over
    family: tuple[Literal["C2", "C3", "C4", "C5"], ...] = ()  # judged in every cell; Holm runs over their tests
    targets: tuple[Fraction, ...]  # validation accuracies that count as learnt; the first is primary
    train_losses: tuple[Annotated[float, Field(gt=0)], ...]  # at which overfit is matched; the first is primary
    reported: Reported | None = None
    factories: tuple[Factory, ...] = ()  # heads and backbones that are imported, beside those the file registers
    pilot_seeds: tuple[Seed, ...] = ()  # train these first, and set targets and train_losses from them

    @model_validator(mode="after")
    def _runs_are_pairs(self) -> "Experiment":
        cells = Counter((spec.cell_key, spec.arm, spec.seed) for spec in self.runs)
        if not cells or max(cells.values()) > 1:
            raise ValueError("runs: give at least one, and each cell, arm and seed once")
        if missing := set(self.pair) - {spec.arm for spec in self.runs}:
            raise ValueError(f"runs: no run is the arm {', '.join(sorted(missing))} named in pair")
        if self.reported and (odd_arms := set(self.reported.test_error) - {spec.arm for spec in self.runs}):
            raise ValueError(f"reported: no run is the arm {', '.join(sorted(odd_arms))}")
        halves = Counter((spec.cell_key, spec.seed) for spec in self.runs if spec.arm in self.pair)
        if odd := [key for key, n in halves.items() if n == 1]:
            raise ValueError(self._explain_odd(odd[0]))
        if not self.targets or not self.train_losses:
            raise ValueError("targets and train_losses: give at least one each")
        if used := {spec.seed for spec in self.runs} & set(self.pilot_seeds):
            raise ValueError(f"pilot_seeds: {min(used)} is also a seed of the runs, and what was tuned on cannot judge")
        return self

    def _explain_odd(self, key: tuple[RunSpec, int]) -> str:
        """Which field keeps a run from its other half."""
        one = next(spec for spec in self.runs if (spec.cell_key, spec.seed) == key and spec.arm in self.pair)
        others = [spec for spec in self.runs if spec.arm in set(self.pair) - {one.arm}]
        differ = [[name for name, value in one.row.items() if spec.row[name] != value] for spec in others]
        unequal = [name for name in min(differ, key=len) if name not in ("head", *ARM_FIELDS)]
        return (
            f"runs: {one.run_id} has no other half: of {' and '.join(self.pair)} one has another {', '.join(unequal)};"
            " a pair is equal in all but the head, and in the shared regime has one recipe"
        )

    @model_validator(mode="after")
    def _rates_are_whole(self) -> "Experiment":
        if bool(self.tuned) != bool(self.tuned_on):
            raise ValueError("tuned and tuned_on: give both or neither")
        if self.tuned and (missing := {spec.head for spec in self.runs} - set(self.tuned)):
            raise ValueError(f"tuned: no peak_lr for {', '.join(sorted(missing))}")
        return self

    @property
    def regimes(self) -> dict[Regime, tuple[RunSpec, ...]]:
        """The runs by regime; a head whose own rate is the shared one has the same run in both."""
        if not self.tuned:
            return {"shared": self.runs}
        tuned = tuple(spec.with_recipe(peak_lr=self.tuned[spec.head]) for spec in self.runs)
        return {"shared": self.runs, "tuned": tuned}

    @property
    def all_runs(self) -> tuple[RunSpec, ...]:
        """Every run once."""
        return tuple(dict.fromkeys(itertools.chain(*self.regimes.values())))

    @property
    def factors(self) -> tuple[str, ...]:
        """The fields beside data set and size in which the cells differ, without those that follow from ones before."""
        rows, kept = [spec.cell_row for spec in self.runs], ["dataset", "px"]
        for name in rows[0]:
            if len({tuple(r[n] for n in (*kept, name)) for r in rows}) > len({tuple(r[n] for n in kept) for r in rows}):
                kept.append(name)
        return tuple(kept[2:])

    @property
    def arms(self) -> tuple[str, ...]:
        """What is compared in a cell, in the order of the declaration."""
        return tuple(dict.fromkeys(spec.arm for spec in self.runs))

    @property
    def cells(self) -> dict[Cell, tuple[RunSpec, ...]]:
        """The runs of each cell, smallest inputs first, otherwise as declared."""
        found: dict[Cell, list[RunSpec]] = {}
        names = self.factors
        options = {spec.task.dataset: spec.task.dataset.split(",")[1:] for spec in self.runs}  # of canvases
        common = set.intersection(*map(set, options.values()))
        for regime, specs in self.regimes.items():
            for shared, spec in zip(self.runs, specs, strict=True):
                row = shared.cell_row
                own = [option.replace("=", " ") for option in options[spec.task.dataset] if option not in common]
                factors = ", ".join([*own, *(f"{name} {show(row[name])}" for name in names)])
                found.setdefault(Cell(regime, spec.task.dataset, spec.task.px, factors), []).append(spec)
        ordered = sorted(found, key=lambda cell: (cell.regime, cell.dataset, cell.px))  # stable
        return {cell: tuple(found[cell]) for cell in ordered}

    def with_seeds(self, seeds: Iterable[int]) -> "Experiment":
        """The same experiment with these seeds in every cell; raises UserError where one is a pilot seed."""
        cells = dict.fromkeys(spec.model_copy(update={"seed": 0}) for spec in self.runs)
        runs = tuple(cell.model_copy(update={"seed": seed}) for cell in cells for seed in seeds)
        return validate(Experiment, {**dict(self), "runs": runs}, "seeds")

    @property
    def pilot(self) -> "Experiment":
        """The pilot: the same cells on the pilot seeds.

        Raises:
          UserError: the experiment declares none.
        """
        if not self.pilot_seeds:
            raise UserError("this experiment declares no pilot_seeds")
        return self.model_copy(update={"pilot_seeds": (), "tuned": {}, "tuned_on": ""}).with_seeds(self.pilot_seeds)


def show(value: Any) -> str:
    """A field's value in a cell's label."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def grid(**fields: Any) -> tuple[RunSpec, ...]:
    """Every combination of the given field values, the last field fastest; a single value stands for itself.

    Raises:
      UserError: a combination is not a valid spec; the message names the field.
    """
    many = (v if isinstance(v, Iterable) and not isinstance(v, (str, BaseModel)) else (v,) for v in fields.values())
    return tuple(
        validate(RunSpec, dict(zip(fields, values, strict=True)), "grid") for values in itertools.product(*many)
    )
