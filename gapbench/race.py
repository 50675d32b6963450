"""What a race against other ways to train the same nets leaves: one JSON file, every sample in it. No JAX here.

The folder `rivals/` runs it (`make bench-rivals`); the library never imports a rival.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, model_validator

from gapbench.operations import Profile
from gapbench.records import load_json, write_fields
from gapbench.spec import Backbone, Declaration, PositiveInt, Precision, Recipe, Seed
from gapbench.timings import Positive

FILE = "rivals.json"
REFERENCE = "gapbench"  # the rival that the others are compared with


class Entry(Declaration):
    """One way to train the sweep: a rival, in so many processes of so many threads."""

    rival: str  # whose entries only the best counts of
    name: str  # of the rival and the way it was used
    processes: PositiveInt  # each on cores of its own
    threads: PositiveInt  # of each process, on as many cores
    precision: Precision = "float32"  # of activations and products
    tolerance: Positive | None = None  # its own, where the race's is not for its precision
    versions: dict[str, str] = {}  # of the packages it runs on
    status: Literal["ok", "not_installed", "failed"]
    reason: str = ""  # why the status is not ok
    loss_difference: Annotated[float, Field(ge=0)] | None = None  # |a - b| / |b| to the reference, the largest
    steps: PositiveInt  # of each cell in a sample
    samples_s: tuple[Positive, ...] = ()  # seconds in which every cell was trained so far, a sample a round

    @model_validator(mode="after")
    def _is_whole(self) -> "Entry":
        ok = self.status == "ok"
        if not ok == bool(self.samples_s) == (self.loss_difference is not None) == (not self.reason):
            raise ValueError("samples_s, loss_difference and no reason: given when the status is ok, and only then")
        return self


class Race(Declaration):
    """Entries that trained the same cells, interleaved in rounds: in order, and back in the next round."""

    schema_: Literal[2] = Field(default=2, alias="schema")
    provenance: dict[str, Any]  # of the process that timed; each entry has the versions of its own
    dataset: str
    heads: tuple[str, ...]
    sizes_px: tuple[PositiveInt, ...]
    seeds: tuple[Seed, ...]
    backbone: Backbone
    recipe: Recipe  # at a learning rate at which rounding differences do not grow
    flops_per_image: Positive  # of a training step in closed form, three forward passes; mean over heads and sizes
    checked_steps: PositiveInt  # whose losses were compared before anything was timed
    tolerance: Positive  # above which loss_difference is an error, unless the entry has one of its own
    peaks: tuple[tuple[Positive, ...], ...]  # FLOP/s of a float32 matmul, a row a round: each core, all at once
    profiles: tuple[Profile, ...] = ()  # of the reference's step, one a net: both workers ran, the first was read
    entries: tuple[Entry, ...]

    @model_validator(mode="after")
    def _is_whole(self) -> "Race":
        timed = [entry for entry in self.entries if entry.status == "ok"]
        if REFERENCE not in [entry.rival for entry in timed]:
            raise ValueError(f"entries: {REFERENCE} is not among those that were timed")
        if len({len(self.peaks), *(len(entry.samples_s) for entry in timed)}) > 1:
            raise ValueError("entries and peaks: a round has one sample of each")
        for entry in timed:
            if (entry.loss_difference or 0.0) > (limit := entry.tolerance or self.tolerance):
                raise ValueError(f"entries: loss_difference of {entry.name} is above {limit}: not the same thing")
        return self

    def images_per_s(self, entry: Entry) -> Float[np.ndarray, "N"]:
        """Of every sample: heads × sizes × seeds × steps × batch / seconds."""
        cells = len(self.heads) * len(self.sizes_px) * len(self.seeds)
        return cells * entry.steps * self.recipe.batch / np.asarray(entry.samples_s, dtype=np.float64)

    @property
    def core_peak(self) -> float:
        """FLOP/s of one core (or the accelerator) in a float32 matmul, where all together reached the most."""
        return float(np.mean(np.asarray(self.peaks), axis=1).max())

    @property
    def limit_images_per_s(self) -> float:
        """What all cores together would train if every operation ran at the best matmul rate they reached."""
        return self.core_peak * len(self.peaks[0]) / self.flops_per_image

    def ratios(self, entry: Entry) -> Float[np.ndarray, "N"]:
        """Images per second of the reference in the entry's precision over the entry's, round by round.

        A drift of the machine cancels. Empty where no reference of that precision was timed.
        """
        like = (REFERENCE, "ok", entry.precision)
        timed = (other for other in self.entries if (other.rival, other.status, other.precision) == like)
        reference = next(timed, None)
        return self.images_per_s(reference) / self.images_per_s(entry) if reference else np.empty(0)


def write_race(out: Path, race: Race) -> Path:
    """Write `rivals.json`, an entry and a profile a line; a rerun there replaces it."""
    write_fields(out / FILE, race.model_dump(mode="json", by_alias=True), by_row=["profiles", "entries"])
    return out / FILE


def load_race(out: Path) -> Race:
    """Raises UserError that names the file and the mend."""
    return load_json(Race, out / FILE, "delete it and run make bench-rivals again")
