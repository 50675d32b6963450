"""The README's one number a measure, over all data sets and sizes: a stratified bootstrap that keeps the pairs."""

from collections.abc import Sequence

import numpy as np

from gapbench.analysis.evidence import Evidence
from gapbench.analysis.pairs import cells_by_regime, paired_group
from gapbench.analysis.stats import Interval
from gapbench.analysis.strata import stratified_interval
from gapbench.analysis.verdicts import is_headline, on_canvases
from gapbench.report.arms import Measure
from gapbench.report.table import number, signed_points, with_interval

MEASURES = (  # `level` and `target` are each experiment's own primary ones
    Measure("test_error", "test error, points"),
    Measure("overfit_at_{level:g}", "overfit at matched train loss, points"),
    Measure("overfit_final", "overfit at the last step, points"),
    Measure("steps_to_{target:g}", "steps to the target (cut off at the last step), ratio", ratio=True),
)


def overall_interval(found: Sequence[Evidence], measure: Measure, regime: str) -> tuple[Interval, int]:
    """gap against flatten over the headline experiments, every cell alike, and how many cells there are."""
    groups = list[tuple[np.ndarray, np.ndarray]]()
    for evidence in filter(is_headline, found):
        experiment = evidence.experiment
        name = measure.name.format(level=experiment.train_losses[0], target=experiment.targets[0])
        if own := cells_by_regime(evidence.measures, experiment).get(regime):
            groups.append(paired_group(evidence.measures, own, experiment.pair, name))
    references, treatments = [group[0] for group in groups], [group[1] for group in groups]
    return stratified_interval(references, treatments, measure.ratio), sum(map(len, references))


def overall(found: Sequence[Evidence]) -> str:
    """One row a measure, a column a regime; apart for canvases, where an object may stand anywhere."""
    lines = ["| gap against flatten, over all data sets and sizes | shared regime | tuned regime |", "|---|---|---|"]
    anywhere = [evidence for evidence in found if on_canvases(evidence)]
    images = [evidence for evidence in found if not on_canvases(evidence)]
    for place, group in (("", images), (" on canvases", anywhere)):
        for measure in MEASURES if any(map(is_headline, group)) else ():
            show = number if measure.ratio else signed_points
            texts = []
            for regime in ("shared", "tuned"):
                interval, strata = overall_interval(group, measure, regime)
                told = with_interval(interval.estimate, interval.low, interval.high, show)
                texts.append(f"{told}, n={interval.n} in {strata} cells")
            name, *unit = measure.title.rsplit(", ", 1)
            lines.append(f"| {', '.join([name + place, *unit])} | {' | '.join(texts)} |")
    return "\n".join(lines) + "\n"
