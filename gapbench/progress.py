"""What a person sees while a sweep runs: done, failed and left, the time left, and the latest accuracies."""

import contextlib
import time
from collections.abc import Callable, Iterator

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from gapbench.records import Record
from gapbench.sweep import News

LOG_S = 30.0
LATEST = 6  # rows of the table under the bar


@contextlib.contextmanager
def watch_cells(total: int) -> Iterator[Callable[[str], None]]:
    """A bar over `total` cells; the function it yields is called with a text before each of them."""
    with Progress(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as progress:
        bar = progress.add_task("", total=total, completed=-1)
        yield lambda text: progress.update(bar, advance=1, description=text)
        progress.update(bar, completed=total)


def watch_sweep(sweep: Iterator[Record | News], total: int, already: int, console: Console) -> list[Record]:
    """Draw the sweep until it ends, and return what it trained.

    A log without a terminal gets one line a record, and one of a fleet's news every `LOG_S` seconds.
    """
    done: list[Record] = []
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=False),
        console=console,
    )
    bar = progress.add_task("compiling", total=total)
    told = time.monotonic()
    with Live(progress, console=console, refresh_per_second=4) as live:
        for record in sweep:
            if isinstance(record, News):
                if record.note:
                    console.print(record.note, highlight=False, soft_wrap=True)
                    continue
                progress.update(bar, completed=len(done) + record.share, description=record.text)
                if not console.is_terminal and time.monotonic() - told >= LOG_S:
                    console.print(record.text, highlight=False, soft_wrap=True)
                    told = time.monotonic()
                continue
            done.append(record)
            failed = sum(r.status != "ok" for r in done)
            progress.update(bar, completed=len(done), description=f"done {already + len(done)}, failed {failed}")
            live.update(Group(progress, latest_table(done[-LATEST:])))
            if not console.is_terminal:
                console.print(f"{len(done)}/{total} {describe(record)}", highlight=False, soft_wrap=True)
    return done


def describe(record: Record) -> str:
    """One line: what was trained and how well it did."""
    if record.status != "ok":
        return f"{record.run_id} {record.status}: {record.reason}"
    scores = ", ".join(f"{name} {score.accuracy:.1%}" for name, score in record.final.items())
    return f"{record.run_id} {scores}"


def latest_table(records: list[Record]) -> Table:
    """The latest runs and their accuracies."""
    table = Table("run", "status", "train", "val", "test", box=None, header_style="dim")
    for record in records:
        scores = [f"{record.final[name].accuracy:.1%}" if record.final else "" for name in ("train", "val", "test")]
        table.add_row(record.run_id, record.status, *scores)
    return table
