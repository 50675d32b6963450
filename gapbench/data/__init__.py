"""Images at a size, split by a seed; and what `gapbench data` says and does about where they come from."""

from gapbench.data.own import register_dataset
from gapbench.data.sizing import check, load
from gapbench.data.sources import add, cache_folder, describe, fetch
from gapbench.data.splits import Dataset, Split, batches, split

__all__ = [
    "Dataset",
    "Split",
    "add",
    "batches",
    "cache_folder",
    "check",
    "describe",
    "fetch",
    "load",
    "register_dataset",
    "split",
]
