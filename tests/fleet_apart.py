"""What must run in a process of its own: a fleet on four devices, and one that is killed.

python tests/fleet_apart.py shard OUT.npz | kill CHECKPOINTS
"""

import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

STEPS = 12


def specs_of(
    hypers: Any = ((0.01, 0.3, 0.0), (0.02, 0.1, 0.5)), seeds: Any = (0, 1, 2), head: str = "gap", **recipe: Any
) -> list[Any]:
    """Three seeds by two triples of learning rate, dropout rate and weight decay: one program."""
    from gapbench.spec import Backbone, Recipe, RunSpec, Task

    fixed = {"batch": 8, "steps": STEPS, "eval_every": 5, "schedule": "constant"} | recipe
    return [
        RunSpec(
            task=Task(dataset="digits", px=8, train_images=32, val_images=20, curve_images=60),
            backbone=Backbone(width=4, stages=1),
            head=head,
            recipe=Recipe(peak_lr=lr, dropout=dropout, weight_decay=decay, **fixed),
            seed=seed,
        )
        for seed in seeds
        for lr, dropout, decay in hypers
    ]


def shard(out: Path) -> None:
    """Six replicas of each head over four devices: curves, parameters and the collectives of the compiled program."""
    import jax
    import numpy as np

    from gapbench import replicas
    from gapbench.data import load
    from gapbench.fleet import train_fleet

    assert len(jax.devices()) == 4
    text, compile_width = [], replicas.compile_width

    def spy(*arguments: Any) -> Any:
        program = compile_width(*arguments)
        text.append(program.call.as_text())
        return program

    replicas.compile_width = spy
    collectives, saved = "all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter", dict[str, Any]()
    for head in ("gap", "gap_conv"):
        ((*crew,),) = train_fleet(specs_of(head=head), load("digits", 8))
        saved[f"{head}-collectives"] = re.findall(rf" ({collectives})(?:-start)?\(", text.pop())
        saved[f"{head}-width"], saved[f"{head}-devices"] = crew[0][2].width, crew[0][2].devices
        for i, (_, run, _) in enumerate(crew):
            saved[f"{head}-{i}-loss"] = np.asarray(run.curve["loss"])
            saved |= {f"{head}-{i}-{j}": leaf for j, leaf in enumerate(jax.tree.leaves(run.state))}
    np.savez(out, **saved)


def kill(checkpoints: Path) -> None:
    """The same fleet, which ends with a kill in its second segment, after a checkpoint a call."""
    from gapbench.data import load
    from gapbench.fleet import Voice, train_fleet

    def tick(step: int, steps: int, runs: int) -> None:
        if step == 10:
            os.kill(os.getpid(), signal.SIGKILL)

    list(train_fleet(specs_of(), load("digits", 8), checkpoints=checkpoints, checkpoint_s=0, voice=Voice(tick=tick)))


if __name__ == "__main__":
    {"shard": shard, "kill": kill}[sys.argv[1]](Path(sys.argv[2]))
