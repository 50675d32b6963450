"""Figures for print and for the web: wide enough, of the records alone, and undated."""

import struct
from pathlib import Path
from xml.etree import ElementTree

import pytest
from records_maker import DECLARED, EFFECT, by_head, sweep, write_folder

from gapbench.analysis.evidence import load_evidence
from gapbench.report.figures import make_figures
from gapbench.report.page import CAPTIONS

AUDITS = {"maps", "gallery", "erasing", "sizes", "size_losses", "position"}  # drawn in test_claims_of_maps.py
FIGURES = sorted(set(CAPTIONS) - {"forest", "ladder", "signs"} - AUDITS)  # those of an experiment with two arms


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_wide_enough_and_tells_no_date_or_version(name: str, figures: dict[str, dict[str, bytes]]) -> None:
    png, svg = figures[name]["png"], figures[name]["svg"]
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", png[16:24])
    assert 800 <= width <= 1600
    assert width / 4 < height < width
    for mark in (b"tIME", b"Software", b"Creation Time"):
        assert mark not in png
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert not root.findall(".//{http://purl.org/dc/elements/1.1/}date")
    assert b"Matplotlib v" not in svg


def test_the_figures_of_other_records_are_others(figures: dict[str, dict[str, bytes]], tmp_path: Path) -> None:
    swapped = sweep(DECLARED, by_head(lambda s: EFFECT(DECLARED.runs[4 + s]), lambda s: EFFECT(DECLARED.runs[s])))
    other = make_figures(load_evidence(write_folder(tmp_path, DECLARED, swapped)))
    assert set(figures) == set(FIGURES)
    changed = {name for name in other if other[name]["svg"] != figures[name]["svg"]}
    assert changed == set(other) - {"gradients"}  # which were not swapped
    assert set(figures) - set(other) == {"throughput_ratio", "roofline"}  # nothing was timed
