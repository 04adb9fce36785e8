"""Which device is this process's own, where each process of a host is to use another one."""

from __future__ import annotations

import sys

from cenote import driver
from cenote._core.environment import environment_variable

RANK_VARIABLES = (
    "LOCAL_RANK",  # torchrun, accelerate, Lightning
    "OMPI_COMM_WORLD_LOCAL_RANK",  # Open MPI
    "MV2_COMM_WORLD_LOCAL_RANK",  # MVAPICH
    "MPI_LOCALRANKID",  # MPICH, Intel MPI
    "SLURM_LOCALID",  # srun; last, as a batch script has it too, whatever that starts
)
"""What launchers tell a process: its number among those of the same host. The first that is set counts."""


def local_device() -> int:
    """Give the number of the device that is this process's own.

    The only one that it sees, as in an actor of Ray with one GPU; the first one in a worker of dask-cuda, which has put
    it first; else the one of the process's number on its host.

    Raises
    ------
    ValueError
        No launcher has told the number, or there is no such device.
    DriverUnavailableError
        There is no driver, or no device.
    """
    count = driver.device_count()
    if count == 1 or ("dask_cuda" in sys.modules and environment_variable("CUDA_VISIBLE_DEVICES")):
        return 0
    for variable in RANK_VARIABLES:
        text = environment_variable(variable)
        if text is None:
            continue
        if not text.isdecimal() or int(text) >= count:
            raise ValueError(
                f"device='local': {variable} is {text!r}, and the process sees the devices 0 to {count - 1}. Start at "
                "most as many processes a host, or give each its device by CUDA_VISIBLE_DEVICES"
            )
        return int(text)
    raise ValueError(
        f"device='local': the process sees {count} devices, and no launcher has told which is its own: none of "
        f"{', '.join(RANK_VARIABLES)} is set. Set one, or CUDA_VISIBLE_DEVICES, or name the device by its number"
    )
