"""Many cells at a glance: signs with intervals, and which factors a cell is named by."""

import pytest
from records_maker import Curves, curves, evidence_of, experiment, wobble

from gapbench.analysis.evidence import Evidence
from gapbench.experiment import Experiment
from gapbench.report.figures import make_figures
from gapbench.report.guide import say_factors
from gapbench.report.signs import factors_frame, signs_table
from gapbench.spec import RunSpec

pytestmark = pytest.mark.usefixtures("sketched")


def declare() -> Experiment:
    """Two optimisers, each with a rate of its own, and two schedules."""
    base = experiment(seeds=8).runs
    recipes = [{"optimizer": "adamw", "peak_lr": 1e-2}, {"optimizer": "sgd", "peak_lr": 1e-1}]
    runs = [
        spec.with_recipe(schedule=schedule, **fields)
        for fields in recipes
        for schedule in ("cosine", "constant")
        for spec in base
    ]
    return experiment(seeds=8, runs=tuple(runs), family=("C5",))


def effect(spec: RunSpec) -> Curves:
    """With AdamW gap has 5 points more errors, with SGD 5 fewer; it is slow in either."""
    more = 0.05 if spec.recipe.optimizer == "adamw" else -0.05
    error = 0.01 * wobble(spec.seed, 3 if spec.head == "gap" else 7)
    return curves(60, 0.1, 0.7 - more + error) if spec.head == "gap" else curves(20, 0.1, 0.7 + error)


def evidence() -> Evidence:
    return evidence_of(declare(), effect)


def test_a_field_that_follows_from_another_names_no_cell() -> None:
    assert declare().factors == ("optimizer", "schedule")  # the rate follows from the optimiser
    assert next(cell.factors for cell in declare().cells) == "optimizer adamw, schedule cosine"


def test_each_cell_has_its_sign_and_its_verdict() -> None:
    rows = [row[1:2] + row[3:] for row in signs_table(evidence()).shown]
    signs = {row[0].split("optimizer ")[1]: (row[1][0], row[2][0], row[3]) for row in rows}
    assert signs == {
        "adamw, schedule cosine": ("+", "+", "supported"),
        "adamw, schedule constant": ("+", "+", "supported"),
        "sgd, schedule cosine": ("−", "+", "supported"),
        "sgd, schedule constant": ("−", "+", "supported"),
    }


def test_the_signs_are_drawn_a_row_a_cell() -> None:
    drawn = make_figures(evidence())
    assert drawn["signs"]["svg"].count(b"constant") == 2


def test_a_factor_s_level_is_a_mean_over_its_cells() -> None:
    frame = factors_frame(evidence()).set_index(["factor", "level"])
    assert list(frame.index) == [
        *(("optimizer", level) for level in ("adamw", "sgd")),
        *(("schedule", level) for level in ("cosine", "constant")),
    ]
    assert list(frame["cells"]) == [2, 2, 2, 2]
    errors = frame["test_error_estimate"]
    # the wobble's mean difference is the same in every cell: +5 and -5 points around it, and their mean
    both = errors["optimizer", "adamw"], errors["optimizer", "sgd"]
    assert both[0] - both[1] == pytest.approx(0.1)
    assert errors["schedule", "cosine"] == errors["schedule", "constant"] == pytest.approx(sum(both) / 2)
    assert frame["test_error_n"].tolist() == [16] * 4


def test_the_guide_names_the_factor_that_moves_test_error_most() -> None:
    told = say_factors(evidence())
    assert told.startswith(
        "Over 4 recipes, each shared by both heads, GAP needs 3.00 times the steps, a run that never gets there"
    )
    assert "; test error, gap - flatten in points, by optimizer: adamw +5.06 [" in told
