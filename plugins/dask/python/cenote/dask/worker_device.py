"""The device of a worker where each worker of a host is to have its own.

Dask's tasks run on threads that come and go, and a thread's choice of a device holds for that thread alone. So a worker
hides the other devices from its process, by ``CUDA_VISIBLE_DEVICES``, as dask-cuda does: then every thread and every
library has the worker's device as device 0.
"""

from __future__ import annotations

import os
import re
from typing import Any

from cenote import driver
from cenote.errors import DriverUnavailableError

__all__ = ["take_local_device"]


def take_local_device(worker: Any) -> None:
    """Hide from this process all devices but the worker's own. Nothing is done where it sees one device alone.

    The worker's own is, of the devices that its host shows it, the one of the worker's number: 2 for a name of 2 or
    ``"gpu-2"``. Under dask-cuda, which has put the worker's own first, it is that.

    Parameters
    ----------
    worker : distributed.Worker
        The worker, whose process has not used a device yet.

    Raises
    ------
    ValueError
        The name of the worker ends with no number, or there is no such device.
    RuntimeError
        The process has used CUDA already, and sees several devices.
    """
    visible = [entry for entry in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if entry]
    if len(visible) == 1:
        return
    if driver.is_loaded():
        if driver.device_count() == 1:
            return
        raise RuntimeError(
            f"worker {worker.name!r} cannot take a device of its own any more: its process has used CUDA before. "
            "Give each worker process its device by CUDA_VISIBLE_DEVICES, as dask-cuda does, and no device='local'"
        )
    number = 0 if _is_placed_by_dask_cuda(worker) else _number_of(worker.name)
    if visible and number >= len(visible):
        raise ValueError(f"worker {worker.name!r} has no device of its own: its host shows {len(visible)}")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[number] if visible else str(number)
    try:
        driver.device_count()
    except DriverUnavailableError as error:
        raise ValueError(f"worker {worker.name!r} has no device {number} of its own: {error}") from error


def _is_placed_by_dask_cuda(worker: Any) -> bool:
    return any(preload.name.partition(".")[0] == "dask_cuda" for preload in worker.preloads)


def _number_of(name: object) -> int:
    found = re.search(r"\d+$", str(name)) if "://" not in str(name) else None
    if found is None:
        raise ValueError(
            f"worker {name!r} cannot tell which device is its own: its name ends with no number. Name workers so, or "
            "give each process its device by CUDA_VISIBLE_DEVICES, as dask-cuda does"
        )
    return int(found[0])
