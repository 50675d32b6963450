"""A reproduction is held against the published records: bits, intervals, verdicts, and what is missing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records_maker import PROVENANCE, by_head, curves, experiment, record, sweep, wobble, write_folder

from gapbench import cli
from gapbench.analysis import stats
from gapbench.analysis.compare import Comparison, comparable, compare_folders
from gapbench.records import Fleet, Record
from gapbench.spec import UserError

DECLARED = experiment(seeds=8)
RUNS = [spec.run_id for spec in DECLARED.runs]
EFFECT = by_head(
    lambda s: curves(20 + 10 * (s % 2), 0.2 + 0.01 * wobble(s, 7), 0.70 + 0.01 * wobble(s, 1)),
    lambda s: curves(50 + 10 * (s % 2), 0.1 + 0.01 * wobble(s, 3), 0.75 + 0.01 * wobble(s, 9)),
)
ELSEWHERE = {"provenance": {**PROVENANCE, "platform": "gpu", "device": "test accelerator"}}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The effects are clear, so that few resamples find them."""
    monkeypatch.setattr(stats, "RESAMPLES", 999)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "made_up", DECLARED, sweep(DECLARED, EFFECT))


def compared(published: Path, tmp_path: Path, records: list[Record]) -> Comparison:
    return compare_folders(published, write_folder(tmp_path / "made_up", DECLARED, records))


def with_worse_gap(rise: float, **fields: Any) -> list[Record]:
    """The published runs, but the test accuracy of gap is lower by `rise`, with the same overfit."""

    def effect(spec: Any) -> Any:
        run = EFFECT(spec)
        return {**run, "test": [a - rise for a in run["test"]]} if spec.head == "gap" else run

    return sweep(DECLARED, effect, **fields)


def test_identical_folders_hold(published: Path, tmp_path: Path) -> None:
    result = compared(published, tmp_path, sweep(DECLARED, EFFECT))
    assert result.holds
    assert (result.shared, result.comparable, result.identical) == (16, 16, 16)
    # overfit at two losses, at the last step, at best validation and over training, test error, two targets
    assert result.cells == 8
    assert result.claims == 6  # C1, C2 and C5, at 8 px and over all sizes


def test_what_another_commit_or_python_made_must_still_be_the_same_bits(published: Path, tmp_path: Path) -> None:
    source = {**PROVENANCE, "commit": "another", "dirty": True, "python": "3.11.0"}
    result = compared(published, tmp_path, sweep(DECLARED, EFFECT, provenance=source))
    assert (result.holds, result.comparable, result.identical) == (True, 16, 16)


def test_one_changed_loss_under_the_same_provenance_is_named(published: Path, tmp_path: Path) -> None:
    records = sweep(DECLARED, EFFECT)
    run = EFFECT(DECLARED.runs[3])
    records[3] = record(DECLARED.runs[3], {**run, "train_loss": [run["train_loss"][0] + 1e-12, *run["train_loss"][1:]]})
    result = compared(published, tmp_path, records)
    assert result.different == (RUNS[3],)
    assert (result.identical, result.outside, result.changed, result.holds) == (15, (), (), False)


@pytest.mark.parametrize("name", ["packages", "platform", "device", "precision", "xla_flags"])
def test_other_versions_processors_or_flags_promise_no_bits(name: str) -> None:
    here = record(DECLARED.runs[0])
    assert comparable(here, record(DECLARED.runs[0], provenance={**PROVENANCE, "commit": "another"}))
    assert not comparable(here, record(DECLARED.runs[0], provenance={**PROVENANCE, name: "another"}))


def test_a_fleet_of_another_width_or_none_promises_no_bits() -> None:
    alone, fleet = record(DECLARED.runs[0]), Fleet(replicas=8, width=4, devices=1, resumed=False)
    records = {
        name: record(DECLARED.runs[0], fleet=fleet.model_copy(update=change))
        for name, change in {
            "same": {},
            "later": {"replicas": 4, "resumed": True},
            "wider": {"width": 8},
            "spread": {"devices": 4},
        }.items()
    }
    assert comparable(records["same"], records["later"])
    assert not any(comparable(records["same"], other) for other in (alone, records["wider"], records["spread"]))
    assert records["same"].result == alone.result  # the driver is no number


def test_under_another_device_the_same_change_is_allowed(published: Path, tmp_path: Path) -> None:
    records = sweep(DECLARED, EFFECT)
    run = EFFECT(DECLARED.runs[3])
    changed = {**run, "train_loss": [run["train_loss"][0] + 1e-12, *run["train_loss"][1:]]}
    records[3] = record(DECLARED.runs[3], changed, **ELSEWHERE)
    result = compared(published, tmp_path, records)
    assert (result.holds, result.comparable, result.identical, result.different) == (True, 15, 15, ())


def test_under_another_device_an_estimate_outside_the_published_interval_is_named(
    published: Path, tmp_path: Path
) -> None:
    result = compared(published, tmp_path, with_worse_gap(0.04, **ELSEWHERE))
    assert (result.comparable, result.different, result.holds) == (0, (), False)
    named = {line.split(" at 8 px, shared: ")[0] for line in result.outside}
    # gap's overfit rises by 4 points too, as its train accuracy stays
    assert named == {
        "test_error",
        "overfit_at_0.5",
        "overfit_at_1",
        "overfit_final",
        "overfit_best_val",
        "overfit_area",
    }
    error = next(line for line in result.outside if line.startswith("test_error"))
    assert "is outside [-0.0" in error


def test_under_another_device_a_small_change_is_inside_the_published_interval(published: Path, tmp_path: Path) -> None:
    result = compared(published, tmp_path, with_worse_gap(0.001, **ELSEWHERE))
    assert (result.comparable, result.outside, result.holds) == (0, (), True)


def test_a_changed_verdict_is_named(published: Path, tmp_path: Path) -> None:
    equally_fast = by_head(
        lambda s: EFFECT(DECLARED.runs[s]), lambda s: {**EFFECT(DECLARED.runs[8 + s]), "val": curves(20)["val"]}
    )
    result = compared(published, tmp_path, sweep(DECLARED, equally_fast, **ELSEWHERE))
    assert result.changed == (
        "C5 at 8 px, shared regime: published supported, here refuted",
        "C5 at all sizes, shared regime: published supported, here refuted",
    )
    assert not result.holds


def test_missing_runs_are_named_and_the_rest_is_compared(published: Path, tmp_path: Path) -> None:
    records = [made for i, made in enumerate(sweep(DECLARED, EFFECT)) if i not in (0, 9)]
    result = compared(published, tmp_path, records)
    assert result.missing == (RUNS[0], RUNS[9])
    assert (result.shared, result.identical, result.holds) == (14, 14, False)


def test_folders_without_a_run_in_common_are_refused(published: Path, tmp_path: Path) -> None:
    other = experiment(seeds=1, sizes=(12,))
    folder = write_folder(tmp_path / "made_up", other, sweep(other))
    with pytest.raises(UserError, match="share no run"):
        compare_folders(published, folder)


def test_the_command_exits_0_when_all_holds_and_1_when_not(
    published: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    same = write_folder(tmp_path / "same" / "made_up", DECLARED, sweep(DECLARED, EFFECT))
    assert cli.main(["compare", str(same), "--published", str(published)]) == 0
    told = capsys.readouterr()
    assert "16 of 16 published runs are here" in told.out
    assert "16 of 16 made with the same versions and processor are identical" in told.out
    assert told.out.endswith("the published result holds here\n")

    worse = write_folder(tmp_path / "worse" / "made_up", DECLARED, with_worse_gap(0.1)[1:])
    assert cli.main(["compare", str(worse), "--published", str(published)]) == 1
    told = capsys.readouterr()
    assert RUNS[0] in told.out  # missing
    assert RUNS[8] in told.out  # different
    assert "test_error at 8 px" in told.out
    assert "C2 at 8 px" in told.out
    assert "does NOT hold" in told.out


def test_the_command_refuses_a_folder_that_holds_no_experiment(
    published: Path, tmp_path: Path, refused: Callable[[list[str]], str]
) -> None:
    told = refused(["compare", str(tmp_path), "--published", str(published)])
    assert "experiment.json is missing" in told
