"""Strict by default: no silent promotion, warnings are errors, shapes checked (see pyproject's addopts).

And what several files ask for: a made-up sweep with all that a report makes of it, drawn once, and a refused command.
"""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

# Before JAX is imported. As the sweep's workers do, one thread, so that results do not depend on the core count. And
# hundreds of programs that each run for milliseconds: what LLVM would make faster takes longer to compile.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0")

import jax
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from records_maker import DECLARED, EFFECT, sweep, throughput, write_folder

from gapbench import cli, report
from gapbench.analysis import stats
from gapbench.analysis.evidence import Evidence, load_evidence
from gapbench.report import drawing
from gapbench.report.figures import make_figures
from gapbench.report.table import Table
from gapbench.report.tables import make_tables

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that must exit with 2; returns the one line that it prints, on stderr."""

    def run(arguments: list[str]) -> str:
        capsys.readouterr()
        assert cli.main(arguments) == 2
        told = capsys.readouterr()
        assert told.out == ""
        assert told.err.startswith("gapbench: ")
        assert told.err.count("\n") == 1
        return told.err

    return run


@pytest.fixture(scope="session")
def sweep_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole sweep, and its timing; nothing is written there."""
    timed = throughput(DECLARED, [1.2, 1.3, 1.4, 1.25], [1.1, 1.2, 1.3, 1.2])
    return write_folder(tmp_path_factory.mktemp("published") / "made_up", DECLARED, sweep(DECLARED, EFFECT), timed)


@pytest.fixture
def sweep_copy(sweep_folder: Path, tmp_path: Path) -> Path:
    """The same, under the same name, to be changed."""
    return shutil.copytree(sweep_folder, tmp_path / sweep_folder.name)


@pytest.fixture(scope="session")
def evidence(sweep_folder: Path) -> Evidence:
    return load_evidence(sweep_folder)


@pytest.fixture(scope="session")
def tables(evidence: Evidence) -> dict[str, Table]:
    return {table.name: table for table in make_tables(evidence)}


@pytest.fixture(scope="session")
def figures(evidence: Evidence) -> dict[str, dict[str, bytes]]:
    return make_figures(evidence)


@pytest.fixture
def drawn_once(figures: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and resamples are slow, and tested apart: a report gets the drawn figures, and fewer samples."""
    monkeypatch.setattr(report, "make_figures", lambda _: figures)
    monkeypatch.setattr(stats, "RESAMPLES", 999)


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, but not laid out and encoded, which takes most of the time: an `svg` is their texts alone."""

    def texts(figure: Figure) -> dict[str, bytes]:
        found = (text.get_text() for text in figure.findobj(Text) if text.get_visible())
        return {"png": b"", "svg": "\n".join(filter(None, found)).encode()}

    monkeypatch.setattr(drawing, "encode", texts)


@pytest.fixture(scope="session")
def report_files(sweep_folder: Path) -> dict[str, bytes]:
    return report.make_report(sweep_folder)[1]
