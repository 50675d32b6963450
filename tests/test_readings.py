"""Seven readings of overfit side by side: their signs, where they disagree, and the paragraph that follows."""

import numpy as np
from records_maker import by_head, curves, experiment, measured, sweep, wobble

from gapbench.analysis.pairs import compare_pairs
from gapbench.analysis.readings import conclude, describe_readings, label_readings, readings_frame
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
    measures = measured(declared, sweep(declared, effect))  # type: ignore[arg-type]
    losses = compare_pairs(measures, declared, "train_loss_final")
    return describe_readings(readings_frame(measures, declared), losses, declared)


def test_there_are_seven_readings_and_their_signs_are_those_of_the_intervals() -> None:
    frame = readings_frame(measured(DECLARED, sweep(DECLARED, WORSE)), DECLARED)
    assert list(frame["measure"]) == list(label_readings(DECLARED))
    assert len(frame) == 7
    assert frame.set_index("measure")["sign"].to_dict() == {**dict.fromkeys(frame["measure"], -1), "test_error": 1}
    assert frame["disagree"].all()


def test_readings_that_agree_are_not_marked() -> None:
    assert not readings_frame(measured(DECLARED, sweep(DECLARED, BETTER)), DECLARED)["disagree"].any()


def test_less_overfit_with_more_errors_is_called_bought() -> None:
    said = say(WORSE)
    assert "overfit at train loss 0.5: lower in 1, higher in 0" in said
    assert "test error: lower in 0, higher in 1" in said
    assert said.endswith("In 1 of 1 cells less overfit at matched train loss comes with a higher test error.")


def test_less_overfit_with_fewer_errors_is_called_regularising() -> None:
    assert say(BETTER).endswith("In 1 of 1 cells it overfits less at matched train loss and errs less: it regularises.")


def test_no_difference_is_called_none() -> None:
    assert say(SAME).endswith("at matched train loss, finds less overfit with gap in no cell.")


def test_less_overfit_at_the_last_step_alone_is_called_less_fitting_where_the_train_loss_is_higher() -> None:
    one, none = np.array([1]), np.array([0])
    said = conclude(none, -one, one, np.array([True]), "gap")
    assert said.startswith(
        "In 1 of the 1 cells with less overfit at the last step gap fits less, with a higher train loss"
    )
    assert said.endswith("finds less overfit with gap in no cell.")
    assert "fits less" not in conclude(none, -one, one, np.array([False]), "gap")
