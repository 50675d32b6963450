"""Strict by default: no silent promotion, warnings are errors, shapes checked (see pyproject's addopts).

And what several files ask for: a made-up sweep with all that a report makes of it, drawn once, and a refused command.
Imports stand in the fixtures: the process that hands out the tests does not wait for JAX, nor for gapbench's checks.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gapbench.analysis.evidence import Evidence
    from gapbench.report.table import Table

# Before JAX is imported. As the sweep's workers do, one thread, so that results do not depend on the core count. And
# hundreds of programs that each run for milliseconds: what LLVM would make faster takes longer to compile.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0")


def pytest_configure(config: pytest.Config) -> None:
    """Data and compiled programs of all tests and notebooks, and of what they start: in one folder, not the user's."""
    if not hasattr(config, "workerinput"):  # the first process, which the others inherit it from
        folder = tempfile.TemporaryDirectory(prefix="gapbench-")
        os.environ["GAPBENCH_CACHE"] = folder.name
        config.add_cleanup(folder.cleanup)


@pytest.fixture(scope="session", autouse=True)
def strict() -> None:
    import jax

    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], str]:
    """Runs a command that must exit with 2; returns the one line that it prints, on stderr."""
    from gapbench import cli

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
    from records_maker import DECLARED, EFFECT, sweep, throughput, write_folder

    timed = throughput(DECLARED, [1.2, 1.3, 1.4, 1.25], [1.1, 1.2, 1.3, 1.2])
    return write_folder(tmp_path_factory.mktemp("published") / "made_up", DECLARED, sweep(DECLARED, EFFECT), timed)


@pytest.fixture
def sweep_copy(sweep_folder: Path, tmp_path: Path) -> Path:
    """The same, under the same name, to be changed."""
    return shutil.copytree(sweep_folder, tmp_path / sweep_folder.name)


@pytest.fixture(scope="session")
def evidence(sweep_folder: Path) -> Evidence:
    from gapbench.analysis.evidence import load_evidence

    return load_evidence(sweep_folder)


@pytest.fixture(scope="session")
def tables(evidence: Evidence) -> dict[str, Table]:
    from gapbench.report.tables import make_tables

    return {table.name: table for table in make_tables(evidence)}


@pytest.fixture(scope="session")
def figures(evidence: Evidence) -> dict[str, dict[str, bytes]]:
    from gapbench.report.figures import make_figures

    return make_figures(evidence)


@pytest.fixture
def drawn_once(figures: dict[str, dict[str, bytes]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures and resamples are slow, and tested apart: a report gets the drawn figures, and fewer samples."""
    from gapbench import report
    from gapbench.analysis import stats

    monkeypatch.setattr(report, "make_figures", lambda _: figures)
    monkeypatch.setattr(stats, "RESAMPLES", 999)


@pytest.fixture
def sketched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn, but not laid out and encoded, which takes most of the time: an `svg` is their texts alone."""
    from matplotlib.text import Text

    from gapbench.report import drawing

    def texts(figure: Figure) -> dict[str, bytes]:
        found = (text.get_text() for text in figure.findobj(Text) if text.get_visible())
        return {"png": b"", "svg": "\n".join(filter(None, found)).encode()}

    monkeypatch.setattr(drawing, "encode", texts)


@pytest.fixture(scope="session")
def report_files(evidence: Evidence, figures: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """The whole report of the sweep, with the figures as they are drawn."""
    from gapbench import report

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "make_figures", lambda _: figures)
        return report.build_files(evidence)
