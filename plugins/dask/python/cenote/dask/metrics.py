"""What a worker tells of its device memory: to the scheduler with each heartbeat, and to Prometheus where it asks.

``metrics["cenote"]`` has the figures of `figures`. ``metrics["rmm"]`` has those that Dask's dashboard shows under "RMM
Memory". Where prometheus_client is installed, the worker's ``/metrics`` page has the same figures as
``dask_worker_cenote_bytes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cenote
from cenote import registry
from cenote.dask.room import bytes_on_the_host
from cenote.dask.spill import Spiller

__all__ = ["WorkerMetrics", "figures"]

_NAMES = ("cenote", "rmm")


def figures(spiller: Spiller | None = None) -> dict[str, Any]:
    """Say what this process has of its devices' memory. Touches no device that was not used yet.

    Returns
    -------
    dict
        All in bytes but for the two counts:

        ``used``
            What the clients hold (`cenote.usage`): the frameworks and cenote's own buffers, as requested.
        ``allocations``
            How many blocks that is.
        ``clients``
            The bytes of each client that holds any.
        ``on_host``
            How much of `used` lies in pinned host memory, as the device had no room when it was read back.
        ``held``
            What the current resources have taken of the devices for it; at least what of `used` is not on the host.
        ``limit``
            The most that they may hold; None where one of them has no limit.
        ``spilled``, ``spilled_count``
            What was evicted to the host because there was no memory, since the worker started.
    """
    usage = cenote.usage()
    states = [
        resource.state()
        for device in registry.devices_with_resource()
        if (resource := registry.find_per_device_resource(device)) is not None
    ]
    used = sum(each.bytes for each in usage.values())
    held = sum(state.held or 0 for state in states)
    on_host = bytes_on_the_host()
    limits = [state.limit for state in states]
    return {
        "used": used,
        "allocations": sum(each.allocations for each in usage.values()),
        "clients": {name: each.bytes for name, each in usage.items() if each.bytes},
        "on_host": on_host,
        "held": max(used - on_host, held),
        "limit": sum(limits) if limits and None not in limits else None,
        "spilled": 0 if spiller is None else spiller.evicted_bytes,
        "spilled_count": 0 if spiller is None else spiller.evicted_count,
    }


class WorkerMetrics:
    """The figures of one worker, while they are among its metrics.

    Parameters
    ----------
    worker : distributed.Worker
        The worker.
    spiller : Spiller, optional
        What evicts its values.
    """

    def __init__(self, worker: Any, spiller: Spiller | None = None) -> None:
        self._worker = worker
        self._spiller = spiller
        self._before = {name: worker.metrics.get(name) for name in _NAMES}
        worker.metrics.update({"cenote": self._for_scheduler, "rmm": self._for_rmm_page})
        self._prometheus = _prometheus_registry()
        if self._prometheus is not None:
            self._prometheus.register(self)

    def remove(self) -> None:
        """Take them off the worker, which has again what it had before."""
        for name, metric in self._before.items():
            if metric is None:
                self._worker.metrics.pop(name, None)
            else:
                self._worker.metrics[name] = metric
        if self._prometheus is not None:
            self._prometheus.unregister(self)

    def _for_scheduler(self, worker: Any) -> dict[str, Any]:
        return figures(self._spiller)

    def _for_rmm_page(self, worker: Any) -> dict[str, int]:
        now = figures()
        return {"rmm-used": now["used"], "rmm-total": now["held"]}

    def collect(self) -> Iterator[Any]:
        """Give Prometheus the figures: what a collector of prometheus_client has."""
        from prometheus_client.core import GaugeMetricFamily

        now = figures(self._spiller)
        gauge = GaugeMetricFamily("dask_worker_cenote_bytes", "Device memory of the worker.", labels=["type"])
        for name in ("used", "on_host", "held", "limit", "spilled"):
            if now[name] is not None:
                gauge.add_metric([name], now[name])
        yield gauge


def _prometheus_registry() -> Any:
    """Find where Dask's worker looks for collectors; None where prometheus_client is missing."""
    try:
        from prometheus_client import REGISTRY
    except ImportError:
        return None
    return REGISTRY
