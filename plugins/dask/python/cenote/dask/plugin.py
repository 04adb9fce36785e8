"""The plugin that puts each worker of a cluster onto a resource, and Dask's hooks and configuration for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any

import dask.config
from distributed import Worker, WorkerPlugin

import cenote
from cenote import mr, registry
from cenote.dask.metrics import WorkerMetrics
from cenote.dask.options import specification_for_protocol, with_log
from cenote.dask.room import read_back_on_the_host_without_room
from cenote.dask.spill import Spiller
from cenote.dask.worker_device import take_local_device
from cenote.frameworks import FRAMEWORKS

__all__ = ["CenotePlugin", "dask_setup", "plugin_of_configuration"]

_logger = logging.getLogger("distributed.worker.cenote")


class CenotePlugin(WorkerPlugin):
    """Puts each worker, also one that is started again, onto a resource, before it runs a task.

    ::

        client.register_plugin(cenote.dask.CenotePlugin("pool:max=80%"))

    Parameters
    ----------
    resource : str
        A specification (see `cenote.mr.from_spec`), from which each worker makes its own. Where Dask's protocol is UCX
        and the specification ends with a pool, the pool stands on ``cuda``.
    frameworks : str or iterable of str
        What else is put onto it, as by `cenote.install`; what is not installed on the worker is left out.
    device : str, optional
        ``"local"`` gives each worker of a host a device of its own, by hiding the others (`take_local_device`). Without
        it a worker has the devices that its process sees, and tasks use the first of them unless they choose.
    log_directory : str or os.PathLike, optional
        A folder, on the worker's host, for logs of all allocations, one file a process.
    spill : bool
        When a worker's device has no memory for an allocation, evict values that the worker keeps there (`Spiller`),
        and try again. What is read back and has no room then stays in pinned host memory.

    Raises
    ------
    TypeError
        An argument of another type.
    ValueError
        A device that is not ``"local"``.

    Notes
    -----
    On a host without a device the plugin says so in the worker's log, and does nothing. It can be given to
    ``client.register_plugin`` at any time, to ``LocalCluster(plugins=[…])``, or come from the configuration
    (`dask_setup`). One of the name replaces the one before.
    """

    name = "cenote"

    def __init__(
        self,
        resource: str = "pool",
        *,
        frameworks: Iterable[str] | str = FRAMEWORKS,
        device: str | None = None,
        log_directory: str | os.PathLike[str] | None = None,
        spill: bool = True,
    ) -> None:
        if not isinstance(resource, str):
            raise TypeError(
                f"resource must be a specification, not {type(resource).__name__}: each worker makes a resource of it"
            )
        if not isinstance(frameworks, Iterable) or isinstance(frameworks, bytes):
            raise TypeError(f"frameworks must be names of frameworks, not {type(frameworks).__name__}")
        if device not in (None, "local"):
            raise ValueError(f"device must be 'local' or None, not {device!r}")
        if not isinstance(log_directory, str | os.PathLike | None):
            raise TypeError(f"log_directory must be a path, not {type(log_directory).__name__}")
        if not isinstance(spill, bool):
            raise TypeError(f"spill must be a bool, not {type(spill).__name__}")
        self.resource = resource
        self.frameworks = (frameworks,) if isinstance(frameworks, str) else tuple(frameworks)
        self.device = device
        self.log_directory = None if log_directory is None else os.fspath(log_directory)
        self.spill = spill
        self._metrics: WorkerMetrics | None = None
        self._spilling: mr.FailureCallbackResourceAdaptor | None = None
        self._end_reading_back: Callable[[], None] | None = None

    def setup(self, worker: Worker) -> None:
        """Make the worker's resource; what Dask calls."""
        if self.device == "local":
            take_local_device(worker)
        specification = specification_for_protocol(self.resource, worker.address.partition("://")[0])
        if self.log_directory is not None:
            os.makedirs(self.log_directory, exist_ok=True)
            specification = with_log(specification, self.log_directory, str(worker.name).rpartition("/")[2])
        report = cenote.install(specification, self.frameworks)
        _logger.info("cenote on worker %s:\n%s", worker.name, report)
        if not report.resource:
            _logger.warning("cenote found no device for worker %s: its tasks have no device memory", worker.name)
            return
        self._metrics = WorkerMetrics(worker, self._spill_from(worker))

    def teardown(self, worker: Worker) -> None:
        """Leave the worker with the resource, without what the plugin has added; what Dask calls."""
        if self._metrics is not None:
            self._metrics.remove()
            self._metrics = None
        if self._end_reading_back is not None:
            self._end_reading_back()
            self._end_reading_back = None
        spilling, self._spilling = self._spilling, None
        if spilling is not None and registry.find_per_device_resource(spilling.device) is spilling:
            mr.set_per_device_resource(spilling.device, spilling.upstream_mr)

    def _spill_from(self, worker: Worker) -> Spiller | None:
        """Have the resource of the worker's device ask for evictions; None where nothing can be evicted."""
        if not self.spill:
            return None
        try:
            spiller = Spiller(worker.data)
        except TypeError as error:
            _logger.info("cenote does not spill on worker %s: %s", worker.name, error)
            return None
        self._spilling = mr.FailureCallbackResourceAdaptor(mr.get_current_device_resource(), spiller)
        mr.set_current_device_resource(self._spilling)
        self._end_reading_back = read_back_on_the_host_without_room(worker.data)
        return spiller

    def __getstate__(self) -> dict[str, Any]:
        """Pickle what was asked for, and not what a worker made of it."""
        return {**vars(self), "_metrics": None, "_spilling": None, "_end_reading_back": None}


_ARGUMENTS = ("resource", "frameworks", "device", "log_directory", "spill")


async def dask_setup(server: Any) -> None:
    """Add the plugin to a worker, as the configuration says: what ``dask worker --preload cenote.dask`` calls.

    ``distributed.cenote.resource``, ``.frameworks``, ``.device``, ``.log-directory`` and ``.spill`` are the arguments
    of `CenotePlugin`; Dask reads them from its files, from ``dask.config.set`` and from variables such as
    ``DASK_DISTRIBUTED__CENOTE__RESOURCE``. Where no resource is named, it is what the environment variable
    ``CENOTE_RESOURCE`` says, else ``"pool"``. A scheduler or client that preloads the module can receive buffers, and
    is left alone otherwise.

    Parameters
    ----------
    server : distributed.Worker, distributed.Scheduler or distributed.Client
        Who preloads the module.

    Raises
    ------
    TypeError, ValueError
        A key that is not known, or what `CenotePlugin` raises.
    """
    if not isinstance(server, Worker):
        return
    await server.plugin_add(plugin_of_configuration(), catch_errors=False)


def plugin_of_configuration() -> CenotePlugin:
    """Make the plugin that Dask's configuration describes."""
    configured = {str(key).replace("-", "_"): it for key, it in dask.config.get("distributed.cenote", {}).items()}
    for key in configured:
        if key not in _ARGUMENTS:
            known = ", ".join(name.replace("_", "-") for name in _ARGUMENTS)
            raise ValueError(f"distributed.cenote.{key} is not known; known are: {known}")
    if configured.get("resource") is None:
        default = registry.default_specification()
        configured["resource"] = "pool" if default == "cuda" else default
    return CenotePlugin(**configured)
