"""Reads the images of experiments at every size into the cache, a process a core: what a sweep would do one by one.

    python rivals/images.py accelerator_fashion_mnist accelerator_cifar10_jpeg

A data set that is not here is named, with the mend, and leaves the others to be read; exit 1 then.
"""

import sys

from joblib import Parallel, delayed

from gapbench.data import load
from gapbench.spec import UserError
from gapbench.sweep import find_experiment


def read(dataset: str, px: int) -> str:
    """Into the cache; why not, in one line."""
    try:
        load(dataset, px)
    except UserError as error:
        return str(error)
    return ""


def main(names: list[str]) -> int:
    """Every data set and size once; a line each that could not be read."""
    tasks = dict.fromkeys(spec.task for name in names for spec in find_experiment(name)[1].runs)
    wanted = dict.fromkeys((task.dataset, task.px) for task in tasks)
    failures = dict.fromkeys(filter(None, Parallel(n_jobs=-1)(delayed(read)(*one) for one in wanted)))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
