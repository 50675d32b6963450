"""One process of one rival: pins itself, loads, then answers a JSON line on stdout for each on stdin until that ends.

    python rivals/serve.py torch_rival:compile FOLDER --cores 0,1 --cells 14px-gap-s0,14px-gap-s1

`{"train": 20, "watch": true}` trains every cell from its initial weights and answers with its losses. gapbench's also
measures its core or accelerator (`{"peak": true}`), and on a core profiles a step of each net
(`{"profile": true}`). A process that waits computes nothing.
"""

import argparse
import importlib
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any


def set_threads(cores: set[int]) -> None:
    """Before JAX or PyTorch is imported: these cores, and as many threads."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    os.environ |= {f"{library}_NUM_THREADS": str(len(cores)) for library in ("OMP", "OPENBLAS", "MKL")}
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no pool of compilers that stays


def main() -> None:
    """Answer until stdin ends; whatever goes wrong is an answer too, and the last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rival", help="a file of this folder, and after a colon which of its ways")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cores", required=True)
    parser.add_argument("--cells", required=True)
    given = parser.parse_args()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what a library prints must not look like an answer
    try:
        set_threads({int(core) for core in given.cores.split(",")})
        name, *way = given.rival.split(":")
        rival: Any = importlib.import_module(name)
        from cell import group_seeds, read_cell

        groups = group_seeds(read_cell(given.folder, cell) for cell in given.cells.split(","))
        trains = [(group, rival.load(group, *way)) for group in groups]
        print(json.dumps({package: importlib.metadata.version(package) for package in rival.PACKAGES}), file=answers)
        for line in sys.stdin:
            command = json.loads(line)
            answer: Any = {}
            if "peak" in command:
                answer = rival.measure_peak()
            elif "profile" in command:
                own = getattr(rival, "profile", None)
                answer = [own(group[0]) for group in groups] if own else []
            else:
                for group, train in trains:
                    losses = train(command["train"], command["watch"])
                    answer |= {cell.name: own for cell, own in zip(group, losses.tolist(), strict=True)}
            print(json.dumps(answer), file=answers)
    except Exception as error:
        first = str(error).strip().partition("\n")[0]
        print(json.dumps({"error": f"{type(error).__name__}: {first}"}), file=answers)
        raise


if __name__ == "__main__":
    main()
