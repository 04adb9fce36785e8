"""The modules of RMM's Python package, the names in them, and where cenote has each: ``"module:name"``.

The API is that of RMM 26.10, with those names that the releases of the year before had in addition. What cenote does
not have under any name is in `cenote.compat.rmm_only`; ``docs/results/rmm-names.md`` says of each name how it compares.
"""

from __future__ import annotations

__all__ = ["MODULES"]


def _from(home: str, *names: str, **renamed: str) -> dict[str, str]:
    """Names that `home` has too, and names that stand for another one there."""
    return {name: f"{home}:{name}" for name in names} | {name: f"{home}:{own}" for name, own in renamed.items()}


_STREAMS = _from(
    "cenote.stream",
    "CudaStreamFlags",
    "DEFAULT_STREAM",
    "LEGACY_DEFAULT_STREAM",
    "PER_THREAD_DEFAULT_STREAM",
    "Stream",
)
_LOGGER = _from(
    "cenote.logger",
    "flush_logger",
    "get_flush_level",
    "get_logging_level",
    "level_enum",
    "set_flush_level",
    "set_logging_level",
    "should_log",
)
_ALLOCATION_LOG = _from("cenote.logs.recording", "disable_logging", "enable_logging", "get_log_filenames")
_VERSION = _from("cenote.compat.rmm_only", "__git_commit__", "__version__")
_REINITIALIZE = _from(
    "cenote.initialization",
    "is_initialized",
    "register_reinitialize_hook",
    "reinitialize",
    "unregister_reinitialize_hook",
) | _from("cenote.compat.rmm_only", "RMMError")
_RESOURCES = _from(
    "cenote.mr",
    "ArenaMemoryResource",
    "BinningMemoryResource",
    "CallbackMemoryResource",
    "CudaAsyncMemoryResource",
    "CudaAsyncViewMemoryResource",
    "CudaMemoryResource",
    "DeviceMemoryResource",
    "FailureCallbackResourceAdaptor",
    "FixedSizeMemoryResource",
    "LimitingResourceAdaptor",
    "LoggingResourceAdaptor",
    "ManagedMemoryResource",
    "PinnedHostMemoryResource",
    "PoolMemoryResource",
    "PrefetchResourceAdaptor",
    "SamHeadroomMemoryResource",
    "StatisticsResourceAdaptor",
    "SystemMemoryResource",
    "TrackingResourceAdaptor",
    "UpstreamResourceAdaptor",
    "available_device_memory",
    "disable_logging",
    "enable_logging",
    "get_current_device_resource",
    "get_log_filenames",
    "get_per_device_resource",
    "is_initialized",
    "set_current_device_resource",
    "set_per_device_resource",
) | _from("cenote.compat.rmm_only", "get_current_device_resource_type", "get_per_device_resource_type")
_EXPERIMENTAL = _from("cenote.mr", "CudaAsyncManagedMemoryResource")
_BUFFER = _from("cenote.compat.rmm_only", "DeviceBuffer")

MODULES: dict[str, dict[str, str]] = {
    "rmm": {**_BUFFER, **_ALLOCATION_LOG, **_LOGGER, **_REINITIALIZE, **_VERSION, "mr": "rmm.mr"},
    "rmm._cuda": {},
    "rmm._cuda.gpu": _from(
        "cenote.driver",
        deviceGetName="device_name",
        driverGetVersion="version",
        getDevice="current_device",
        getDeviceAttribute="device_attribute",
        getDeviceCount="device_count",
        getDeviceProperties="device_properties",
        runtimeGetVersion="runtime_version",
        setDevice="set_device",
    )
    | _from("cenote.errors", CUDADriverError="CudaError", CUDARuntimeError="CudaError"),
    "rmm._cuda.stream": _STREAMS,
    "rmm._version": _VERSION,
    "rmm.allocators": {},
    "rmm.allocators.cupy": _from("cenote.compat.rmm_only", "rmm_cupy_allocator"),
    "rmm.allocators.numba": _from(
        "cenote.allocators.numba", RMMNumbaManager="CenoteNumbaManager", _numba_memory_manager="CenoteNumbaManager"
    ),
    "rmm.allocators.torch": _from("cenote.compat.rmm_only", "rmm_torch_allocator"),
    "rmm.librmm": {},
    "rmm.librmm._logger": _from("cenote.logger", "level_enum"),
    "rmm.mr": {**_RESOURCES, "experimental": "rmm.mr.experimental"},
    "rmm.mr.experimental": _EXPERIMENTAL,
    "rmm.pylibrmm": {
        **_BUFFER,
        **_from("cenote.stream", "CudaStreamFlags", "CudaStreamPool"),
        "memory_resource": "rmm.pylibrmm.memory_resource",
    },
    "rmm.pylibrmm.cuda_stream_pool": _from("cenote.stream", "CudaStreamPool"),
    "rmm.pylibrmm.device_buffer": {
        **_BUFFER,
        **_from("cenote.compat.rmm_only", "to_device"),
        **_from("cenote.device_buffer", "copy_device_to_ptr", "copy_host_to_ptr", "copy_ptr_to_host"),
    },
    "rmm.pylibrmm.helper": _from("cenote.units", "parse_bytes"),
    "rmm.pylibrmm.logger": _LOGGER,
    "rmm.pylibrmm.memory_resource": {**_RESOURCES, "experimental": "rmm.pylibrmm.memory_resource.experimental"},
    "rmm.pylibrmm.memory_resource._memory_resource": {
        **_RESOURCES,
        **_from("cenote.logs.recording", "_flush_logs"),
        **_from("cenote.initialization", _initialize="reinitialize"),
        **_from("cenote.compat.rmm_only", "_append_id"),
    },
    "rmm.pylibrmm.memory_resource.experimental": _EXPERIMENTAL,
    "rmm.pylibrmm.stream": _STREAMS,
    "rmm.pylibrmm.utils": _from("cenote.compat.rmm_only", "as_stream"),
    "rmm.rmm": {**_REINITIALIZE, "mr": "rmm.mr"},
    "rmm.statistics": _from(
        "cenote.statistics",
        "ProfilerContext",
        "ProfilerRecords",
        "Statistics",
        "default_profiler_records",
        "enable_statistics",
        "get_statistics",
        "pop_statistics",
        "profiler",
        "push_statistics",
        "statistics",
        _get_descriptive_name_of_object="_describe",
    ),
}
"""By module, in RMM's spelling: what each name stands for. A module itself is named without a colon."""
