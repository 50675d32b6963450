"""The page: one file that needs no network, shows everything, and says what is missing."""

import base64
import html
import re
from pathlib import Path

import pytest
from records_maker import DECLARED, EFFECT, record, sweep, write_folder

from gapbench.analysis.claims import CLAIMS
from gapbench.analysis.evidence import Evidence, load_evidence
from gapbench.records import Record
from gapbench.report.page import render_page
from gapbench.report.table import Table
from gapbench.report.tables import make_tables


@pytest.fixture
def page(report_files: dict[str, bytes]) -> str:
    return report_files["index.html"].decode()


def test_the_page_needs_no_network_and_fits_a_phone(page: str, figures: dict[str, dict[str, bytes]]) -> None:
    assert '<meta name="viewport" content="width=device-width' in page
    assert "://" not in page
    links = re.findall(r"""(?:src|href|url|import)\s*[=(]\s*["']?([^"'\s>]+)""", page)
    assert len(links) >= len(figures)
    assert all(link.startswith(("data:image/", "#", "tables/", "figures/", "claims.json")) for link in links)
    for encoded in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page):
        svg = base64.b64decode(encoded).decode()
        outside = {url for url in re.findall(r"https?://[\w./]+", svg) if "w3.org" not in url and "purl.org" not in url}
        assert not {url for url in outside if f'href="{url}' in svg or f"url({url}" in svg}


def test_the_page_shows_every_claim_table_and_figure(
    page: str, evidence: Evidence, tables: dict[str, Table], figures: dict[str, dict[str, bytes]]
) -> None:
    judged = {claim: CLAIMS[claim] for claim in ("C1", "C2", "C5", "C6")}
    assert {card.claim for card in evidence.cards} == set(judged)
    for claim, declared in judged.items():
        whole = next(card for card in evidence.cards if card.claim == claim and card.px is None)
        section = page.split(f'id="{claim}"')[1].split("</section>")[0]
        assert html.escape(declared.title) in section
        assert whole.outcome in section.split("</h3>")[0]
        assert html.escape(declared.rule) in section
        assert "8 px" in section
        assert "12 px" in section
    for table in tables.values():
        shown = page.split(f'id="table-{table.name}"')[1].split("</table>")[0]
        for text in [*table.columns, *(cell for row in table.shown for cell in row)]:
            assert f">{html.escape(text)}</" in shown.replace("&#39;", "&#x27;").replace("&#34;", "&quot;")
    for name in figures:
        assert f'id="{name}"' in page
    assert '<p class="warn">' not in page


def incomplete() -> list[Record]:
    """Of 16 runs two were not run, one failed and one diverged."""
    records = sweep(DECLARED, EFFECT)
    records[5] = record(DECLARED.runs[5], status="failed", upto=-1)
    records[14] = record(DECLARED.runs[14], status="diverged", upto=40)
    return [made for i, made in enumerate(records) if i not in (2, 9)]


def test_an_incomplete_sweep_is_said_in_the_captions_and_on_the_page(
    figures: dict[str, dict[str, bytes]], tmp_path: Path
) -> None:
    evidence = load_evidence(write_folder(tmp_path, DECLARED, incomplete()))
    said = "INCOMPLETE: 2 of 16 runs have no record. Not ok: 1 diverged, 1 failed."
    tables = make_tables(evidence)
    assert [table.name for table in tables if said in table.caption] == [
        *("claims", "overfitting", "convergence", "gradients", "power")
    ]
    warning = render_page(evidence, tables, figures).split('<p class="warn">')[1].split("</p>")[0]
    assert warning == said
    counts = next(table for table in tables if table.name == "overfitting").raw
    # at 8 px the pairs of seeds 1 and 2 are broken; at 12 px that of seed 1, and that of seed 2 at the last step
    errors = counts[counts["measure"] == "test_error"]
    assert errors[["px", "n", "pairs_left_out"]].to_numpy().tolist() == [[8, 2, 2], [12, 2, 2]]
    assert "throughput" not in {table.name for table in tables}  # nothing was timed
