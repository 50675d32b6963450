"""The ways of convolving a fleet: each is timed, the winner that pays enters the table, and the models read it."""

from pathlib import Path
from typing import Any

import pytest

from gapbench import stopwatch
from gapbench.grids import Grid
from gapbench.methods import fastest, time_convolutions, write_table
from gapbench.models import convolution
from gapbench.models.convolution import METHODS, choose_method, measured
from gapbench.spec import Backbone
from gapbench.timings import ConvolutionRow, Convolutions


def row(method: str, seconds: float, **fields: Any) -> ConvolutionRow:
    shape = {"px": 8, "c_in": 4, "c_out": 4, "batch": 2, "replicas": 8, "precision": "float32"}
    made = {"status": "ok", "calls_per_sample": 1, "samples_s": (seconds, seconds), "method": method}
    return ConvolutionRow.model_validate({**shape, **made, **fields})


def test_every_layer_and_method_is_timed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopwatch, "WARM_UP_S", 0.0)
    told: list[str] = []
    grid = Grid([6], [2], fleet=[2])
    result = time_convolutions(Backbone(width=2, stages=1), grid, 1, samples=2, progress=told.append)
    assert [(r.c_in, r.c_out, r.method) for r in result.rows] == [(c, 2, m) for c in (1, 2) for m in METHODS]
    assert {(r.status, r.replicas, r.px, len(r.samples_s)) for r in result.rows} == {("ok", 2, 6, 2)}
    assert told == ["2 × 6px, 1 to 2 channels, float32", "2 × 6px, 2 to 2 channels, float32"]


def test_a_method_must_pay_before_it_replaces_xla_s_own() -> None:
    assert fastest([row("grouped", 1.04), row("scan", 1.0)])[0]["method"] == "grouped"  # 4 % are not worth it
    assert fastest([row("grouped", 1.06), row("scan", 1.0), row("patches", 2.0)])[0]["method"] == "scan"
    full = row("grouped", 1.0, status="out_of_memory", reason="full", calls_per_sample=0, samples_s=())
    assert fastest([full, row("scan", 9.0)])[0]["method"] == "scan"
    assert fastest([full]) == []


def test_the_models_choose_what_the_table_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import jax

    monkeypatch.setattr(convolution, "TABLE", tmp_path / "convolution.json")
    measured.cache_clear()
    try:
        rows = (row("grouped", 2.0), row("patches", 1.0), row("grouped", 1.0, replicas=2), row("scan", 2.0, replicas=2))
        kind = jax.devices()[0].device_kind
        write_table(Convolutions(provenance={}, device_kind=kind, rows=rows))
        assert choose_method(8, 4, 4, 8, "float32") == "patches"
        assert choose_method(8, 4, 4, 2, "float32") == "grouped"
        again = (row("grouped", 1.0), row("patches", 2.0))
        write_table(Convolutions(provenance={}, device_kind=kind, rows=again))
        assert choose_method(8, 4, 4, 8, "float32") == "grouped"
        assert len(measured()[kind]) == 2  # the other shape stayed
    finally:
        measured.cache_clear()
