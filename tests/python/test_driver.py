"""The driver: which one is used, when, and what is said where there is none."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable
from enum import Enum, IntEnum
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote
from cenote import driver

RunFresh = Callable[..., CompletedProcess[str]]

EACH_FIRST_USE = """
import cenote
uses = {
    "version": cenote.driver.version,
    "library": cenote.driver.library,
    "is_simulated": cenote.driver.is_simulated,
    "device_count": cenote.driver.device_count,
    "current_device": cenote.driver.current_device,
    "cuda": cenote.mr.CudaMemoryResource,
    "managed": cenote.mr.ManagedMemoryResource,
    "pinned": cenote.mr.PinnedHostMemoryResource,
    "async": cenote.mr.CudaAsyncMemoryResource,
    "specification": lambda: cenote.mr.from_spec("cuda"),
    "registry": cenote.mr.get_current_device_resource,
    "client": lambda: cenote.registry.Client("first").allocate(1),
    "buffer": lambda: cenote.DeviceBuffer(size=1),
    "no bytes": lambda: cenote.DeviceBuffer(),
    "stream": cenote.Stream,
    "wait": cenote.DEFAULT_STREAM.synchronize,
}
for name, use in uses.items():
    try:
        use()
    except cenote.DriverUnavailableError as error:
        for word in WORDS:
            assert word in str(error), f"{name}: {error}"
        assert isinstance(error, cenote.CudaError) and isinstance(error, RuntimeError)
    else:
        raise AssertionError(name)
assert not cenote.driver.is_loaded()
"""


def unavailable(*words: str) -> str:
    return f"WORDS = {words!r}\n{EACH_FIRST_USE}"


def test_missing_driver_is_named_with_the_way_out(run_fresh: RunFresh) -> None:
    run_fresh(
        unavailable("CENOTE_CUDA_DRIVER is '/no/such/libcuda.so.1'", "NVIDIA driver", "CENOTE_CUDA_DRIVER=sim"),
        CENOTE_CUDA_DRIVER="/no/such/libcuda.so.1",
    )


def test_library_that_is_no_driver_is_named(run_fresh: RunFresh) -> None:
    run_fresh(unavailable("'libm.so.6' is no CUDA driver", "CENOTE_CUDA_DRIVER=sim"), CENOTE_CUDA_DRIVER="libm.so.6")


def test_driver_that_is_too_old_is_told_with_both_versions(run_fresh: RunFresh) -> None:
    run_fresh(unavailable("11.8", "12.0 or newer", "CENOTE_SIM describes"), CENOTE_SIM="driver=11080")


def test_driver_without_a_device_is_told(run_fresh: RunFresh) -> None:
    run_fresh(unavailable("no device", "CUDA_ERROR_NO_DEVICE", "CENOTE_SIM describes"), CENOTE_SIM="devices=0")


@pytest.mark.parametrize("version", [12000, 12040, 12080, 13000])
def test_every_driver_since_12_0_serves(run_fresh: RunFresh, version: int) -> None:
    run_fresh(
        f"""
        import cenote
        assert cenote.driver.version() == {version}
        streams = [cenote.Stream(), cenote.Stream()]
        for specification in ("cuda", "managed", "pinned", "async", "pool:initial=0", "pool:initial=0 | async"):
            resource = cenote.mr.from_spec(specification)
            for turn in range(20):
                address = resource.allocate(1000 * (turn + 1), streams[turn % 2])
                resource.deallocate(address, 1000 * (turn + 1), streams[turn // 2 % 2])
            resource.trim()
            resource.check()
        client = cenote.registry.Client("old")
        client.deallocate(client.allocate(1000, streams[0]), streams[1])
        assert cenote.sim.violations() == []
        """,
        CENOTE_SIM=f"driver={version}",
    )


@pytest.mark.parametrize("text", ["devices=many", "memory=12 parsecs", "lakes=3", "devices", "memory=", "name="])
def test_wrong_settings_of_the_simulated_device_are_an_error(run_fresh: RunFresh, text: str) -> None:
    done = run_fresh(
        """
        import cenote
        try:
            cenote.driver.version()
        except cenote.DriverUnavailableError as error:
            print(error)
        else:
            raise AssertionError
        """,
        CENOTE_SIM=text,
    )
    assert f"CENOTE_SIM: {text}" in done.stdout or f"CENOTE_SIM: '{text}'" in done.stdout, done.stdout
    assert "set CENOTE_CUDA_DRIVER=sim" not in done.stdout


def test_importing_loads_no_driver_and_no_framework(run_fresh: RunFresh) -> None:
    run_fresh(
        """
        import sys
        import cenote
        import cenote.allocators
        from cenote import driver, frameworks, registry, sim, statistics, stream
        assert "numpy" not in sys.modules  # 200 ms, which only those need who read logs or copy arrays
        from cenote import replay, timeline, trace
        assert not driver.is_loaded()
        unwanted = {"torch", "cupy", "numba", "cuda", "rich", "matplotlib", "pandas", "ctypes.util"}
        assert not unwanted & set(sys.modules), unwanted & set(sys.modules)
        """,
        CENOTE_CUDA_DRIVER=None,
    )


def test_driver_of_the_environment_is_the_one_that_is_used() -> None:
    assert driver.is_loaded()
    assert driver.is_simulated()
    assert driver.library().endswith("libcenote_sim.so")
    assert driver.version() == 13000
    assert driver.device_count() == 2
    assert driver.current_device() == 0


def test_devices_have_a_name_and_memory() -> None:
    for device in (0, 1):
        assert driver.device_name(device)
        assert driver.compute_capability(device) >= (7, 5)
        free, total = driver.memory_info(device)
        assert 0 < free <= total == 8 * 1024**3
        driver.synchronize(device)


@pytest.mark.parametrize("device", [-1, 2, 2**31 - 1])
@pytest.mark.parametrize(
    "ask",
    [
        *(driver.device_name, driver.compute_capability, driver.memory_info, driver.synchronize),
        *(driver.set_device, driver.device_properties, lambda device: driver.device_attribute(75, device)),
    ],
)
def test_device_that_is_not_there_is_an_index_error(ask: Callable[[int], object], device: int) -> None:
    with pytest.raises(IndexError, match=f"no device {device}: this machine has devices 0 to 1"):
        ask(device)


@pytest.mark.parametrize("ask", [driver.device_name, driver.memory_info, driver.set_device, driver.device_properties])
def test_device_that_is_no_number_is_a_type_error(ask: Callable[[object], object]) -> None:
    with pytest.raises(TypeError):
        ask("0")


def test_device_that_is_set_is_current_on_this_thread_only() -> None:
    def work() -> None:
        driver.set_device(1)
        seen.append((driver.current_device(), cenote.DeviceBuffer(size=1).device))

    seen: list[tuple[int, int]] = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(1, 1)]
    assert driver.current_device() == 0


def test_attributes_are_asked_by_number_or_by_enum() -> None:
    class Attribute(Enum):
        COMPUTE_CAPABILITY_MAJOR = 75

    class Number(IntEnum):
        WARP_SIZE = 10

    assert driver.device_attribute(Attribute.COMPUTE_CAPABILITY_MAJOR, 0) == driver.compute_capability(0)[0]
    assert driver.device_attribute(Number.WARP_SIZE, 1) == driver.device_attribute(10, 1) == 32


@pytest.mark.parametrize(("wrong", "error"), [(0, cenote.CudaError), (-1, cenote.CudaError), (2**20, cenote.CudaError)])
def test_attribute_that_is_not_there_is_an_error_of_the_driver(wrong: int, error: type[Exception]) -> None:
    with pytest.raises(error, match="cuDeviceGetAttribute failed: CUDA_ERROR_INVALID_VALUE"):
        driver.device_attribute(wrong, 0)


@pytest.mark.parametrize("wrong", [None, "75", 7.5])
def test_attribute_that_is_no_number_is_a_type_error(wrong: Any) -> None:
    with pytest.raises(TypeError):
        driver.device_attribute(wrong, 0)


def test_properties_have_the_names_of_the_cuda_runtime() -> None:
    properties = driver.device_properties(1)
    assert properties.name == driver.device_name(1)
    assert properties.totalGlobalMem == 8 * 1024**3
    assert (properties.major, properties.minor) == driver.compute_capability(1)
    assert properties.maxThreadsDim == (1024, 1024, 64)
    assert properties.multiProcessorCount > 0 and properties.pciBusID != driver.device_properties(0).pciBusID
    for field in dir(properties):
        assert isinstance(getattr(properties, field), int | str | tuple), field
    assert not hasattr(properties, "uuid") and "device 1" in repr(properties)


def test_runtime_version_is_what_headers_and_driver_both_have(run_fresh: RunFresh) -> None:
    assert driver.runtime_version() == driver.version() == 13000
    run_fresh(
        "import cenote; assert cenote.driver.runtime_version() == 12040",
        CENOTE_SIM="driver=12040",
    )


def test_errors_survive_pickling() -> None:
    with cenote.sim.failing("cuMemAlloc", error="CUDA_ERROR_ILLEGAL_ADDRESS"), pytest.raises(cenote.CudaError) as cuda:
        cenote.mr.CudaMemoryResource().allocate(1)
    with pytest.raises(cenote.OutOfMemoryError) as memory:
        cenote.mr.CudaMemoryResource().allocate(2**40)
    for error in (cuda.value, memory.value, cenote.DriverUnavailableError("no driver")):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert cuda.value.status == cuda.value.code == 700


def test_memory_info_follows_what_is_allocated() -> None:
    free, _ = driver.memory_info(1)
    resource = cenote.mr.from_spec("cuda", 1)
    address = resource.allocate(1024**2)
    assert driver.memory_info(1)[0] == free - 1024**2
    resource.deallocate(address, 1024**2)
    assert driver.memory_info(1)[0] == free


def test_failed_call_names_itself_and_the_error() -> None:
    with (
        cenote.sim.failing("cuMemAlloc", error="CUDA_ERROR_ILLEGAL_ADDRESS"),
        pytest.raises(cenote.CudaError) as caught,
    ):
        cenote.mr.CudaMemoryResource().allocate(1)
    error = caught.value
    assert (error.call, error.code, error.name) == ("cuMemAlloc", 700, "CUDA_ERROR_ILLEGAL_ADDRESS")
    assert "cuMemAlloc failed: CUDA_ERROR_ILLEGAL_ADDRESS (700)" in str(error)
    assert not isinstance(error, MemoryError)


FORKED = """
import os
import cenote
buffer = cenote.DeviceBuffer.to_device(b"of the parent")
mr = cenote.mr.get_current_device_resource()
stream = cenote.Stream()
child = os.fork()
if child == 0:
    refused = 0
    uses = (cenote.driver.version, lambda: mr.allocate(1), lambda: cenote.DeviceBuffer(size=1), buffer.tobytes)
    for use in uses:
        try:
            use()
        except cenote.DriverUnavailableError as error:
            refused += "fork" in str(error) and "spawn" in str(error)
    del buffer, stream, mr  # nothing of the parent's is touched
    os._exit(0 if refused == len(uses) else 1)
assert os.waitpid(child, 0)[1] == 0
assert buffer.tobytes() == b"of the parent"
assert cenote.sim.violations() == []
"""


def test_forked_child_is_told_to_spawn(run_fresh: RunFresh) -> None:
    run_fresh(FORKED)


FORKED_WITH_MEMORY_AT_ONCE = """
import os
import cenote
pool = cenote.mr.PoolMemoryResource(cenote.mr.CudaMemoryResource(), "1MiB", "1MiB")
client = cenote.registry.Client("forked")
cenote.mr.set_current_device_resource(pool)
for _ in range(4):
    client.deallocate(client.allocate(1000))
    pool.deallocate(pool.allocate(1000), 1000)
child = os.fork()
if child == 0:
    refused = 0
    uses = (
        lambda: pool.allocate(1000),
        lambda: client.allocate(1000, device=0),
        lambda: cenote.DeviceBuffer(size=1000, mr=pool),
    )
    for use in uses:
        try:
            use()
        except cenote.DriverUnavailableError:
            refused += 1
    os._exit(0 if refused == len(uses) else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_forked_child_gets_nothing_of_what_its_parent_had_at_once(run_fresh: RunFresh) -> None:
    run_fresh(FORKED_WITH_MEMORY_AT_ONCE)


FORKED_BESIDE_THREADS = """
import os, signal, threading
import cenote
from cenote import mr, statistics

pool = mr.from_spec("pool:initial=1MiB | cuda")
resources = [mr.from_spec(spec) for spec in (
    "tracking:capture_stacks=true | pool:initial=1MiB", "statistics | pool:initial=1MiB", "guard | pool:initial=1MiB",
    "limiting:limit=1GiB | cuda", "thread_safe | cuda", "binning", "arena:size=8MiB", "fixed_size", "async", "managed",
)]
tracking, counting, guard = resources[:3]
mr.set_current_device_resource(counting)
client = cenote.registry.Client("forked")
records = statistics.ProfilerRecords()
counts = statistics.Statistics(0, 0, 0, 0, 0, 0)
buffer = cenote.DeviceBuffer(size=1000, mr=pool)
uses = [
    pool.counters, pool.pool_size,
    tracking.get_allocated_bytes, tracking.leak_report, tracking.get_outstanding_allocations_str,
    lambda: counting.allocation_counts, counting.push_counters, counting.pop_counters,
    guard.find_overruns, lambda: guard.overruns_found,
    cenote.usage, lambda: cenote.registry.Client("another"), lambda: client.deallocate(client.allocate(1000)),
    mr.get_current_device_resource, mr.enable_logging, mr.disable_logging, mr.get_log_filenames,
    cenote.registry.devices_with_resource, lambda: mr.from_spec("pool"), cenote.reinitialize,
    cenote.available_device_memory, cenote.driver.version, cenote.driver.device_count,
    statistics.get_statistics, statistics.push_statistics, statistics.pop_statistics, statistics.enable_statistics,
    lambda: records.add("name", counts), records.report, lambda: records.records,
    lambda: cenote.DeviceBuffer(size=10), buffer.tobytes, buffer.copy, lambda: buffer.resize(2000),
    lambda: buffer.reserve(3000), lambda: buffer.size, lambda: buffer.__cuda_array_interface__, buffer.__dlpack__,
    cenote.Stream, lambda: cenote.Stream().synchronize(),
    cenote.sim.calls, cenote.sim.live, cenote.sim.violations, cenote.sim.pending,
    lambda: cenote.logger.should_log(cenote.logger.level_enum.info), cenote.logger.flush_logger,
]
for each in (pool, *resources):
    uses += [each.state, each.check, each.trim, each.in_use, each.largest_free, lambda each=each: each.specification]
    uses += [lambda each=each: each.deallocate(each.allocate(1000), 1000), each.__repr__]
calm = [use for use in uses if use not in (cenote.reinitialize, mr.enable_logging, cenote.sim.violations)]
is_over = False

def use_all(of):
    while not is_over:
        for use in of:
            try:
                use()
            except (cenote.CudaError, MemoryError, ValueError, IndexError, RuntimeError, BufferError):
                pass

threads = [threading.Thread(target=use_all, args=(calm[i:] + calm[:i],)) for i in (0, len(calm) // 2)]
for thread in threads:
    thread.start()
try:
    for _ in range(20):
        child = os.fork()
        if child == 0:
            for use in uses:
                signal.alarm(20)
                try:
                    use()
                except (cenote.DriverUnavailableError, ValueError, IndexError):
                    pass
                except (BufferError, RuntimeError):  # a thread of the parent had the buffer or a view of it
                    pass
            os._exit(0)
        status = os.waitpid(child, 0)[1]
        assert status == 0, f"ended by signal {os.WTERMSIG(status)} (14: it hung)"
finally:
    is_over = True
    for thread in threads:
        thread.join()
"""


def test_forked_child_gets_an_answer_or_a_plain_error_beside_threads_of_its_parent(run_fresh: RunFresh) -> None:
    run_fresh(FORKED_BESIDE_THREADS)


def test_child_that_was_forked_before_first_use_works(run_fresh: RunFresh) -> None:
    run_fresh("""
        import os
        import cenote
        child = os.fork()
        assert cenote.DeviceBuffer.to_device(b"here").tobytes() == b"here"
        if child == 0:
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
    """)


@pytest.mark.parametrize("specification", ["cuda", "pool:initial=0", "async", "statistics | pool | managed"])
def test_process_ends_in_silence_with_everything_still_alive(run_fresh: RunFresh, specification: str) -> None:
    done = run_fresh(f"""
        import cenote
        resource = cenote.mr.from_spec({specification!r})
        cenote.mr.set_current_device_resource(resource)
        kept = [cenote.DeviceBuffer(size=1000, stream=cenote.Stream()) for _ in range(3)]
        client = cenote.registry.Client("until the end")
        address = client.allocate(1000, kept[0].stream)
        import builtins
        builtins.kept = kept
    """)
    assert (done.stdout, done.stderr) == ("", "")
