"""The folk claims about global average pooling, each with an estimand, a margin and a rule fixed before the runs.

A card is computed from records (cards.py); no outcome is written by hand. The margin is the smallest effect worth
choosing a head for, and the rule asks on which side of it the 95 % interval lies:

    supported   wholly beyond the margin on the claimed side (and Holm-adjusted p < 0.05 where there is a test)
    refuted     wholly short of the margin: an effect worth having is excluded
    undecided   the interval holds the margin
    depends     (over several cells) supported in one, refuted in another
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gapbench.analysis.stats import ALPHA

TESTED = ("C2", "C3", "C5")  # claims whose support needs a p value beside the interval
TRAINED = ("C2", "C3", "C4", "C5")  # claims about trained nets, and so of a regime
IN_POINTS = ("C2", "C3", "C4")  # differences of shares; the others are ratios


@dataclass(frozen=True)
class Claim:
    """What is said, and how it is judged."""

    title: str
    estimand: str
    margin: float
    rule: str


CLAIMS = {
    "C1": Claim(
        "GAP needs fewer parameters, whatever the input size",
        "parameters of the whole net, gap / flatten, exact",
        1.0,
        "supported if the ratio is below 1 and the gap head has the same size at every input size",
    ),
    "C2": Claim(
        "GAP suppresses overfitting",
        "overfit (train - test accuracy) at matched train loss, gap - flatten, paired by seed",
        -0.005,
        "supported if overfit falls by more than half a point and test error does not rise by half a point;"
        " refuted if either is excluded; a half with pairs that have no value answers neither way",
    ),
    "C3": Claim(
        "GAP's maps show where the class is, better than flatten's own",
        "pointing game on canvases: share of images whose strongest evidence for their class (gradient times input of"
        " the last maps, of either head) lies in the object's box, gap - flatten, paired by seed",
        0.05,
        "supported if gap's evidence hits more often by over 5 points than flatten's, and than the best of three"
        " baselines (the centre, the net's initial weights, the image's brightness); refuted if either is excluded",
    ),
    "C4": Claim(
        "GAP frees the input size",
        "test accuracy, mean over sizes that were never trained at, minus that at the trained size; gap as it is",
        -0.05,
        "it runs: supported if every size was answered without a change to the net; it works: supported if less than 5"
        " points are lost, refuted if more are",
    ),
    "C5": Claim(
        "GAP converges more slowly",
        "steps to the target validation accuracy (restricted mean), gap / flatten, paired by seed",
        1.05,
        "supported if gap needs more than 5 % more steps, refuted if that is excluded; a run that never gets there"
        " counts with the last step, and must not favour the answer: for support every run of flatten gets there, for"
        " refutation every run of gap",
    ),
    "C6": Claim(
        "GAP is cheaper to run",
        "training images per second, gap / flatten, interleaved on one device, median over the blocks of all processes",
        1.05,
        "supported if gap is more than 5 % faster; refuted if that is excluded",
    ),
}
ERROR_MARGIN = 0.005  # by which C2 lets test error differ before it counts as worse


@dataclass(frozen=True)
class Card:
    """One claim in one cell (or over all: px is None), with everything a reader needs to judge the verdict."""

    claim: str
    title: str
    dataset: str
    px: int | None
    factors: str  # what else the cell is, such as `norm batch`
    part: str  # of a claim with several: of C4 `runs`, `works resized`, `works padded`
    regime: str  # of the recipes; any: the claim needs no training
    estimand: str
    margin: float
    rule: str
    answers: tuple[str, ...]  # yes, no or unknown to each part of the rule
    outcome: str
    estimate: float
    low: float
    high: float
    n: int  # pairs of seeds; interleaved timing blocks of all processes for C6; of nets for C1
    n_declared: int
    p: float  # exact sign-flip, two-sided; nan where the claim has no test
    p_adjusted: float  # Holm over the experiment's family
    note: str
    pairs_to_decide: int | None = None  # about how many would, where it is undecided (`power.pairs_to_decide`)

    def show(self, value: float) -> str:
        """A number of this card in its claim's unit: percentage points for a difference, or a ratio."""
        if not math.isfinite(value):
            return "–"
        return points(value) if self.claim in IN_POINTS else f"{value:.3g}"

    @property
    def where(self) -> str:
        """The cell inside its data set and regime, and the part of the claim: `28 px, norm batch`."""
        size = "all sizes" if self.px is None else f"{self.px} px"
        return ", ".join(filter(None, (size, self.factors, self.part)))

    @property
    def interval(self) -> str:
        """`[low, high]`, or that the numbers are exact."""
        if self.claim == "C1" and math.isfinite(self.low):
            return "exact"
        return f"[{self.show(self.low)}, {self.show(self.high)}]" if math.isfinite(self.low) else "–"

    @property
    def pairs(self) -> str:
        """n, and how many were declared where some are missing."""
        return str(self.n) if self.n == self.n_declared else f"{self.n} of {self.n_declared}"


def points(fraction: float) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * fraction:+.2f}"


def beyond(low: float, high: float, margin: float, above: bool) -> str:
    """yes, no or unknown: does the interval lie wholly beyond the margin, on the claimed side?"""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "unknown"
    if above:
        return "yes" if low > margin else "no" if high < margin else "unknown"
    return "yes" if high < margin else "no" if low > margin else "unknown"


def decide(answers: Sequence[str], p_adjusted: float | None = None) -> str:
    """The outcome when every answer must be yes; `p_adjusted` is None for a claim without a test."""
    if "no" in answers:
        return "refuted"
    significant = p_adjusted is None or p_adjusted < ALPHA
    return "supported" if significant and all(answer == "yes" for answer in answers) else "undecided"


def overall(outcomes: Sequence[str]) -> str:
    """One outcome over cells: theirs if they agree, `depends` if they contradict each other, else `undecided`."""
    found = set(outcomes)
    if len(found) == 1:
        return found.pop()
    return "depends" if {"supported", "refuted"} <= found or "depends" in found else "undecided"
