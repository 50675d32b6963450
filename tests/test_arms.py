"""Experiments with more than a pair: each arm against gap, the ladder between the ends, and where two arms cross."""

import pytest
from records_maker import Curves, curves, evidence_of, experiment, wobble

from gapbench.analysis.evidence import Evidence
from gapbench.report.arms import arms_frame, arms_table, rungs
from gapbench.report.crossover import crossover_rows, crossover_table
from gapbench.report.figures import make_figures
from gapbench.report.guide import say_crossover
from gapbench.report.tables import make_tables
from gapbench.spec import RunSpec

pytestmark = pytest.mark.usefixtures("sketched")


def controls() -> Evidence:
    """gap, flatten and gmp, each with and without dropout, and gap twice; an arm's error is gap's and some points."""
    base = experiment(seeds=6, heads=("flatten", "gap", "gmp"), family=())
    runs = base.runs + tuple(spec.with_recipe(dropout=0.5) for spec in base.runs)
    runs += tuple(spec.model_copy(update={"repeat": 1}) for spec in base.runs if spec.head == "gap")
    points = {"flatten": -0.03, "gap": 0.0, "gmp": 0.02, "flatten, dropout 0.5": -0.04, "gap, dropout 0.5": 0.01}

    def effect(spec: RunSpec) -> Curves:
        more = points.get(spec.arm, 0.0)
        return curves(20 if "flatten" in spec.arm else 40, 0.1, 0.7 - more + 0.02 * wobble(spec.seed, 3))

    return evidence_of(experiment(seeds=6, family=(), runs=runs), effect)


def test_every_arm_is_compared_with_gap_and_a_repeated_run_differs_by_exactly_nothing() -> None:
    frame = arms_frame(controls())
    error = frame[frame["measure"] == "test_error"].set_index("arm")
    assert set(error.index) == {
        "flatten",
        "gmp",
        "flatten, dropout 0.5",
        "gap, dropout 0.5",
        "gmp, dropout 0.5",
        "gap, again",
    }
    assert error["estimate"].to_dict() == pytest.approx(
        {"flatten": -0.03, "gmp": 0.02, "flatten, dropout 0.5": -0.04, "gap, dropout 0.5": 0.01}
        | {"gmp, dropout 0.5": 0.0, "gap, again": 0.0}
    )
    assert (error["n"] == 6).all()
    again = error.loc["gap, again"]
    assert (again["low"], again["high"]) == (0.0, 0.0)
    steps = frame[frame["measure"] == "steps_to_0.9"].set_index("arm")
    assert steps.loc["flatten", "estimate"] == pytest.approx(0.5)


def test_the_arms_have_a_table_and_a_forest_and_no_ladder() -> None:
    evidence = controls()
    table = arms_table(evidence)
    row = next(row for row in table.shown if row[3] == "flatten" and row[2] == "test error")
    assert row[-6:-2][1].startswith("-3.00") or "-3.00" in row
    assert "arms" in {table.name for table in make_tables(evidence)}
    drawn = make_figures(evidence)
    assert "forest" in drawn
    assert "ladder" not in drawn
    assert b"gap, dropout 0.5" in drawn["forest"]["svg"]


def test_the_rungs_run_from_gap_to_flatten() -> None:
    arms = ("flatten", "ladder:2", "ladder:3", "gap", "flatten_tiled", "ladder_tiled:2")
    assert rungs(arms, "ladder", 4) == {1: "gap", 2: "ladder:2", 3: "ladder:3", 4: "flatten"}
    assert rungs(arms, "ladder_tiled", 4) == {1: "gap", 2: "ladder_tiled:2", 4: "flatten_tiled"}


def test_a_ladder_is_drawn_as_dose_and_response() -> None:
    heads = ("flatten", "ladder:2", "ladder:3", "gap", "flatten_tiled", "ladder_tiled:2")
    declared = experiment(seeds=3, heads=heads, family=())
    drawn = make_figures(evidence_of(declared, lambda spec: curves(20, 0.1, 0.7 + 0.01 * wobble(spec.seed, 3))))
    assert "ladder" in drawn
    assert "forest" not in drawn
    assert b"starts as gap" in drawn["ladder"]["svg"]


def by_train_images(least: float = -0.02) -> Evidence:
    """gap has 2 points more errors than flatten at 50 images, 2 fewer at 200: on a log scale they cross at 100."""
    base = experiment(seeds=8, family=())
    runs = tuple(
        spec.model_copy(update={"task": spec.task.model_copy(update={"train_images": n})})
        for n in (50, 200, 800)
        for spec in base.runs
    )

    def effect(spec: RunSpec) -> Curves:
        more = 0.02 if spec.task.train_images == 50 else least
        seed = 0.01 * wobble(spec.seed, 3)
        return curves(20, 0.1, 0.7 + seed - (more if spec.head == "gap" else 0.0))

    return evidence_of(experiment(seeds=8, family=(), runs=runs, axis="train_images"), effect)


def test_the_guide_says_how_much_remains_where_no_arm_overtakes_the_other() -> None:
    evidence = by_train_images(least=0.01)
    crossing = next(crossing for _, measure, crossing in crossover_rows(evidence) if measure == "test_error")
    assert say_crossover(evidence, "shared", "test_error", crossing) == (
        "From 50 to 800 training images no crossover: flatten has the lower test error throughout, gap - flatten"
        " +2.00 [+2.00, +2.00] points at the first and +1.00 [+1.00, +1.00] at the last"
    )


def test_a_crossover_is_read_off_between_the_sizes_trained() -> None:
    evidence = by_train_images()
    found = {measure: crossing for _, measure, crossing in crossover_rows(evidence)}
    assert (found["test_error"].estimate, found["test_error"].sign) == (pytest.approx(100), -1)
    assert found["overfit_final"].sign == 0  # equal throughout
    table = crossover_table(evidence)
    assert table.shown[0][2:4] == ["gap", "100"]
    assert "along_axis" in make_figures(evidence)
