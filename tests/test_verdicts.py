"""One verdict over everything published: the tuned regime decides, a factor flips it, and undecided says how many."""

from collections.abc import Callable

import pytest
from records_maker import Curves, curves, evidence_of, experiment, wobble

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.verdicts import judge_claim, judge_published
from gapbench.data import canvas
from gapbench.data.canvas import parse
from gapbench.report.guide import guide, has_places, say_places
from gapbench.report.overall import overall
from gapbench.report.readme import cells, verdicts
from gapbench.spec import RunSpec

Effect = Callable[[RunSpec], Curves]
TUNED = {"tuned": {"flatten": 1e-2, "gap": 5e-2}, "tuned_on": "learning_rate"}  # flatten's is the shared one


def steps(shared: float, tuned: float, at_12: float | None = None) -> Effect:
    """gap needs so many times flatten's 20 to 30 steps, by regime, and another number at 12 px."""

    def effect(spec: RunSpec) -> Curves:
        own = 20 + 10 * (spec.seed % 2)
        if spec.head == "flatten":
            return curves(own)
        times = shared if spec.recipe.peak_lr == 1e-2 else tuned
        if at_12 is not None and spec.task.px == 12 and spec.recipe.peak_lr != 1e-2:
            times = at_12
        return curves(round(own * times / 10) * 10)

    return effect


def headline(effect: Effect, name: str = "headline", sizes: tuple[int, ...] = (8, 12)) -> Evidence:
    return evidence_of(experiment(seeds=8, sizes=sizes, family=("C5",), **TUNED), effect, name)


def test_the_tuned_regime_decides() -> None:
    verdict = judge_claim("C5", [headline(steps(shared=2, tuned=3))])
    assert (verdict.outcome, verdict.why) == ("supported", "2 supported of 2 tuned cells of digits")


def test_a_claim_without_a_tuned_regime_is_undecided() -> None:
    shared = evidence_of(experiment(seeds=8, family=("C5",)), steps(2, 2), "shared")
    assert judge_claim("C5", [shared]) == ("C5", "undecided", "no tuned regime is published yet")


def test_a_verdict_that_the_shared_rate_flips_depends_on_the_recipe() -> None:
    verdict = judge_claim("C5", [headline(steps(shared=2, tuned=1))])
    assert verdict.outcome == "depends"
    assert verdict.why.endswith("2 refuted of 2 tuned cells of digits, but not with the shared learning rate")


def test_sizes_that_contradict_each_other_are_named() -> None:
    verdict = judge_claim("C5", [headline(steps(shared=2, tuned=2, at_12=1))])
    assert verdict.outcome == "depends"
    assert verdict.why.startswith("on the size: 1 supported and 1 refuted of 2")


def test_data_sets_that_contradict_each_other_are_named() -> None:
    one = headline(steps(2, 2), sizes=(8,))
    other = headline(steps(1, 1), sizes=(8,))
    moved = [card.__class__(**{**card.__dict__, "dataset": "others"}) for card in other.cards]
    other = Evidence(**{**other.__dict__, "cards": moved})
    assert judge_claim("C5", [one, other]).why.startswith("on the data set: ")


def test_experiments_that_contradict_each_other_on_the_same_images_differ_in_the_net() -> None:
    verdict = judge_claim("C5", [headline(steps(2, 2), sizes=(8,)), headline(steps(1, 1), sizes=(8,))])
    assert verdict.why.startswith("on the net and its recipe: ")


def test_another_experiments_factor_flips_a_verdict_and_is_named() -> None:
    declared = experiment(seeds=8, family=("C5",))
    sgd = tuple(spec.with_recipe(optimizer="sgd") for spec in declared.runs)
    recipes = evidence_of(
        experiment(seeds=8, family=("C5",), runs=declared.runs + sgd),
        lambda spec: curves(40 if spec.head == "gap" and spec.recipe.optimizer == "adamw" else 20),
        "recipes",
    )
    verdict = judge_claim("C5", [headline(steps(2, 2)), recipes])
    assert verdict.outcome == "depends"
    assert verdict.why.endswith("but not with optimizer sgd")


def test_an_undecided_verdict_says_how_many_pairs_would_decide() -> None:
    def effect(spec: RunSpec) -> Curves:  # gap's steps scatter around 1.1 times flatten's: [0.9, 1.3] holds 1.05
        return curves(20) if spec.head == "flatten" else curves((10, 20, 30, 20, 30, 20, 10, 40)[spec.seed])

    verdict = judge_claim("C5", [headline(effect, sizes=(8,))])
    assert verdict.outcome == "undecided"
    assert verdict.why.startswith("1 undecided of 1 tuned cells of digits; open: digits, 8 px (about ")
    pairs = int(verdict.why.split("about ")[1].split()[0])
    card = next(c for c in headline(effect, sizes=(8,)).cards if c.claim == "C5" and c.regime == "tuned" and c.px)
    # n · (reach / distance)²: the end that faces 1.05 is the lower one, as the estimate is above it
    assert pairs == pytest.approx(8 * ((card.estimate - card.low) / (card.estimate - 1.05)) ** 2, abs=1)
    assert f"about {pairs} pairs would decide" in card.note


def whole() -> list[Evidence]:
    def effect(spec: RunSpec) -> Curves:
        error = 0.01 * wobble(spec.seed, 3 if spec.head == "gap" else 7)
        steps = 10 * (spec.seed % 2)
        if spec.head == "flatten":
            return curves(20 + steps, 0.2, 0.75 + error)
        return curves(60 + 3 * steps, 0.1, 0.65 + error)

    return [evidence_of(experiment(seeds=10, sizes=(8, 12), **TUNED), effect, "headline")]


def test_the_guide_tells_places_of_an_object_apart() -> None:
    names = [canvas("digits", place=place, clutter="none") for place in ("anywhere", "middle")]
    runs = [
        spec.model_copy(update={"task": spec.task.model_copy(update={"dataset": name, "px": 12})})
        for spec in experiment(seeds=4).runs
        for name in names
    ]

    def effect(spec: RunSpec) -> Curves:
        worse = {"anywhere": -0.04, "middle": 0.02}[parse(spec.task.dataset).place] if spec.head == "gap" else 0.0
        return curves(20 if spec.head == "flatten" else 40, 0.0, 0.7 - worse)

    told = say_places(evidence_of(experiment(runs=runs, **TUNED), effect))
    assert "anywhere alone -4.00 [-4.00, -4.00] points, " in told
    assert "in the middle alone +2.00 [+2.00, +2.00] points, " in told
    assert not has_places(headline(steps(2, 2)))


def test_the_readme_leads_with_one_line_a_claim_and_a_guide_linked_to_the_claims() -> None:
    found = whole()
    assert [verdict.claim for verdict in judge_published(found)] == ["C1", "C2", "C5"]
    assert "| **C5** GAP converges more slowly | ✓ **supported** | 2 supported of 2 tuned cells" in verdicts(found)
    lines = guide(found).splitlines()
    assert [line[-4:] for line in lines] == ["(C1)", "(C2)", "(C5)"]
    assert "head 50 instead of 650" in lines[0] or "head 50 instead of" in lines[0]
    assert "**Do not average to generalise better**" in lines[1]
    assert "the steps that GAP needs to the same accuracy are 3.00 times flatten's" in lines[2]
    assert cells(found).splitlines()[0] == "| claim | headline, shared | headline, tuned |"


def test_the_overall_effect_keeps_the_pairs_and_counts_every_cell_alike() -> None:
    rows = dict(line.strip("| ").split(" | ", 1) for line in overall(whole()).splitlines()[2:])
    assert rows["steps to the target (cut off at the last step), ratio"].startswith(
        "3.00 [3.00, 3.00], n=20 in 2 cells | 3.00"
    )
    assert rows["overfit at the last step, points"].startswith("-10.00 [")
