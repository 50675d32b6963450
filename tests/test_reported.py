"""A source's numbers beside ours."""

import pytest
from records_maker import curves, evidence_of, experiment, wobble

from gapbench.experiment import Experiment, Reported
from gapbench.report.reported import reported_table
from gapbench.report.tables import make_tables
from gapbench.spec import RunSpec, UserError, validate

REPORTED = Reported(source="Somebody", differs="Much.", test_error={"flatten": 0.3, "gap": 0.2})


def declare(reported: Reported | None = REPORTED) -> Experiment:
    return experiment(seeds=8).model_copy(update={"reported": reported})


def effect(spec: RunSpec) -> dict[int, dict[str, tuple[float, float]]]:
    error = 0.01 * wobble(spec.seed, 3 if spec.head == "gap" else 7)
    return curves(60, 0.1, (0.6 if spec.head == "gap" else 0.7) + error)


def test_each_arm_stands_beside_the_source_s() -> None:
    table = reported_table(evidence_of(declare(), effect))
    heading = list(table.columns)
    assert heading[6] == "test error, Somebody"
    first, second = table.shown[0], table.shown[-1]
    assert (first[2], first[6], first[7]) == ("flatten", "30.00 %", "+10.00")
    assert (second[2], second[6], second[7]) == ("gap", "20.00 %", "–")


def test_a_table_without_a_source_is_not_made() -> None:
    evidence = evidence_of(declare(None), effect)
    assert "reported" not in {table.name for table in make_tables(evidence)}


def test_an_arm_that_is_not_run_is_refused() -> None:
    odd = Reported(source="Somebody", differs="Much.", test_error={"gem": 0.3})
    with pytest.raises(UserError, match="reported: no run is the arm gem"):
        validate(Experiment, {**dict(experiment(seeds=2)), "reported": odd}, "here")
