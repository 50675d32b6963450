"""Verdicts follow from records by the rule alone: clear effects, none, too little data, and the effect reversed."""

import math
import re
from collections.abc import Callable

import pytest
from records_maker import Curves, by_head, cards_of, curves, experiment, record, sweep, throughput, wobble

from gapbench.analysis.claims import CLAIMS, Card, beyond, decide, overall
from gapbench.experiment import Experiment
from gapbench.records import Record

DECLARED = experiment(seeds=8)
NAN = float("nan")


@pytest.mark.parametrize(
    ("low", "high", "margin", "above", "answer"),
    [
        (1.10, 1.30, 1.05, True, "yes"),
        (1.00, 1.30, 1.05, True, "unknown"),
        (1.05, 1.30, 1.05, True, "unknown"),  # touching the margin is not beyond it
        (0.90, 1.05, 1.05, True, "unknown"),
        (0.90, 1.04, 1.05, True, "no"),
        (-0.03, -0.01, -0.005, False, "yes"),
        (-0.03, 0.01, -0.005, False, "unknown"),
        (-0.004, 0.01, -0.005, False, "no"),
        (NAN, NAN, 1.05, True, "unknown"),
        (1.10, math.inf, 1.05, True, "unknown"),
    ],
)
def test_an_interval_is_beyond_short_of_or_across_the_margin(
    low: float, high: float, margin: float, above: bool, answer: str
) -> None:
    assert beyond(low, high, margin, above) == answer


@pytest.mark.parametrize(
    ("answers", "p_adjusted", "outcome"),
    [
        (("yes", "yes"), 0.01, "supported"),
        (("yes", "yes"), None, "supported"),  # a claim without a test
        (("yes", "yes"), 0.05, "undecided"),
        (("yes", "yes"), NAN, "undecided"),
        (("yes", "unknown"), 0.01, "undecided"),
        (("yes", "no"), 0.01, "refuted"),
        (("no", "unknown"), 0.90, "refuted"),  # an interval short of the margin needs no small p
    ],
)
def test_every_answer_must_be_yes_and_one_no_refutes(
    answers: tuple[str, ...], p_adjusted: float | None, outcome: str
) -> None:
    assert decide(answers, p_adjusted) == outcome


@pytest.mark.parametrize(
    ("outcomes", "whole"),
    [
        (["supported", "supported"], "supported"),
        (["refuted"], "refuted"),
        (["undecided", "undecided"], "undecided"),
        (["supported", "refuted"], "depends"),
        (["supported", "undecided", "refuted"], "depends"),
        (["supported", "undecided"], "undecided"),
        (["refuted", "undecided"], "undecided"),
        (["depends", "supported"], "depends"),
    ],
)
def test_cells_that_contradict_each_other_depend(outcomes: list[str], whole: str) -> None:
    assert overall(outcomes) == whole
    assert overall(outcomes[::-1]) == whole


def c2(flatten_overfit: float, gap_overfit: float, flatten_test: float, gap_test: float, spread: float = 0.01) -> Card:
    """The card of C2 where both heads vary by up to `spread` over seeds, each in its own order."""
    effect = by_head(
        lambda s: curves(20, flatten_overfit + spread * wobble(s, 7), flatten_test + spread * wobble(s, 1)),
        lambda s: curves(20, gap_overfit + spread * wobble(s, 3), gap_test + spread * wobble(s, 9)),
    )
    return cards_of(DECLARED, sweep(DECLARED, effect))["C2", 8]


def test_c2_is_supported_by_less_overfit_without_more_errors() -> None:
    card = c2(flatten_overfit=0.2, gap_overfit=0.1, flatten_test=0.7, gap_test=0.75)
    assert (card.outcome, card.answers, card.n, card.n_declared) == ("supported", ("yes", "yes"), 8, 8)
    gap = sum(0.1 + 0.01 * wobble(s, 3) for s in range(8)) / 8
    flatten = sum(0.2 + 0.01 * wobble(s, 7) for s in range(8)) / 8
    assert card.estimate == pytest.approx(gap - flatten)
    assert card.low < card.estimate < card.high < CLAIMS["C2"].margin
    assert card.p == 2 / 2**8


def test_c2_is_refuted_by_equal_overfit() -> None:
    card = c2(flatten_overfit=0.1, gap_overfit=0.1, flatten_test=0.7, gap_test=0.75, spread=0.001)
    assert (card.outcome, card.answers) == ("refuted", ("no", "yes"))


def test_c2_is_refuted_when_less_overfit_is_bought_with_more_errors() -> None:
    card = c2(flatten_overfit=0.2, gap_overfit=0.1, flatten_test=0.7, gap_test=0.65)
    assert (card.outcome, card.answers) == ("refuted", ("yes", "no"))


def test_c2_is_undecided_when_seeds_differ_by_more_than_the_heads() -> None:
    card = c2(flatten_overfit=0.15, gap_overfit=0.145, flatten_test=0.6, gap_test=0.6, spread=0.1)
    assert (card.outcome, card.answers) == ("undecided", ("unknown", "unknown"))


def test_c2_turns_from_supported_to_refuted_when_the_heads_are_swapped() -> None:
    assert c2(flatten_overfit=0.1, gap_overfit=0.2, flatten_test=0.75, gap_test=0.7).outcome == "refuted"


def test_c2_says_what_happened_to_the_test_error() -> None:
    card = c2(flatten_overfit=0.2, gap_overfit=0.1, flatten_test=0.7, gap_test=0.75, spread=0.0)
    assert card.note.startswith("less overfit: yes; test error no worse: yes (-5.00 [-5.00, -5.00] points)")


def test_a_sign_that_differs_at_the_last_step_is_noted() -> None:
    # train loss 0.5 is at step 75: there gap overfits less by 0.1, at the last step more by 0.1
    early, late = [0.8] * 9 + [0.95] * 2, [0.9] * 9 + [0.85] * 2
    effect = by_head(lambda _: curves(train=late), lambda _: curves(train=early))
    card = cards_of(DECLARED, sweep(DECLARED, effect))["C2", 8]
    assert card.estimate == pytest.approx(-0.1)
    assert "at the last step overfit has the opposite sign (+10.00 points)" in card.note
    same = cards_of(DECLARED, sweep(DECLARED, by_head(lambda _: curves(train=early), lambda _: curves(train=early))))
    assert "opposite sign" not in same["C2", 8].note


Reach = Callable[[int], int | None]


def c5(flatten: Reach, gap: Reach, declared: Experiment = DECLARED) -> Card:
    """The card of C5 where the heads reach the target at these steps."""
    effect = by_head(lambda s: curves(flatten(s)), lambda s: curves(gap(s)))
    return cards_of(declared, sweep(declared, effect))["C5", 8]


def test_c5_is_supported_by_a_head_that_needs_twice_the_steps() -> None:
    card = c5(flatten=lambda s: 20 + 10 * (s % 2), gap=lambda s: 40 + 20 * (s % 3))
    assert (card.outcome, card.answers, card.n) == ("supported", ("yes",), 8)
    # flatten 4·20 + 4·30 = 200; gap, s % 3 = 0 1 2 0 1 2 0 1: 3·40 + 3·60 + 2·80 = 460
    assert card.estimate == pytest.approx(460 / 200)
    assert card.note == "target 0.9 reached by flatten 8 of 8, gap 8 of 8"


def test_c5_is_refuted_by_equal_speed_and_by_a_faster_gap() -> None:
    equal = c5(flatten=lambda s: 30 + 10 * (s % 2), gap=lambda s: 30 + 10 * (s % 2))
    assert (equal.outcome, equal.estimate, equal.p) == ("refuted", 1.0, 1.0)
    faster = c5(flatten=lambda s: 40 + 20 * (s % 3), gap=lambda s: 20 + 10 * (s % 2))
    assert (faster.outcome, faster.estimate) == ("refuted", pytest.approx(200 / 460))


def test_c5_is_undecided_when_the_interval_is_wide() -> None:
    card = c5(flatten=lambda s: 10 * (1 + s), gap=lambda s: 10 * (1 + (s + 4) % 8))
    assert (card.outcome, card.answers) == ("undecided", ("unknown",))
    assert card.low < 1 < CLAIMS["C5"].margin < card.high


def test_c5_counts_runs_that_never_arrive_with_the_last_step() -> None:
    card = c5(flatten=lambda _: 20, gap=lambda s: 40 if s < 4 else None)
    # (4·40 + 4·100) / 8 = 70 steps; dropping them would give 40 / 20 = 2
    assert (card.estimate, card.n, card.n_declared) == (pytest.approx(70 / 20), 8, 8)
    assert card.outcome == "supported"
    assert card.note == "target 0.9 reached by flatten 8 of 8, gap 4 of 8"


def test_c5_with_fewer_pairs_than_the_exact_test_needs_is_undecided_however_large_the_effect() -> None:
    declared = experiment(seeds=5)  # the smallest p of 5 pairs is 2/32 = 0.0625
    card = c5(flatten=lambda s: 10 + 10 * (s % 2), gap=lambda s: 60 + 10 * (s % 3), declared=declared)
    assert (card.answers, card.p, card.outcome) == (("unknown",), pytest.approx(0.0625), "undecided")


def test_c1_is_exact_and_the_same_head_at_every_size() -> None:
    declared = experiment(seeds=1, sizes=(8, 12))
    cards = cards_of(declared, sweep(declared))
    # convolutions 40 + 148 = 188; gap (4 + 1)·10 = 50; flatten (4·4·4 + 1)·10 = 650 and (6·6·4 + 1)·10 = 1450
    assert cards["C1", 8].estimate == pytest.approx((188 + 50) / (188 + 650), rel=1e-14)
    assert cards["C1", 12].estimate == pytest.approx((188 + 50) / (188 + 1450), rel=1e-14)
    assert set(re.findall(r"[\d,]*\d", cards["C1", 12].note)) == {"1,450", "50", "1,638", "238"}
    assert cards["C1", None].outcome == cards["C1", 8].outcome == "supported"
    assert math.isnan(cards["C1", 8].p)


def test_c1_is_refuted_by_a_head_that_grows_with_the_input() -> None:
    declared = experiment(seeds=1, sizes=(8, 12), pair=("gap", "flatten"))
    card = cards_of(declared, sweep(declared))["C1", 8]
    assert (card.outcome, card.answers) == ("refuted", ("no", "no"))


@pytest.mark.parametrize(
    ("ratios", "outcome"),
    [([1.2] * 8, "supported"), ([1.0] * 8, "refuted"), ([0.5] * 8, "refuted"), ([0.9, 1.3] * 4, "undecided")],
)
def test_c6_is_judged_by_the_paired_ratio_of_training_speed(ratios: list[float], outcome: str) -> None:
    card = cards_of(DECLARED, sweep(DECLARED), throughput(DECLARED, ratios))["C6", 8]
    assert (card.outcome, card.n) == (outcome, 8)
    assert card.estimate == pytest.approx(sum(ratios) / 8)
    assert card.note.startswith(
        "CPU: test processor, batch 16; one process alone: the interval is too narrow; inference "
    )


def test_c6_is_undecided_where_processes_disagree_however_many_blocks_each_has() -> None:
    processes = ([1.2] * 40, [1.2] * 40, [1.0] * 40)
    card = cards_of(DECLARED, sweep(DECLARED), throughput(DECLARED, *processes))["C6", 8]
    assert (card.outcome, card.n) == ("undecided", 120)
    assert (card.low, card.estimate, card.high) == (pytest.approx(1.0), pytest.approx(1.2), pytest.approx(1.2))
    assert card.note.startswith("CPU: test processor, batch 16; 3 processes; inference ")


def test_c6_takes_neither_fleets_nor_another_precision_for_the_nets_that_were_trained() -> None:
    for cell in ({"fleet": 8}, {"precision": "bfloat16"}):
        cards = cards_of(DECLARED, sweep(DECLARED), throughput(DECLARED, [1.2] * 8, cell=cell))
        assert not any(claim == "C6" for claim, _ in cards)


def test_c6_does_not_take_inference_for_training() -> None:
    cards = cards_of(DECLARED, sweep(DECLARED), throughput(DECLARED, [1.2] * 8, phases=["infer"]))
    assert not any(claim == "C6" for claim, _ in cards)


SLOWER_AND_LESS_OVERFIT = by_head(
    lambda s: curves(20 + 10 * (s % 2), 0.2 + 0.01 * wobble(s, 7), 0.70),
    lambda s: curves(50 + 10 * (s % 2), 0.1 + 0.01 * wobble(s, 3), 0.75),
)


@pytest.mark.parametrize(
    ("family", "adjusted"),
    [
        (("C2", "C5"), {"C2": 2 * 2 / 2**8, "C5": 2 * 2 / 2**8}),  # both p are 2/2^8: twice the smallest
        (("C5",), {"C5": 2 / 2**8}),  # C2 is not judged
    ],
)
def test_holm_runs_over_the_declared_family_alone(family: tuple[str, ...], adjusted: dict[str, float]) -> None:
    declared = experiment(seeds=8, family=family)
    cards = cards_of(declared, sweep(declared, SLOWER_AND_LESS_OVERFIT))
    found = {claim: card.p_adjusted for (claim, px), card in cards.items() if px and claim in ("C2", "C5")}
    assert found == pytest.approx(adjusted, rel=1e-12)


def test_holm_runs_over_every_size() -> None:
    declared = experiment(seeds=8, sizes=(8, 12))
    cards = cards_of(declared, sweep(declared, SLOWER_AND_LESS_OVERFIT))
    assert cards["C5", 8].p_adjusted == cards["C2", 12].p_adjusted == pytest.approx(4 * 2 / 2**8)  # four equal p
    assert cards["C5", None].outcome == "supported"
    assert cards["C5", None].note == "8 px supported; 12 px supported"
    assert math.isnan(cards["C5", None].estimate)  # no pooled number


def test_a_claim_that_holds_at_one_size_and_fails_at_another_depends() -> None:
    declared = experiment(seeds=8, sizes=(8, 12))
    slow = by_head(lambda s: curves(20 + 10 * (s % 2)), lambda s: curves(50 + 10 * (s % 2)))
    fast = by_head(lambda s: curves(50 + 10 * (s % 2)), lambda s: curves(20 + 10 * (s % 2)))
    records = [record(spec, (slow if spec.task.px == 8 else fast)(spec)) for spec in declared.runs]
    cards = cards_of(declared, records)
    assert [cards["C5", px].outcome for px in (8, 12, None)] == ["supported", "refuted", "depends"]


def incomplete(effect: Callable[..., Curves]) -> list[Record]:
    """Every record but those of two pairs: one was never run, of one the gap half failed."""
    records = sweep(DECLARED, effect)
    records[15] = record(DECLARED.runs[15], status="failed", upto=-1)
    return [made for i, made in enumerate(records) if i not in (3, 11)]


def test_an_incomplete_sweep_is_noted_on_its_cards() -> None:
    cards = cards_of(DECLARED, incomplete(SLOWER_AND_LESS_OVERFIT))
    for claim in ("C2", "C5"):
        assert (cards[claim, 8].n, cards[claim, 8].n_declared) == (6, 8)
        assert cards[claim, 8].note.startswith("2 of 8 pairs have no value. ")
        assert (cards[claim, None].n, cards[claim, None].n_declared) == (6, 8)
    whole = cards_of(DECLARED, sweep(DECLARED, SLOWER_AND_LESS_OVERFIT))
    assert "no value" not in whole["C2", 8].note


def test_a_sweep_with_only_one_head_decides_nothing() -> None:
    cards = cards_of(DECLARED, [record(spec) for spec in DECLARED.runs if spec.head == "flatten"])
    assert {key: card.outcome for key, card in cards.items()} == dict.fromkeys(
        [("C2", 8), ("C5", 8), ("C2", None), ("C5", None)], "undecided"
    )
    assert (cards["C5", 8].n, cards["C5", 8].n_declared) == (0, 8)


def test_the_claims_speak_of_the_arms_that_are_compared() -> None:
    ours = experiment(seeds=2, heads=("gap", "gmp"), pair=("gap", "gmp"))
    card = cards_of(ours, sweep(ours))["C1", 8]
    assert card.title == "gmp needs fewer parameters, whatever the input size"
    assert card.estimand == "parameters of the whole net, gmp / gap, exact"
    assert card.rule == "supported if the ratio is below 1 and the gmp head has the same size at every input size"
    ours = experiment(seeds=2)
    plain = cards_of(ours, sweep(ours))["C1", 8]
    assert (plain.title, plain.estimand, plain.rule) == (CLAIMS["C1"].title, CLAIMS["C1"].estimand, CLAIMS["C1"].rule)
