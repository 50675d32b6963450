"""An unfair pair, injected in every way there is, is caught: refused with the reason, or left out and said to be."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from records_maker import DECLARED, EFFECT, experiment, record, sweep, write_folder

from gapbench.analysis.evidence import load_evidence
from gapbench.report.setting import completeness
from gapbench.spec import RunSpec, UserError

Unfair = Callable[[RunSpec], RunSpec]
OTHER_RATE: Unfair = lambda spec: spec.with_recipe(peak_lr=0.5)  # noqa: E731
MORE_STEPS: Unfair = lambda spec: spec.with_recipe(steps=200)  # noqa: E731
OTHER_IMAGES: Unfair = lambda spec: spec.model_copy(  # noqa: E731
    update={"task": spec.task.model_copy(update={"train_images": 90})}
)
TREATMENTS = pytest.mark.parametrize("change", [OTHER_RATE, MORE_STEPS, OTHER_IMAGES], ids=["rate", "steps", "images"])


def forge(path: Path, **changes: Any) -> None:
    """Change the fields of a record's file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@TREATMENTS
def test_a_declaration_with_an_unfair_pair_is_refused_with_the_field(change: Unfair) -> None:
    runs = [change(spec) if (spec.head, spec.seed) == ("gap", 0) else spec for spec in experiment(seeds=2).runs]
    with pytest.raises(ValueError, match=r"has no other half: .* another (peak_lr|steps|train_images);"):
        experiment(seeds=2, runs=tuple(runs))


@TREATMENTS
def test_a_record_that_was_trained_otherwise_and_keeps_its_name_is_refused(change: Unfair, sweep_copy: Path) -> None:
    spec = next(spec for spec in DECLARED.runs if spec.head == "gap")
    path = sweep_copy / "records" / f"{spec.run_id}.json"
    forge(path, spec=change(spec).model_dump(mode="json"))
    with pytest.raises(UserError, match="does not belong to the spec"):
        load_evidence(sweep_copy)


@TREATMENTS
def test_a_record_that_was_trained_otherwise_under_its_own_name_is_no_half_of_a_pair(
    change: Unfair, tmp_path: Path
) -> None:
    records = sweep(DECLARED, EFFECT)
    spec = records[-1].spec
    other = record(change(spec), EFFECT(spec), status="diverged", upto=50)
    evidence = load_evidence(write_folder(tmp_path, DECLARED, [*records[:-1], other]))
    assert other.run_id not in set(evidence.measures["run_id"])
    assert completeness(evidence) == f"INCOMPLETE: 1 of {len(DECLARED.runs)} runs have no record."


@pytest.mark.parametrize("name", ["data", "subset", "backbone", "order"])
def test_a_half_that_saw_another_subset_order_or_start_is_refused_by_its_hash(name: str, sweep_copy: Path) -> None:
    spec = next(spec for spec in DECLARED.runs if spec.head == "gap")
    path = sweep_copy / "records" / f"{spec.run_id}.json"
    forge(path, pairing=json.loads(path.read_text())["pairing"] | {name: "another"})
    with pytest.raises(UserError, match=f"are no pair: {name} differ"):
        load_evidence(sweep_copy)
