"""Seven readings of overfit side by side: their signs, where they disagree, and the paragraph that follows."""

from records_maker import by_head, curves, experiment, measured, sweep, wobble

from gapbench.analysis.readings import describe_readings, label_readings, readings_frame
from gapbench.experiment import Experiment

DECLARED = experiment(seeds=8, train_losses=(0.5, 1.0, 1.5))
WORSE = by_head(
    lambda s: curves(20, 0.20 + 0.01 * wobble(s, 7), 0.75 + 0.01 * wobble(s, 1)),
    lambda s: curves(20, 0.10 + 0.01 * wobble(s, 3), 0.65 + 0.01 * wobble(s, 9)),
)
BETTER = by_head(
    lambda s: curves(20, 0.20 + 0.01 * wobble(s, 7), 0.70 + 0.01 * wobble(s, 1)),
    lambda s: curves(20, 0.10 + 0.01 * wobble(s, 3), 0.80 + 0.01 * wobble(s, 9)),
)
SAME = by_head(
    lambda s: curves(20, 0.2 + 0.01 * wobble(s, 7), 0.7 + 0.01 * wobble(s, 1)),
    lambda s: curves(20, 0.2 + 0.01 * wobble(s, 3), 0.7 + 0.01 * wobble(s, 9)),
)


def say(effect: object, declared: Experiment = DECLARED) -> str:
    frame = readings_frame(measured(declared, sweep(declared, effect)), declared)  # type: ignore[arg-type]
    return describe_readings(frame, declared)


def test_there_are_seven_readings_and_their_signs_are_those_of_the_intervals() -> None:
    frame = readings_frame(measured(DECLARED, sweep(DECLARED, WORSE)), DECLARED)
    assert list(frame["measure"]) == list(label_readings(DECLARED))
    assert len(frame) == 7
    assert frame.set_index("measure")["sign"].to_dict() == {**dict.fromkeys(frame["measure"], -1), "test_error": 1}
    assert frame["disagree"].all()


def test_readings_that_agree_are_not_marked() -> None:
    assert not readings_frame(measured(DECLARED, sweep(DECLARED, BETTER)), DECLARED)["disagree"].any()


def test_less_overfit_with_more_errors_is_called_less_fitting() -> None:
    said = say(WORSE)
    assert "overfit at train loss 0.5: lower in 1, higher in 0" in said
    assert "test error: lower in 0, higher in 1" in said
    assert said.endswith("fits less, not of one that generalises better.")


def test_less_overfit_with_fewer_errors_is_called_regularising() -> None:
    assert say(BETTER).endswith("lower too: there it regularises.")


def test_no_difference_is_called_none() -> None:
    assert say(SAME).endswith("No reading finds less overfit with gap in any cell.")
