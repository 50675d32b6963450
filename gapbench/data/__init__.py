"""Images at a size, split by a seed; and what `gapbench data` says and does about where they come from."""

from gapbench.data.canvas import canvas
from gapbench.data.loading import check, load
from gapbench.data.own import register_dataset
from gapbench.data.sources import add, cache_folder, describe, fetch
from gapbench.data.splits import Dataset, Split, batches, split

__all__ = [
    "Dataset",
    "Split",
    "add",
    "batches",
    "cache_folder",
    "canvas",
    "check",
    "describe",
    "fetch",
    "load",
    "register_dataset",
    "split",
]
