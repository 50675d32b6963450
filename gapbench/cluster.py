"""Several hosts as one: which of its processes this is, as the launcher tells, and JAX's own start of a cluster.

Every host runs the same command on one shared folder; process 0 alone holds the folder and writes.
"""

import functools
import os

LAUNCHERS = {  # the variable with the number of processes, and the one with this process's own number
    "SLURM_STEP_NUM_TASKS": "SLURM_PROCID",
    "OMPI_COMM_WORLD_SIZE": "OMPI_COMM_WORLD_RANK",
    "TPU_WORKER_HOSTNAMES": "TPU_WORKER_ID",
}


def launched_as() -> tuple[int, int] | None:
    """This process's number and the number of processes; None where no launcher tells. Without JAX."""
    for count, number in LAUNCHERS.items():
        if count in os.environ and number in os.environ:
            told = os.environ[count]
            return int(os.environ[number]), int(told) if told.isdigit() else len(told.split(","))
    return None


def is_follower() -> bool:
    """Whether another process of the cluster writes for this one."""
    place = launched_as()
    return place is not None and place[0] > 0


@functools.cache
def initialize_cluster() -> bool:
    """Join the cluster that JAX detects (Slurm, Open MPI, Cloud TPU, Kubernetes), once and before any device is used.

    False where there is none, or where a launcher started this process alone: it may then use every device of its
    host, of which a cluster would leave it one.
    """
    import jax

    place = launched_as()
    if place is not None and place[1] == 1:
        return False
    try:
        jax.distributed.initialize()
    except ValueError as error:
        if place is None and "coordinator_address" in str(error):  # JAX found no cluster either
            return False
        raise
    return True
