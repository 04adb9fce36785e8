"""Bad objects: frees of what must not be freed, what other code hands over, and what was closed or destroyed before."""

from __future__ import annotations

import copy
import pickle
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cenote
import cenote.logs.replay
from cenote import mr, registry, sim

KIB, MIB = 1024, 1024**2

BASES = ["cuda", "managed", "pinned", "system", "async", "sam_headroom:headroom=1MiB", "async_managed"]
POOLS = ["pool:initial=1MiB", "arena:size=1MiB", "fixed_size:block_size=4KiB,preallocate=4", "binning:min=8,max=12"]
ADAPTORS = [
    "statistics",
    "tracking",
    "limiting:limit=1MiB",
    "prefetch",
    "aligned:alignment=512",
    "guard",
    "thread_safe",
]

BAD_FREES = """
    from cenote import driver, mr, sim
    {make}
    print(resource.specification)
    good, other = resource.allocate(1024), resource.allocate(1024)
    for unknown in (7, 256, good + 256, 2**64 - 256, 0x7f0000000000):
        for size in (0, 1, 1024, 2**64 - 1):
            resource.deallocate(unknown, size)
            resource.deallocate(unknown, size, alignment=4096)
    resource.deallocate(good, 1024, alignment=4096)
    resource.deallocate(good, 1024)
    resource.deallocate(good, 1024)
    resource.deallocate(other, 2**64 - 1)
    resource.deallocate(other, 5)
    resource.check()
    blocks = [resource.allocate(1024) for _ in range(3)]
    assert len({{*blocks}}) == 3 and all(block % 256 == 0 for block in blocks)
    for block in blocks:
        resource.deallocate(block, 1024)
    resource.check()
    driver.synchronize(0)
"""


def assert_reported_once(finished: subprocess.CompletedProcess[str]) -> None:
    reports = [line for line in finished.stderr.splitlines() if "freed" in line or "Free" in line]
    assert reports, "nothing was reported"
    assert len(reports) == len(set(reports))


@pytest.mark.parametrize("text", [*BASES, *POOLS, *ADAPTORS, *(f"{it} | pool:initial=1MiB" for it in ADAPTORS)])
def test_bad_frees_are_reported_once_and_ignored(
    text: str, run_fresh: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    finished = run_fresh(BAD_FREES.format(make=f"resource = mr.from_spec({text!r})"))
    print(finished.stdout, finished.stderr)
    assert_reported_once(finished)


def test_bad_frees_do_not_wrap_the_count_of_a_bin() -> None:
    binning = mr.BinningMemoryResource(mr.CudaMemoryResource(), 8, 12)
    for size in (1, 1024, 4097, 2**64 - 1):
        binning.deallocate(2**20 + 7, size)
    sim.clear_violations()
    binning.add_bin(2048, mr.CudaMemoryResource())
    binning.add_bin(MIB)


def test_client_ignores_what_it_was_never_given(run_fresh: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    finished = run_fresh(
        """
        from cenote import registry
        client = registry.Client("bad input")
        block = client.allocate(1024)
        for unknown in (7, block + 256, 2**64 - 1):
            client.deallocate(unknown)
            client.record_stream(unknown, 2)
            client.share(unknown)
        client.deallocate(block)
        client.deallocate(block)
        assert registry.usage()["bad input"].allocations == 0
        """
    )
    assert_reported_once(finished)


@pytest.mark.parametrize("handed", [None, "text", b"", 1.5, float("nan"), True, -1, 2**64, [], object()])
def test_address_that_a_callback_cannot_mean_is_a_runtime_error(handed: Any) -> None:
    resource = mr.CallbackMemoryResource(lambda size, stream: handed, lambda ptr, size, stream: None)
    pool = mr.PoolMemoryResource(resource, 0)
    for who in (resource, pool):
        with pytest.raises(RuntimeError) as caught:
            who.allocate(KIB)
        assert isinstance(caught.value.__cause__, TypeError | OverflowError)
        who.check()


def test_callback_without_a_return_is_told_so() -> None:
    def forgets(size: int, stream: cenote.Stream) -> None:
        """Has no return."""

    resource = mr.CallbackMemoryResource(forgets, lambda ptr, size, stream: None)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match=r"allocate_func must return the address of 1024 bytes .*forgets.*nothing"):
        resource.allocate(KIB)


def test_null_address_from_a_callback_is_out_of_memory() -> None:
    resource = mr.CallbackMemoryResource(lambda size, stream: 0, lambda ptr, size, stream: None)
    for who in (resource, mr.PoolMemoryResource(resource, 0)):
        with pytest.raises(cenote.OutOfMemoryError):
            who.allocate(KIB)


class Array:
    """What says that it is an array in device memory."""

    def __init__(self, **changes: Any) -> None:
        good = {"data": (0, False), "shape": (0,), "strides": None, "typestr": "|u1", "version": 3}
        self.__cuda_array_interface__ = {name: it for name, it in (good | changes).items() if it is not Array}


@pytest.mark.parametrize(
    "changes",
    [
        *({name: Array} for name in ("data", "shape", "typestr")),  # left out
        *({"data": bad} for bad in (None, (), (None, False), (-1, False), (2**64, False), (1.5, False), 7)),
        *(
            {"shape": bad}
            for bad in (None, 7, (None,), (1.5,), (float("nan"),), (-1,), (65,), (2**64,), (8, 8), ("8",))
        ),
        *({"typestr": bad} for bad in (None, "text", 7.5, "|u3", object())),
        *({"strides": bad} for bad in ((2,), ("1",), (-1,), (0,))),
        {"mask": np.zeros(1)},
    ],
)
def test_malformed_array_is_refused(changes: dict[str, Any]) -> None:
    buffer = cenote.DeviceBuffer.to_device(bytes(range(64)))
    with pytest.raises(ValueError, match=r"__cuda_array_interface__|one-dimensional|mask|do not fit"):
        buffer.copy_from_device(Array(**changes))
    assert buffer.tobytes() == bytes(range(64))


def test_copy_that_names_no_memory_is_an_error() -> None:
    buffer, block = cenote.DeviceBuffer(size=64), bytearray(64)
    null = 0
    for copies in (
        lambda: buffer.copy_from_device(Array(shape=(64,))),
        lambda: cenote.device_buffer.copy_ptr_to_host(null, block),
        lambda: cenote.device_buffer.copy_host_to_ptr(block, null),
        lambda: cenote.device_buffer.copy_device_to_ptr(null, buffer.ptr, 64),
        lambda: cenote.device_buffer.copy_device_to_ptr(buffer.ptr, null, 64),
    ):
        with pytest.raises(cenote.CudaError, match="cuMemcpyAsync"):
            copies()
    sim.clear_violations()


@pytest.mark.parametrize(
    "text",
    ["pool:initial=1MiB | cuda", "arena:size=1MiB | cuda", "limiting:limit=1MiB | pool:initial=0 | cuda"],
)
def test_stream_of_another_device_is_refused(text: str) -> None:
    resource, foreign = mr.from_spec(text), cenote.Stream(device=1)
    with pytest.raises(ValueError, match="a stream of device 1 cannot order memory of device 0"):
        resource.allocate(KIB, foreign)
    sim.clear_violations()
    resource.deallocate(resource.allocate(KIB), KIB)
    resource.check()


@pytest.mark.parametrize("text", ["pool:initial=1MiB", "async", "arena:size=1MiB", "tracking | pool:initial=0 | async"])
def test_free_on_a_stream_that_was_destroyed_says_what_becomes_of_the_block(
    text: str, run_fresh: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    finished = run_fresh(
        f"""
        import ctypes
        from cenote import mr, sim
        resource = mr.from_spec({text!r})
        driver = ctypes.CDLL(str(sim._library.find_library()))
        context, stream = ctypes.c_void_p(), ctypes.c_void_p()
        assert driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
        assert driver.cuCtxPushCurrent_v2(context) == 0
        assert driver.cuStreamCreate(ctypes.byref(stream), 1) == 0
        block = resource.allocate(1024, stream.value)
        assert driver.cuStreamDestroy_v2(stream) == 0
        resource.deallocate(block, 1024, stream.value)
        """
    )
    (report,) = finished.stderr.splitlines()
    assert report.startswith("cenote: a block "), report
    assert "leaked" in report or "not used again before" in report, report
    assert "the stream, event or pool was destroyed" in report, report


def test_bin_of_another_device_is_refused() -> None:
    binning = mr.BinningMemoryResource(mr.CudaMemoryResource())
    with pytest.raises(ValueError, match="device 1"):
        binning.add_bin(KIB, mr.from_spec("cuda", 1))
    assert binning.bin_mrs == []


@pytest.mark.parametrize("handle", [7, 4096, 2**63, 2**64 - 1])
def test_pool_that_never_was_has_no_memory(handle: int) -> None:
    view = mr.CudaAsyncViewMemoryResource(handle)
    with pytest.raises(MemoryError, match="destroyed"):
        view.allocate(KIB)
    view.check()
    assert view.pool_handle() == handle
    sim.clear_violations()


@pytest.mark.parametrize("copy_it", [pickle.dumps, copy.copy, copy.deepcopy])
@pytest.mark.parametrize(
    "make",
    [
        mr.CudaMemoryResource,
        lambda: mr.from_spec("statistics | pool:initial=1MiB"),
        lambda: mr.CallbackMemoryResource(lambda size, stream: 0, lambda ptr, size, stream: None),
        cenote.Stream,
        lambda: cenote.DEFAULT_STREAM,
        lambda: cenote.CudaStreamPool(2),
    ],
)
def test_what_belongs_to_the_process_says_that_it_cannot_be_pickled(
    make: Callable[[], Any], copy_it: Callable[[Any], object]
) -> None:
    it = make()
    with pytest.raises(TypeError, match=f"a {type(it).__name__} cannot be pickled or copied: .*pass it on"):
        copy_it(it)


def test_client_is_pickled_as_its_name() -> None:
    client = registry.Client("pickled")
    again = pickle.loads(pickle.dumps(client))
    address = again.allocate(KIB)
    assert (again.name, registry.usage()["pickled"].allocations) == ("pickled", 1)
    client.deallocate(address)
    assert registry.usage()["pickled"].allocations == 0


def test_error_of_a_replay_can_be_pickled() -> None:
    error = cenote.logs.replay.ReplayOutOfMemoryError("at event 3", event=2, requested=64, in_use=32)
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.event, again.requested, again.in_use) == ("at event 3", 2, 64, 32)


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(10**6000, id="huge"),
        pytest.param(-(10**6000), id="hugely negative"),
        np.arange(3),
        np.bool_(True),
        np.float32(1),
    ],
)
def test_size_that_python_itself_cannot_show_is_refused_by_name(size: Any) -> None:
    for refuses in (
        lambda: cenote.DeviceBuffer(size=size),
        lambda: mr.PoolMemoryResource(mr.CudaMemoryResource(), initial_pool_size=size),
        lambda: mr.get_per_device_resource(size),
        lambda: cenote.DeviceBuffer(size=8, stream=size),
    ):
        with pytest.raises((TypeError, ValueError, OverflowError, IndexError), match=r"size|device|stream"):
            refuses()


@pytest.mark.parametrize("text", ["l\xe4ke", "cu\udcffda", "cu\x00da", "x" * 10_000, "\u2026" * 100])
def test_wrong_word_of_a_specification_is_shown_in_one_short_line(text: str) -> None:
    with pytest.raises(ValueError, match="is not a known resource") as caught:
        mr.from_spec(text)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


def test_closed_buffer_is_an_empty_one() -> None:
    buffer = cenote.DeviceBuffer.to_device(b"contents")
    buffer.close()
    buffer.close()
    assert (buffer.ptr, buffer.size, buffer.tobytes(), bytes(buffer), len(buffer)) == (0, 0, b"", b"", 0)
    buffer.prefetch()
    buffer.copy_from_host(b"")
    buffer.shrink_to_fit()
    assert buffer.copy().size == 0
    with pytest.raises(ValueError, match="do not fit"):
        buffer.copy_from_host(b"x")
    buffer.resize(8)
    buffer.copy_from_host(b"contents")
    assert buffer.tobytes() == b"contents"


@pytest.mark.parametrize("protocol", [bytes, len, repr, memoryview, np.asarray, lambda it: it.__reduce_ex__(5)])
def test_protocols_of_a_buffer_that_was_never_made_raise(protocol: Callable[[Any], object]) -> None:
    with pytest.raises(RuntimeError, match="never initialised"):
        protocol(cenote.DeviceBuffer.__new__(cenote.DeviceBuffer))


@pytest.mark.parametrize("cls", [mr.CudaMemoryResource, mr.PoolMemoryResource, cenote.Stream, cenote.CudaStreamPool])
def test_failed_constructor_leaves_nothing_that_could_be_used(cls: type[Any]) -> None:
    unmade = cls.__new__(cls)
    live = sim.live()
    for _ in range(2):
        with pytest.raises(TypeError):
            unmade.__init__(object(), object(), object(), object())
    for use in (repr, lambda it: cenote.DeviceBuffer(size=1, mr=it), lambda it: cenote.DeviceBuffer(size=1, stream=it)):
        with pytest.raises((RuntimeError, TypeError)):
            use(unmade)
    assert sim.live() == live


def test_hook_that_raises_leaves_the_resources_as_they_were(tmp_path: Path) -> None:
    def fails() -> None:
        raise KeyError("hook")

    pool = mr.PoolMemoryResource(mr.CudaMemoryResource(), MIB)
    mr.set_current_device_resource(pool)
    cenote.register_reinitialize_hook(fails)
    try:
        with pytest.raises(KeyError, match="hook"):
            cenote.reinitialize(pool_allocator=True, initial_pool_size=MIB)
    finally:
        cenote.unregister_reinitialize_hook(fails)
    assert mr.get_current_device_resource() is pool


def test_refused_name_takes_no_client() -> None:
    names = set(registry.usage())
    for bad in (None, 7, b"name", "\ud800"):
        with pytest.raises((TypeError, ValueError)):
            registry.Client(bad)  # type: ignore[arg-type]
    assert set(registry.usage()) == names


def test_refused_record_is_not_begun() -> None:
    records = cenote.statistics.ProfilerRecords()
    for name, data in (("name", None), (None, cenote.Statistics(1, 1, 1, 1, 1, 1))):
        with pytest.raises(TypeError):
            records.add(name, data)  # type: ignore[arg-type]
    assert records.records == {}
    with pytest.raises(RuntimeError, match="entered"):
        cenote.statistics.profiler(name="name").__exit__(None, None, None)
