"""Bad input, parameter by parameter: what each public constructor, method and function refuses, and with what.

`TABLE` has a row for every callable of `MODULES` that takes an argument; `test_bad_input.py` sees that none is missing.
A row gives each parameter a good value and what is refused in its place.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import importlib.util
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import cenote
from cenote import (
    budgets,
    device_buffer,
    driver,
    explanation,
    exports,
    initialization,
    logger,
    mr,
    pausing,
    pressure,
    recorder,
    registry,
    replay,
    report,
    statistics,
    stream,
    timeline,
    trace,
    units,
)
from cenote.logs import floor

KIB, MIB = 1024, 1024**2
MODULES = (
    *(mr, device_buffer, stream, statistics, logger, driver, registry, initialization, units, pressure, recorder),
    *(budgets, explanation, exports, pausing, report),
    *(floor, replay, timeline, trace),
)

# What is refused: pairs of a value and the exception that it raises.
Refused = tuple[tuple[Any, type[Exception]], ...]


@dataclass(frozen=True)
class Later:
    """A value that is made anew for each call."""

    make: Callable[[], Any]


def value_of(value: Any) -> Any:
    return value.make() if isinstance(value, Later) else value


def refuse(error: type[Exception], *values: Any) -> Refused:
    return tuple((value, error) for value in values)


def but(refused: Refused, *accepted: Any) -> Refused:
    """Without the values that are accepted after all; True is not 1 here."""
    return tuple(pair for pair in refused if not any(type(pair[0]) is type(one) and pair[0] == one for one in accepted))


# The words by which an error may name an argument instead of the argument's own name.
NAMED_AS = {
    "amount": ("budget",),
    "allocation_size": ("a bin",),
    "arena_size": ("an arena",),
    "ary": ("buffer",),
    "attr": ("cudevicegetattribute",),
    "cuda_ary": ("array", "buffer"),
    "devices": ("device",),
    "dl_device": ("dlpack device",),
    "dtype": ("data type",),
    "guard_bytes": ("a guard",),
    "initial_pool_size": ("initial pool size",),
    "kind": ("pinned as",),
    "log_file_name": ("log file",),
    "maximum_pool_size": ("maximum pool size",),
    "mr": ("a resource",),
    "obj": ("stream",),
    "path": ("no/such/path", "no/such/folder", "the picture", "recording"),
    "pool_handle": ("handle of a memory pool",),
    "pool_size": ("stream pool's size",),
    "ptr": ("block in use", "nothing is pinned"),
    "size": ("number of bytes",),
    "specification": ("resource", "'initial'", "'cuda'"),
    "what": ("path",),
    "text": ("resource", "'initial'", "'max'", "initial pool size", "'cuda'"),
}

# What Python, Cython and C++ say of a wrong value, which names neither the argument nor a remedy.
SAYS_NOTHING = re.compile(
    r"can't convert|cannot be interpreted|too large to convert|too big to convert|codec can't|cannot unpack"
    r"|^a bytes-like object|^Buffer |^Object is not|std::|'__cuda_stream__'|^int\(\) argument"
)


class ForgetsToInitialise(mr.CudaMemoryResource):
    def __init__(self) -> None:
        pass


class LooksLikeAStream:
    def __init__(self, protocol: Any) -> None:
        self.protocol = protocol

    def __cuda_stream__(self) -> Any:
        return self.protocol


NAN, INF = float("nan"), float("inf")
NOT_AN_INT = refuse(TypeError, None, "text", b"", object(), [], 1.5, NAN, INF, True, np.float64(1))
NOT_64_BITS = refuse(OverflowError, -1, -(2**63), 2**64, 10**30)
MORE_THAN_THERE_IS = refuse(MemoryError, 2**63, 2**64 - 256, 2**64 - 1)

COUNT = NOT_AN_INT + NOT_64_BITS  # of bytes or other things, an address
ALLOCATION = COUNT + MORE_THAN_THERE_IS
NO_SIZE = refuse(ValueError, "text", "", "-1", "nan", "inf", "1e3 MiB GiB", "1 GiX", "99999999 TiB")
SIZE = but(COUNT, "text") + NO_SIZE
OPTIONAL_SIZE = but(SIZE, None)
POOL_SIZE = OPTIONAL_SIZE + refuse(RuntimeError, 1, 255, 257, "1 KB", 2**64 - 1)
ALIGNMENT = COUNT + refuse(ValueError, 0, 3, 255, 257, 2**64 - 1)
DEVICE = NOT_AN_INT + refuse(IndexError, -1, 2, 64, 2**31 - 1, 2**31, 2**63, 2**64, 10**30)
OPTIONAL_DEVICE = but(DEVICE, None)
NO_RESOURCE = refuse(TypeError, None, "text", b"", object(), [], 1.5, NAN, True, 1, mr.CudaMemoryResource)
NEVER_MADE = refuse(
    RuntimeError,
    ForgetsToInitialise(),
    mr.CudaMemoryResource.__new__(mr.CudaMemoryResource),
    mr.PoolMemoryResource.__new__(mr.PoolMemoryResource),
    mr.DeviceMemoryResource.__new__(mr.DeviceMemoryResource),
)
RESOURCE = NO_RESOURCE + NEVER_MADE
STREAM = (
    refuse(TypeError, None, "text", b"", object(), [], 1.5, NAN, True, stream.Stream)
    + refuse(TypeError, *(LooksLikeAStream(it) for it in (None, 7, (0, None), (0, "7"), (0, 1.5), (0, True))))
    + refuse(NotImplementedError, LooksLikeAStream((1, 7)), LooksLikeAStream(("0", 7)))
    + refuse(ValueError, -1, -(2**64), LooksLikeAStream((0, 0, 0)))
    + refuse(OverflowError, 2**64, 10**30, LooksLikeAStream((0, -1)), LooksLikeAStream((0, 2**64)))
    + refuse(RuntimeError, stream.Stream.__new__(stream.Stream))
)
OPTIONAL_STREAM = but(STREAM, None)
FLAGS = refuse(ValueError, "text", b"", object(), [], 1.5, 1.0, NAN, True, -1, 7, 2**64)
CALLABLE = refuse(TypeError, None, "text", b"", object(), [], 1.5, True)
PATH = refuse(TypeError, b"name.csv", object(), [], 1.5, NAN, True, 7) + refuse(ValueError, "", "null\0character")
UNUSABLE_PATH = PATH + refuse(RuntimeError, "no/such/folder/log.csv")
TEXT = refuse(TypeError, None, b"", object(), [], 1.5, NAN, True, 7)
PIN_KIND = TEXT + refuse(ValueError, "", "text", "Exported", "null\0character", "\ud800")
READABLE = refuse(TypeError, None, "text", object(), 1.5, True, 7) + refuse(
    ValueError, np.zeros(4), np.zeros((2, 2), "u1")
)
LEVEL = refuse(TypeError, None, "text", b"", object(), [], 1.5, NAN, True, -1, 2, 99)
PEERS = (
    refuse(TypeError, None, b"", b"1", object(), 1.5, NAN, True, 1, ["text"], [1.5], [True], [None])
    + refuse(ValueError, "text", "", "1")
    + refuse(IndexError, [-1], [2], [0, 10**30])
)
PAIR = refuse(TypeError, object(), 1.5, True, 7, "ab", (1.5, 0), (None, None)) + refuse(ValueError, (), (1,), (1, 0, 0))
ANYTHING: Refused = ()  # any value has a truth; a plain record keeps what it is given

EVENTS = np.array([(1, at, action, 16, 256, 0) for at, action in enumerate((0, 1))], dtype=trace.DTYPE)
NO_STREAMS = refuse(TypeError, None, "text", b"", [], 7, object())
TRACE = refuse(TypeError, None, "text", b"", [], 7, object(), np.zeros(3), EVENTS.reshape(2, 1))
STEPS = timeline.from_trace(EVENTS)
PATH_OF_PICTURE = refuse(TypeError, None, b"run.png", object(), [], 1.5, True, 7) + refuse(
    ValueError, "", "run", "run.jpg", "null\0character.png"
)
PLAYED = {
    "trace": (EVENTS, TRACE),
    "progress": (None, but(CALLABLE, None)),
    "progress_every": (1, NOT_AN_INT + refuse(ValueError, 0, -1)),
}
CUDA, MANAGED, HOST = Later(mr.CudaMemoryResource), Later(mr.ManagedMemoryResource), Later(lambda: bytearray(64))
DEFAULT = stream.DEFAULT_STREAM
COUNTS = statistics.Statistics(1, 1, 1, 1, 1, 1)
UPSTREAM = {"upstream_mr": (CUDA, RESOURCE)}


class Kept:
    """What good arguments refer to; made when first asked for, and dropped after the last test of this file."""

    address = 0  # of a block of the pool whose method is called

    @functools.cached_property
    def driver_pool(self) -> mr.CudaAsyncMemoryResource:
        return mr.CudaAsyncMemoryResource()

    @functools.cached_property
    def held_of_driver_pool(self) -> cenote.DeviceBuffer:
        return cenote.DeviceBuffer(size=64, mr=self.driver_pool)  # so that the pool neither grows nor shrinks

    @functools.cached_property
    def block(self) -> cenote.DeviceBuffer:
        return cenote.DeviceBuffer(size=64)

    @functools.cached_property
    def plain(self) -> mr.DeviceMemoryResource:
        return mr.CudaMemoryResource()


kept = Kept()
BLOCK = Later(lambda: kept.block.ptr)


def take(nbytes: int, on: stream.Stream) -> int:
    return kept.plain.allocate(nbytes, on)


def nothing_freed(nbytes: int, device: int) -> int:
    return 0


def paused_pool() -> mr.DeviceMemoryResource:
    pool = mr.from_spec("pool")
    pausing.pause(pool, "nothing")
    return pool


def saved_recording() -> str:
    recorder.snapshot().save("saved.rec")
    return "saved.rec"


RECORDING = Later(saved_recording)
RECORDED = recorder.snapshot()
EXPLANATION = explanation.explain(RECORDED)


def give(ptr: int, nbytes: int, on: stream.Stream) -> None:
    kept.plain.deallocate(ptr, nbytes, on)


TABLE: dict[str, dict[str, tuple[Any, Refused]]] = {
    # cenote.mr: the resources
    "mr.VirtualMemoryResource": {
        "enable_ipc": (False, ANYTHING),
        "enable_fabric": (False, ANYTHING),
        "for_rdma": (False, ANYTHING),
        "peers": ([1], but(PEERS, None)),
    },
    "mr.CudaAsyncMemoryResource": {
        "initial_pool_size": (MIB, OPTIONAL_SIZE + MORE_THAN_THERE_IS),
        "release_threshold": ("1MiB", OPTIONAL_SIZE),
        "enable_ipc": (False, ANYTHING),
        "enable_fabric": (False, ANYTHING),
        "peers": ([1], but(PEERS, None)),
    },
    "mr.CudaAsyncViewMemoryResource": {
        "pool_handle": (
            Later(lambda: kept.driver_pool.pool_handle()),
            refuse(ValueError, None, "text", b"", object(), [], 1.5, NAN, True) + refuse(RuntimeError, 0) + NOT_64_BITS,
        ),
        "peers": ("none", but(PEERS, None)),
    },
    "mr.SamHeadroomMemoryResource": {"headroom": (MIB, SIZE)},
    "mr.CallbackMemoryResource": {
        "allocate_func": (take, CALLABLE + refuse(TypeError, lambda: 0, lambda a, b, c, d: 0)),
        "deallocate_func": (give, CALLABLE + refuse(TypeError, lambda a: 0, lambda a, b, c, d, e: 0)),
    },
    "mr.PoolMemoryResource": UPSTREAM
    | {
        "initial_pool_size": (MIB, POOL_SIZE + refuse(MemoryError, 2**63, 2**64 - 256)),
        "maximum_pool_size": (None, POOL_SIZE + refuse(RuntimeError, 0, MIB - 256)),
        "tight": (False, refuse(RuntimeError, True, 1, [0])),
        "idle_seconds": (
            None,
            refuse(ValueError, 0, -1, 1e-9, float("nan"), float("inf"), 1e12) + refuse(TypeError, [], {}),
        ),
    },
    "mr.MemoryState": {field.name: (0, ANYTHING) for field in dataclasses.fields(mr.MemoryState)},
    "mr.Pin": {field.name: (0, ANYTHING) for field in dataclasses.fields(mr.Pin)},
    "mr.PoolCounters": {field.name: (0, ANYTHING) for field in dataclasses.fields(mr.PoolCounters)},
    "mr.PoolMemoryResource.pin": {
        "ptr": (Later(lambda: kept.address), COUNT + refuse(ValueError, 0, 1, 2**64 - 1)),
        "kind": ("exported", PIN_KIND),
    },
    "mr.PoolMemoryResource.unpin": {
        "ptr": (Later(lambda: kept.address), COUNT + refuse(ValueError, 0, 1, 2**64 - 1)),
        "kind": ("exported", PIN_KIND + refuse(ValueError, "lent")),
    },
    "mr.ArenaMemoryResource": UPSTREAM
    | {
        "arena_size": (MIB, OPTIONAL_SIZE + MORE_THAN_THERE_IS + refuse(RuntimeError, 0, 1, 255, MIB - 1)),
        "dump_log_on_failure": (False, ANYTHING),
    },
    "mr.FixedSizeMemoryResource": UPSTREAM
    | {
        "block_size": (KIB, SIZE + refuse(ValueError, 0, 2**64 - 1) + refuse(MemoryError, 2**40)),
        "blocks_to_preallocate": (1, COUNT + refuse(ValueError, 2**63, 2**64 - 1) + refuse(MemoryError, 2**40)),
    },
    "mr.BinningMemoryResource": UPSTREAM
    | {
        "min_size_exponent": (8, NOT_AN_INT + refuse(ValueError, -2, 10, 63) + refuse(OverflowError, 2**31, 10**30)),
        "max_size_exponent": (9, NOT_AN_INT + refuse(ValueError, -2, 7, 63) + refuse(OverflowError, 2**31, 10**30)),
    },
    "mr.BinningMemoryResource.add_bin": {
        "allocation_size": (MIB, SIZE + refuse(ValueError, 0, 2**64 - 1)),
        "bin_resource": (CUDA, but(RESOURCE, None)),
    },
    # cenote.mr: the adaptors
    "mr.StatisticsResourceAdaptor": UPSTREAM,
    "mr.LoggingResourceAdaptor": UPSTREAM | {"log_file_name": ("log.csv", UNUSABLE_PATH + refuse(ValueError, None))},
    "mr.TrackingResourceAdaptor": UPSTREAM | {"capture_stacks": (False, ANYTHING)},
    "mr.LimitingResourceAdaptor": UPSTREAM | {"allocation_limit": (MIB, SIZE)},
    "mr.FailureCallbackResourceAdaptor": UPSTREAM
    | {
        "callback": (lambda nbytes: False, CALLABLE + refuse(TypeError, lambda: 0, lambda a, b: 0)),
        "max_tries": (1, COUNT),
    },
    "mr.PrefetchResourceAdaptor": UPSTREAM,
    "mr.AlignedResourceAdaptor": UPSTREAM | {"alignment": (512, ALIGNMENT), "threshold": (0, COUNT)},
    "mr.GuardResourceAdaptor": UPSTREAM | {"guard_bytes": (64, COUNT + refuse(ValueError, 0, 16 * MIB + 1))},
    "mr.ThreadSafeResourceAdaptor": UPSTREAM,
    # cenote.mr: what every resource can do; run for each of the resources above
    "mr.DeviceMemoryResource.allocate": {
        "nbytes": (KIB, ALLOCATION),
        "stream": (DEFAULT, STREAM),
        "alignment": (256, ALIGNMENT + refuse(MemoryError, 2**63)),
    },
    "mr.DeviceMemoryResource.deallocate": {
        "ptr": (0, COUNT),
        "nbytes": (KIB, COUNT),
        "stream": (DEFAULT, STREAM),
        "alignment": (256, ALIGNMENT),
    },
    "mr.DeviceMemoryResource.trim": {"keep_bytes": (0, COUNT), "wait": (False, ANYTHING)},
    # cenote.mr: functions
    "mr.from_spec": {
        "text": (
            "pool:initial=1MiB | cuda",
            TEXT
            + refuse(ValueError, "", "|", "text", "cuda | cuda", "pool:initial=-1 | cuda", "pool:max=nan | cuda")
            + refuse(ValueError, "pool:initial=101% | cuda", "pool:initial=99999999TiB | cuda", "cuda\0")
            + refuse(RuntimeError, "pool:initial=2MiB,max=1MiB | cuda"),
        ),
        "device": (0, OPTIONAL_DEVICE),
    },
    "mr.get_per_device_resource": {"device": (0, DEVICE)},
    "mr.set_per_device_resource": {
        "device": (0, DEVICE),
        "mr": (CUDA, RESOURCE + refuse(ValueError, Later(lambda: mr.from_spec("cuda", 1)))),
    },
    "mr.reset_per_device_resource": {"device": (0, DEVICE)},
    "mr.set_current_device_resource": {"mr": (CUDA, RESOURCE)},
    "mr.enable_logging": {"log_file_name": ("log.csv", UNUSABLE_PATH + refuse(ValueError, None))},
    # cenote.device_buffer
    "device_buffer.DeviceBuffer": {
        "ptr": (0, COUNT),
        "size": (64, ALLOCATION),
        "stream": (DEFAULT, STREAM),
        "mr": (MANAGED, but(RESOURCE, None)),
    },
    "device_buffer.DeviceBuffer.to_device": {"b": (b"bytes", READABLE), "stream": (DEFAULT, STREAM)},
    "device_buffer.DeviceBuffer.copy_to_host": {
        "ary": (HOST, but(READABLE, None) + refuse(BufferError, b"read only") + refuse(ValueError, bytearray(63))),
        "stream": (DEFAULT, STREAM),
    },
    "device_buffer.DeviceBuffer.copy_from_host": {
        "ary": (b"bytes", READABLE + refuse(ValueError, bytes(65))),
        "stream": (DEFAULT, STREAM),
    },
    "device_buffer.DeviceBuffer.copy_from_device": {
        "cuda_ary": (
            Later(lambda: cenote.DeviceBuffer(size=64)),
            refuse(
                ValueError, None, "text", b"", object(), [], 1.5, True, 7, Later(lambda: cenote.DeviceBuffer(size=65))
            )
            + refuse(RuntimeError, cenote.DeviceBuffer.__new__(cenote.DeviceBuffer)),
        ),
        "stream": (DEFAULT, STREAM),
    },
    "device_buffer.DeviceBuffer.tobytes": {"stream": (DEFAULT, STREAM)},
    "device_buffer.DeviceBuffer.share": {"stream": (DEFAULT, OPTIONAL_STREAM)},
    "device_buffer.BlockHandle": {"text": ("text", TEXT)},
    "device_buffer.open_shared": {
        "handle": (
            "text",
            TEXT + refuse(ValueError, "", "text", "null\0character", cenote.device_buffer.BlockHandle("text")),
        ),
        "stream": (DEFAULT, STREAM),
    },
    "device_buffer.DeviceBuffer.prefetch": {
        "device": (0, but(OPTIONAL_DEVICE, -1) + refuse(IndexError, -2, -(2**64))),
        "stream": (DEFAULT, OPTIONAL_STREAM),
    },
    "device_buffer.DeviceBuffer.reserve": {"new_capacity": (128, ALLOCATION), "stream": (DEFAULT, STREAM)},
    "device_buffer.DeviceBuffer.resize": {"new_size": (128, ALLOCATION), "stream": (DEFAULT, STREAM)},
    "device_buffer.DeviceBuffer.shrink_to_fit": {"stream": (DEFAULT, STREAM)},
    "device_buffer.DeviceBuffer.__array__": {
        "dtype": ("u1", refuse(TypeError, "text", object(), 1.5)),
        "copy": (True, ANYTHING),
    },
    "device_buffer.DeviceBuffer.__dlpack__": {
        "stream": (1, but(OPTIONAL_STREAM, -1) + refuse(ValueError, 0, -2)),
        "max_version": ((1, 0), PAIR),
        "dl_device": ((13, 0), PAIR + refuse(BufferError, (1, 1), (99, 0), (-1, 0), (2, 1), (2, 2**40))),
        "copy": (False, ANYTHING),
    },
    "device_buffer.to_device": {"b": (b"bytes", READABLE), "stream": (DEFAULT, STREAM)},
    "device_buffer.copy_ptr_to_host": {
        "db": (BLOCK, COUNT),
        "hb": (HOST, READABLE + refuse(BufferError, b"read only")),
        "stream": (DEFAULT, STREAM),
    },
    "device_buffer.copy_host_to_ptr": {"hb": (b"bytes", READABLE), "db": (BLOCK, COUNT), "stream": (DEFAULT, STREAM)},
    "device_buffer.copy_device_to_ptr": {
        "d_src": (BLOCK, COUNT),
        "d_dst": (BLOCK, COUNT),
        "count": (64, COUNT),
        "stream": (DEFAULT, STREAM),
    },
    # cenote.stream
    "stream.Stream": {
        "obj": (None, but(STREAM, None)),
        "flags": (None, FLAGS),
        "device": (None, OPTIONAL_DEVICE),
    },
    "stream.CudaStreamPool": {
        "pool_size": (2, COUNT + refuse(RuntimeError, 0) + refuse(MemoryError, 2**63, 2**64 - 1)),
        "flags": (0, FLAGS + refuse(ValueError, None)),
    },
    "stream.CudaStreamPool.get_stream": {"stream_id": (5, but(COUNT, None))},
    # cenote.statistics
    "statistics.Statistics": {
        name: (0, ANYTHING)
        for name in ("current_bytes", "current_count", "peak_bytes", "peak_count", "total_bytes", "total_count")
    },
    "statistics.ProfilerRecords.add": {
        "name": ("name", TEXT),
        "data": (COUNTS, refuse(TypeError, None, "text", object(), [], 1.5, 7, statistics.Statistics)),
    },
    "statistics.ProfilerRecords.MemoryRecord": {
        name: (0, ANYTHING) for name in ("num_calls", "memory_total", "memory_peak")
    },
    "statistics.ProfilerRecords.MemoryRecord.add": {name: (0, NOT_AN_INT) for name in ("memory_total", "memory_peak")},
    "statistics.ProfilerRecords.report": {
        "ordered_by": ("num_calls", refuse(ValueError, None, "text", "", b"num_calls", object(), [], 1.5, 0, True))
    },
    "statistics.ProfilerContext": {
        "records": (
            Later(statistics.ProfilerRecords),
            refuse(TypeError, None, "text", {}, 7, statistics.ProfilerRecords),
        ),
        "name": ("name", TEXT),
    },
    "statistics.ProfilerContext.__call__": {"func": (print, CALLABLE)},
    "statistics.profiler": {
        "records": (
            Later(statistics.ProfilerRecords),
            refuse(TypeError, None, "text", {}, 7, statistics.ProfilerRecords),
        ),
        "name": ("name", TEXT),
    },
    # cenote.logger
    "logger.should_log": {"level": (logger.level_enum.off, LEVEL)},
    "logger.set_logging_level": {"level": (logger.level_enum.off, LEVEL)},
    "logger.set_flush_level": {"level": (Later(logger.get_flush_level), LEVEL)},
    # cenote.driver
    "driver.set_device": {"device": (0, DEVICE)},
    "driver.device_attribute": {
        "attr": (16, NOT_AN_INT + refuse(cenote.CudaError, -1, 0, 9999) + refuse(OverflowError, 2**31, 10**30)),
        "device": (0, DEVICE),
    },
    "driver.device_name": {"device": (0, DEVICE)},
    "driver.compute_capability": {"device": (0, DEVICE)},
    "driver.memory_info": {"device": (0, DEVICE)},
    "driver.synchronize": {"device": (0, DEVICE)},
    "driver.DeviceProperties": {"device": (0, DEVICE)},
    "driver.device_properties": {"device": (0, DEVICE)},
    # cenote.registry
    "registry.find_per_device_resource": {"device": (0, NOT_AN_INT + refuse(IndexError, -1, 2**31, 2**64))},
    "registry.set_default_specification": {
        "specification": (
            "pool:initial=1MiB | cuda",
            but(TEXT, None) + refuse(ValueError, "", "|", "text", "cuda | cuda", "pool:initial=-1 | cuda", "\ud800"),
        )
    },
    "registry.Usage": {name: (0, ANYTHING) for name in ("bytes", "peak_bytes", "allocations", "total_allocations")},
    "registry.Client": {"name": ("bad input", TEXT + refuse(ValueError, "\ud800"))},
    "registry.Holding": {name: (0, ANYTHING) for name in ("bytes", "allocations")},
    "registry.tag": {"name": ("bad input", TEXT + refuse(ValueError, "\ud800"))},
    "registry.tag.__call__": {"function": (nothing_freed, refuse(TypeError, None, "text", 7, 1.5, object(), []))},
    "registry.sample_sites": {"every": (0, COUNT)},
    "registry.usage": {
        "by": (
            "tag",
            refuse(TypeError, None, 7, 1.5, b"tag", object(), []) + refuse(ValueError, "", "device", "Tag"),
        )
    },
    "registry.Client.allocate": {
        "nbytes": (KIB, ALLOCATION),
        "stream": (DEFAULT, STREAM),
        "device": (0, OPTIONAL_DEVICE),
    },
    "registry.Client.deallocate": {"ptr": (0, COUNT), "stream": (DEFAULT, STREAM)},
    "registry.Client.record_stream": {"ptr": (0, COUNT), "stream": (DEFAULT, STREAM)},
    "registry.Client.share": {"ptr": (0, COUNT)},
    "registry.Client.offer": {
        "ptr": (256, COUNT),
        "nbytes": (KIB, COUNT),
        "stream": (DEFAULT, STREAM),
        "device": (0, OPTIONAL_DEVICE),
    },
    "registry.Client.withdraw": {"ptr": (256, COUNT)},
    "registry.Client.bytes_on": {"device": (0, DEVICE)},
    # cenote: setting up anew
    "initialization.reinitialize": {
        "pool_allocator": (True, ANYTHING),
        "managed_memory": (False, ANYTHING),
        "initial_pool_size": (
            MIB,
            but(POOL_SIZE, True) + refuse(RuntimeError, True) + refuse(MemoryError, 2**63, 2**64 - 256),
        ),
        "maximum_pool_size": (None, but(POOL_SIZE, True) + refuse(RuntimeError, True, 0, MIB - 256)),
        "devices": (
            0,
            but(OPTIONAL_DEVICE, [], b"")  # which name no device
            + refuse(TypeError, [None], [0, 1.5], [[0]], [True], "0")
            + refuse(IndexError, [0, 2], (-1,), [2**64]),
        ),
        "logging": (True, ANYTHING),
        "log_file_name": ("log.csv", UNUSABLE_PATH + refuse(ValueError, None)),
    },
    "initialization.register_reinitialize_hook": {"func": (give, CALLABLE)},
    "initialization.unregister_reinitialize_hook": {"func": (give, ANYTHING)},  # who never was a hook is none
    # cenote.budgets
    "budgets.Budget": {field.name: (0, ANYTHING) for field in dataclasses.fields(budgets.Budget)},
    "budgets.budget": {
        "amount": (
            "60%",
            refuse(TypeError, b"", object(), [], 1.5, NAN, True)
            + refuse(ValueError, "", "text", "101%", "-1%", "nan%", "%", "50 %%", -1, "1 GiX", "99999999 TiB"),
        ),
        "device": (0, OPTIONAL_DEVICE),
        "share": (
            None,
            refuse(TypeError, b"", object(), [], 1.5, True, 7)
            + refuse(ValueError, "", "a/b", "..", ".", "a b", "null\0character", "x" * 101),
        ),
    },
    "budgets.get_budget": {"device": (0, OPTIONAL_DEVICE)},
    # cenote.logs
    "floor.page_floor": {
        "trace": (EVENTS, TRACE),
        "page_bytes": (MIB, NOT_AN_INT + refuse(ValueError, 0, -256, 255, MIB + 1)),
    },
    "floor.PageFloor": {field.name: (0, ANYTHING) for field in dataclasses.fields(floor.PageFloor)},
    "trace.read": {
        "path": (
            trace.example(),
            refuse(TypeError, None, b"run.csv", object(), [], 1.5, NAN, True, 7)
            + refuse(ValueError, "", "null\0character")
            + refuse(trace.TraceError, "no/such/path.csv"),
        )
    },
    "trace.bytes_in_use": {"trace": (EVENTS, TRACE)},
    "replay.Replay": {
        "mr": (CUDA, NO_RESOURCE),
        "streams": ({0: DEFAULT}, NO_STREAMS),
    },
    "replay.Replay.play": PLAYED
    | {
        "start": (0, NOT_AN_INT),
        "stop": (None, but(NOT_AN_INT, None)),
    },
    "replay.ReplayOutOfMemoryError": {name: (0, ANYTHING) for name in ("message", "event", "requested", "in_use")},
    "replay.ReplayResult": {field.name: (0, ANYTHING) for field in dataclasses.fields(replay.ReplayResult)},
    "replay.replay": PLAYED
    | {
        "mr": (CUDA, NO_RESOURCE),
        "streams": (None, but(NO_STREAMS, None) + refuse(ValueError, {})),
        "at_once": (False, ANYTHING),
    },
    "replay.streams_of": {"trace": (EVENTS, TRACE), "device": (0, but(NOT_AN_INT, None))},
    "timeline.draw": {
        "path": ("run.png", PATH_OF_PICTURE),
        "in_use": (STEPS, refuse(TypeError, None, "text", [], 7, object(), timeline.Steps)),
        "held": (None, refuse(TypeError, "text", [], 7, object(), timeline.Steps)),
        "title": ("", ANYTHING),
        "subtitle": ("", ANYTHING),
        "by_event": (False, ANYTHING),
    },
    "timeline.from_trace": {"trace": (EVENTS, TRACE)},
    "timeline.picture_format": {"path": ("run.png", PATH_OF_PICTURE)},
    # cenote.pressure
    "pressure.add_pressure_handler": {
        "function": (nothing_freed, refuse(TypeError, None, "text", 7, 1.5, object(), [])),
        "priority": (0, NOT_AN_INT + refuse(ValueError, 2**31, -(2**31), 10**30)),
        "name": (None, refuse(TypeError, 7, 1.5, b"", object(), []) + refuse(ValueError, "\ud800")),
        "timeout": (
            1.0,
            refuse(TypeError, None, "text", b"", object(), [], True) + refuse(ValueError, -1, NAN, INF, 1e9),
        ),
    },
    "pressure.remove_pressure_handler": {"handler": (nothing_freed, refuse(TypeError, None, "text", 7, 1.5, object()))},
    "pressure.HandlerFigures": {field.name: (0, ANYTHING) for field in dataclasses.fields(pressure.HandlerFigures)},
    "pressure.PressureHandler": {name: (0, ANYTHING) for name in ("number", "core_number", "function")},
    "pressure.collect_garbage": {name: (0, ANYTHING) for name in ("nbytes", "device")},
    "pressure.empty_cupy_cache": {name: (0, ANYTHING) for name in ("nbytes", "device")},
    "pressure.empty_torch_cache": {name: (0, ANYTHING) for name in ("nbytes", "device")},
    # cenote.pausing
    "pausing.region": {
        "name": ("bad input", TEXT + refuse(ValueError, "")),
        "device": (None, but(NOT_AN_INT, None) + refuse(IndexError, -1, 64, 2**31, 2**64, 10**30)),
        "resource": (None, refuse(TypeError, 7, 1.5, b"", object(), [])),
    },
    "pausing.region.read_paused": {
        "ptr": (BLOCK, COUNT),
        "buffer": (HOST, READABLE + refuse(BufferError, b"read only")),
    },
    "pausing.pause": {
        "region": (
            Later(lambda: mr.from_spec("pool")),
            refuse(TypeError, 7, 1.5, b"", object(), []) + refuse(ValueError, "", "nobody's", "\ud800"),
        ),
        "keep": ("nothing", TEXT + refuse(ValueError, "", "hosts", "fill:256", "fill:-1", "\ud800")),
        "fill": (0, but(NOT_AN_INT, None) + refuse(ValueError, -1, 256, 2**64, 10**30)),
    },
    "pausing.resume": {
        "region": (
            Later(paused_pool),
            refuse(TypeError, 7, 1.5, b"", object(), []) + refuse(ValueError, "", "nobody's", "\ud800"),
        ),
    },
    "pausing.keep_pinned": {"nbytes": (2**40, SIZE)},
    # cenote.recorder
    "recorder.snapshot": {"device": (0, NOT_AN_INT + refuse(ValueError, -1, 64, 2**31, 10**30))},
    "recorder.file_of": {"device": (0, NOT_AN_INT + refuse(ValueError, -1, 64, 2**31, 10**30))},
    "recorder.read": {"path": (RECORDING, PATH + refuse(recorder.RecordingError, "no/such/path.rec", trace.example()))},
    "recorder.is_recording_file": {"path": (RECORDING, PATH)},
    "recorder.Recording": {
        field.name: (getattr(RECORDED, field.name), ANYTHING) for field in dataclasses.fields(recorder.Recording)
    },
    "recorder.Recording.save": {"path": ("saved.rec", PATH + refuse(OSError, "no/such/folder/saved.rec"))},
    "recorder.Recording.held_by": {"by": ("tag", refuse(ValueError, None, 7, "", "site", b"tag"))},
    "recorder.from_trace": {"trace": (EVENTS, TRACE), "device": (0, NOT_AN_INT + refuse(ValueError, -1, 64, 10**30))},
    "recorder.Recording.bytes_over_time": {"by": ("tag", refuse(ValueError, None, 7, "", "site", b"tag"))},
    # cenote.explanation, cenote.report
    "explanation.explain": {
        "what": (
            RuntimeError("out of memory"),
            refuse(TypeError, 7, 1.5, b"text", object(), []) + refuse(ValueError, "", "no/such/path.rec"),
        ),
        "device": (None, but(NOT_AN_INT, None) + refuse(ValueError, -1, 64, 10**30)),
        "advice": (False, ANYTHING),
    },
    "explanation.Advice": {field.name: ("", ANYTHING) for field in dataclasses.fields(explanation.Advice)},
    "explanation.Part": {name: (0, ANYTHING) for name in ("name", "bytes")},
    "explanation.Growth": {name: (0, ANYTHING) for name in ("kind", "name", "bytes", "held_bytes")},
    "explanation.Explanation": {
        field.name: (getattr(EXPLANATION, field.name), ANYTHING)
        for field in dataclasses.fields(explanation.Explanation)
    },
    "explanation.Explanation.save": {"path": ("page.html", PATH + refuse(OSError, "no/such/folder/page.html"))},
    **{
        f"exports.{name}": {
            "path": ("export.json", PATH + refuse(OSError, "no/such/folder/export.json")),
            "recording": (RECORDED, refuse(TypeError, None, 7, "text", object())),
        }
        for name in ("write_torch_snapshot", "write_chrome_trace")
    },
    "report.write_report": {
        "path": ("page.html", PATH + refuse(OSError, "no/such/folder/page.html")),
        "explanation": (EXPLANATION, refuse(TypeError, None, 7, "text", object())),
    },
    "report.table_of": {"explanation": (EXPLANATION, refuse(TypeError, None, 7, "text", object()))},
    # cenote.units
    "units.format_bytes": {"nbytes": (1536, but(NOT_AN_INT, None))},
    "units.parse_bytes": {"size": ("1.5 GiB", but(NOT_AN_INT, "text", True) + NO_SIZE)},
}

if importlib.util.find_spec("distributed") is not None:
    NO_SIZE_OF_DASK = refuse(TypeError, b"", object(), [], True) + refuse(
        ValueError, "", "text", "1 GiX", -1, "-1", NAN, INF
    )
    MODULES = (*MODULES, importlib.import_module("cenote.dask.options"))
    TABLE["options.specification_from_dask_cuda"] = {
        "rmm_pool_size": ("1GiB", NO_SIZE_OF_DASK),
        "rmm_maximum_pool_size": ("2GiB", NO_SIZE_OF_DASK),
        "rmm_managed_memory": (False, refuse(ValueError, True)),  # as rmm_async is
        "rmm_async": (True, refuse(ValueError, False)),  # as there is a threshold
        "rmm_release_threshold": ("1GiB", NO_SIZE_OF_DASK),
        "rmm_track_allocations": (False, ANYTHING),
        "rmm_log_directory": ("logs", refuse(TypeError, b"logs", object(), [], 1.5, True, 7)),
    }
