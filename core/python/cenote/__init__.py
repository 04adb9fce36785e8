"""One GPU memory pool under PyTorch, CuPy, Numba and C++.

Importing this package loads neither the CUDA driver nor a framework. With ``CENOTE_AS_RMM=1`` in the environment
``import rmm`` means cenote from then on, as after `cenote.compat.as_rmm`. See `cenote.mr` for resources,
`cenote.install` to put every framework onto one of them, `cenote.sim` to run all of it without a GPU.
"""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from cenote import mr
from cenote._core.environment import environment_variable
from cenote.device_buffer import DeviceBuffer, open_shared
from cenote.errors import CudaError, DriverUnavailableError, OutOfMemoryError
from cenote.initialization import (
    available_device_memory,
    is_initialized,
    register_reinitialize_hook,
    reinitialize,
    unregister_reinitialize_hook,
)
from cenote.logs.recording import disable_logging, enable_logging, get_log_filenames
from cenote.registry import Usage, sample_sites, tag, usage
from cenote.statistics import Statistics
from cenote.stream import (
    DEFAULT_STREAM,
    LEGACY_DEFAULT_STREAM,
    PER_THREAD_DEFAULT_STREAM,
    CudaStreamFlags,
    CudaStreamPool,
    Stream,
)

if TYPE_CHECKING:
    from cenote import (
        allocators,
        device_buffer,
        driver,
        explanation,
        logger,
        logs,
        pausing,
        pressure,
        recorder,
        registry,
        report,
        sim,
    )
    from cenote.budgets import Budget, budget, get_budget
    from cenote.explanation import explain
    from cenote.exports import prometheus
    from cenote.frameworks import InstallReport, graphs_share_pages, install, uninstall
    from cenote.graph_pool import GraphPool
    from cenote.logs import replay, timeline, trace
    from cenote.pausing import pause, region, resume
    from cenote.pressure import add_pressure_handler, remove_pressure_handler
    from cenote.scopes import use

__all__ = [
    "DEFAULT_STREAM",
    "LEGACY_DEFAULT_STREAM",
    "PER_THREAD_DEFAULT_STREAM",
    "Budget",
    "CudaError",
    "CudaStreamFlags",
    "CudaStreamPool",
    "DeviceBuffer",
    "DriverUnavailableError",
    "GraphPool",
    "InstallReport",
    "OutOfMemoryError",
    "Statistics",
    "Stream",
    "Usage",
    "__version__",
    "add_pressure_handler",
    "allocators",
    "available_device_memory",
    "budget",
    "device_buffer",
    "disable_logging",
    "driver",
    "enable_logging",
    "explain",
    "explanation",
    "exports",
    "get_budget",
    "get_log_filenames",
    "graphs_share_pages",
    "install",
    "is_initialized",
    "logger",
    "logs",
    "mr",
    "open_shared",
    "pause",
    "pausing",
    "pressure",
    "prometheus",
    "recorder",
    "region",
    "register_reinitialize_hook",
    "registry",
    "reinitialize",
    "remove_pressure_handler",
    "replay",
    "report",
    "resume",
    "sample_sites",
    "sim",
    "statistics",
    "tag",
    "timeline",
    "trace",
    "uninstall",
    "unregister_reinitialize_hook",
    "usage",
    "use",
]

# Loaded when first asked for: what most programs do not need.
_modules = (
    *("allocators", "device_buffer", "driver", "explanation", "exports", "logger", "logs", "pausing", "pressure"),
    *("recorder", "registry", "report", "sim"),
)
_names = {
    "Budget": "cenote.budgets",
    "GraphPool": "cenote.graph_pool",
    "InstallReport": "cenote.frameworks",
    "add_pressure_handler": "cenote.pressure",
    "budget": "cenote.budgets",
    "explain": "cenote.explanation",
    "get_budget": "cenote.budgets",
    "graphs_share_pages": "cenote.frameworks",
    "pause": "cenote.pausing",
    "region": "cenote.pausing",
    "resume": "cenote.pausing",
    "install": "cenote.frameworks",
    "uninstall": "cenote.frameworks",
    "prometheus": "cenote.exports",
    "remove_pressure_handler": "cenote.pressure",
    "replay": "cenote.logs",
    "timeline": "cenote.logs",
    "trace": "cenote.logs",
    "use": "cenote.scopes",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # 40 ms, which few programs need

        return version("cenote")
    if name in _modules:
        return importlib.import_module(f"cenote.{name}")
    if name in _names:
        return getattr(importlib.import_module(_names[name]), name)
    raise AttributeError(f"module 'cenote' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(__all__) | set(globals()))


def _follow_environment() -> None:
    """Have ``import rmm`` mean cenote where CENOTE_AS_RMM says so; ImportError beside the real RMM."""
    value = environment_variable("CENOTE_AS_RMM")
    if value == "1":
        importlib.import_module("cenote.compat.rmm_alias").install()
    elif value not in (None, "0"):
        print(f"cenote: CENOTE_AS_RMM is {value!r} and has no effect: it must be 1 or 0", file=sys.stderr)


_follow_environment()
