"""DeviceBuffer on several streams, threads and devices: what orders itself, what may be shared, and what is refused."""

from __future__ import annotations

import ctypes
import pickle
import random
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import cenote
from busy_stream import KEEP_BUSY
from cenote import CudaStreamFlags, CudaStreamPool, DeviceBuffer, Stream, mr, sim

TEXT = b"contents"
SIZE = 4096
PER_THREAD = cenote.stream.PER_THREAD_DEFAULT_STREAM


def in_thread(work: Callable[[], Any]) -> Any:
    """What `work` returns on a thread of its own, which has ended."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def apart(device: int | None = None) -> Stream:
    return Stream(flags=CudaStreamFlags.NON_BLOCKING, device=device)


@pytest.fixture
def pool() -> mr.PoolMemoryResource:
    return mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")


_sources: list[DeviceBuffer] = []  # they must live until the copies out of them have run


@pytest.fixture(autouse=True)
def sources_that_are_read_late() -> Iterator[None]:
    yield
    sim.drain()
    _sources.clear()


def pinned(text: bytes) -> DeviceBuffer:
    """A source from which copies are only queued."""
    buffer = DeviceBuffer(size=len(text), mr=mr.PinnedHostMemoryResource())
    memoryview(buffer)[:] = text
    _sources.append(buffer)
    return buffer


def queued(stream: Stream, resource: mr.DeviceMemoryResource, text: bytes = TEXT) -> DeviceBuffer:
    """A buffer with room to spare into which a copy on `stream` has not run yet."""
    buffer = DeviceBuffer(size=1000, stream=stream, mr=resource)
    buffer.resize(len(text), stream=stream)
    buffer.copy_from_host(memoryview(pinned(text)), stream=stream)
    return buffer


def copied_from(buffer: DeviceBuffer) -> bytes:
    target = DeviceBuffer(size=buffer.size)
    target.copy_from_device(buffer)
    return target.tobytes()


def on_the_host(capsule: Any) -> bytes:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return ctypes.string_at(ctypes.c_void_p.from_address(get(capsule, b"dltensor")).value or 0, len(TEXT))


LOOKS: dict[str, Callable[[DeviceBuffer], bytes]] = {
    "tobytes": lambda b: b.tobytes(),
    "bytes": bytes,
    "copy_to_host": lambda b: b.copy_to_host().tobytes(),
    "copy": lambda b: b.copy().tobytes(),
    "copy_from_device": copied_from,
    "pickle": lambda b: pickle.loads(pickle.dumps(b)).tobytes(),
    "resize to more": lambda b: (b.resize(5000), b.tobytes()[: len(TEXT)])[1],
    "resize within": lambda b: (b.resize(500), b.tobytes()[: len(TEXT)])[1],
    "reserve": lambda b: (b.reserve(5000), b.tobytes())[1],
    "shrink_to_fit": lambda b: (b.shrink_to_fit(), b.tobytes())[1],
    "copy_from_host": lambda b: (b.copy_from_host(b""), b.tobytes())[1],
    "prefetch": lambda b: (b.prefetch(0, cenote.DEFAULT_STREAM), b.tobytes())[1],
    "DLPack to the host": lambda b: on_the_host(b.__dlpack__(dl_device=(1, 0))),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_every_method_comes_after_the_buffers_own_stream(look: Any, pool: mr.PoolMemoryResource) -> None:
    assert look(queued(apart(), pool)) == TEXT


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_every_method_comes_after_another_threads_default_stream(look: Any, pool: mr.PoolMemoryResource) -> None:
    assert look(in_thread(lambda: queued(PER_THREAD, pool))) == TEXT


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS.keys())
def test_every_method_comes_after_the_stream_of_another_device(look: Any, on_device: Any) -> None:
    with on_device(1):
        far = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "1MiB")
        buffer = queued(apart(), far)
    assert look(buffer) == TEXT


def test_a_buffer_that_another_thread_drops_is_not_reused_before_its_work(pool: mr.PoolMemoryResource) -> None:
    buffers = [in_thread(lambda: queued(PER_THREAD, pool, b"A" * 1000))]
    buffers.clear()
    fresh = DeviceBuffer(size=1000, stream=PER_THREAD, mr=pool)
    fresh.copy_from_host(memoryview(pinned(b"B" * 1000)), PER_THREAD)
    PER_THREAD.synchronize()
    sim.drain()
    assert fresh.tobytes() == b"B" * 1000


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_source_is_not_freed_before_the_copy_out_of_it(end: str, pool: mr.PoolMemoryResource) -> None:
    own, other = apart(), apart()
    source, target = queued(own, pool, b"A" * 1000), DeviceBuffer(size=1000, mr=mr.CudaMemoryResource())
    target.copy_from_device(source, other)
    if end == "close":
        source.close()
    del source
    fresh = DeviceBuffer(size=1000, stream=own, mr=pool)
    fresh.copy_from_host(memoryview(pinned(b"B" * 1000)), own)
    own.synchronize()
    sim.drain()
    assert target.tobytes() == b"A" * 1000


def test_the_array_of_another_library_is_not_freed_before_the_copy_out_of_it(pool: mr.PoolMemoryResource) -> None:
    """Where it is freed on the stream that it names."""
    own, other, new = apart(), apart(), pinned(b"B" * 1000)
    memory = queued(own, pool, b"A" * 1000)
    array = type("Array", (), {"__cuda_array_interface__": memory.__cuda_array_interface__})()
    target = DeviceBuffer(size=1000, mr=mr.CudaMemoryResource())
    target.copy_from_device(array, other)
    memory.close()
    fresh = DeviceBuffer(size=1000, stream=own, mr=pool)
    cenote.device_buffer.copy_device_to_ptr(new.ptr, fresh.ptr, 1000, own)
    own.synchronize()
    assert target.tobytes() == b"A" * 1000


def test_a_dlpack_consumer_comes_after_another_threads_default_stream(pool: mr.PoolMemoryResource) -> None:
    buffer = in_thread(lambda: queued(PER_THREAD, pool))
    own = apart()
    for consumer in (PER_THREAD, own):
        sim.reset_calls()
        capsule = buffer.__dlpack__(stream=consumer.handle)
        assert sim.calls("cuCtxRecordEvent") == 1
        assert sim.calls("cuStreamWaitEvent") == 1
        del capsule
    own.synchronize()


def test_an_array_interface_names_a_stream_that_this_thread_can_wait_for(pool: mr.PoolMemoryResource) -> None:
    buffer = in_thread(lambda: queued(PER_THREAD, pool))
    copied = bytearray(len(TEXT))
    interface = buffer.__cuda_array_interface__
    assert interface["stream"] == PER_THREAD.handle
    cenote.device_buffer.copy_ptr_to_host(interface["data"][0], copied, PER_THREAD)
    PER_THREAD.synchronize()
    assert copied == TEXT


def test_a_view_waits_for_another_threads_default_stream() -> None:
    buffer = in_thread(lambda: queued(PER_THREAD, mr.PinnedHostMemoryResource()))
    assert bytes(memoryview(buffer)) == TEXT


@pytest.mark.parametrize(
    "spec", ["pool:initial=1MiB,max=1MiB | cuda", "pool:initial=8KiB,max=8KiB | cuda", "async", "cuda"]
)
def test_the_end_on_a_stream_of_another_device_loses_nothing(spec: str, capfd: pytest.CaptureFixture[str]) -> None:
    resource, far = mr.from_spec(spec), apart(1)
    for end in ("close", "drop", "resize"):
        buffer = DeviceBuffer(size=1000, mr=resource)
        buffer.copy_to_host(stream=far)
        assert buffer.stream == far
        if end == "close":
            buffer.close()
        if end == "resize":
            buffer.resize(2000)
        del buffer
    far.synchronize()
    resource.trim()
    assert not resource.in_use()
    assert capfd.readouterr().err == ""


def test_copies_go_between_devices_on_their_own_streams(on_device: Any, pool: mr.PoolMemoryResource) -> None:
    with on_device(1):
        source = queued(apart(), mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB"))
    target = DeviceBuffer(size=len(TEXT), stream=(own := apart()), mr=pool)
    target.copy_from_device(source, own)
    assert target.tobytes(own) == TEXT
    source.copy_from_device(target, source.stream)
    assert source.tobytes() == TEXT


def test_default_streams_of_two_devices_are_not_taken_for_one(on_device: Any) -> None:
    with on_device(1):
        source = queued(cenote.DEFAULT_STREAM, mr.CudaMemoryResource())
        source.copy_from_host(memoryview(waits := pinned(TEXT)), cenote.DEFAULT_STREAM)
        cenote.device_buffer.copy_device_to_ptr(waits.ptr, source.ptr, len(TEXT))  # queued
    target = DeviceBuffer(size=len(TEXT), mr=mr.CudaMemoryResource())
    sim.reset_calls()
    target.copy_from_device(source)
    assert sim.calls("cuStreamWaitEvent") == 2  # before the copy, and the source after it
    assert target.tobytes() == TEXT


def test_memory_that_a_consumer_used_is_not_reused_early_when_a_resize_frees_it(pool: mr.PoolMemoryResource) -> None:
    buffer, consumer = queued(apart(), pool, b"A" * 1000), apart()
    capsule = buffer.__dlpack__(stream=consumer.handle)
    cenote.device_buffer.copy_device_to_ptr(pinned(b"A" * 1000).ptr, buffer.ptr, 1000, consumer)
    where = buffer.ptr
    del capsule
    own = apart()
    buffer.resize(100_000, own)
    fresh = DeviceBuffer(size=1000, stream=own, mr=pool)
    fresh.copy_from_host(memoryview(pinned(b"B" * 1000)), own)
    own.synchronize()
    sim.drain()
    assert fresh.tobytes() == b"B" * 1000
    assert where


def use_on(stream: Stream, buffer: DeviceBuffer) -> None:
    """Queue a copy that writes to the buffer's memory, as a consumer of its capsule may."""
    cenote.device_buffer.copy_device_to_ptr(pinned(b"A" * 1000).ptr, buffer.ptr, 1000, stream)


def keeps_new_contents(stream: Stream, new: DeviceBuffer, pool: mr.PoolMemoryResource) -> bool:
    """Whether older work leaves alone what `stream` copies from `new` into memory of the pool."""
    fresh = DeviceBuffer(size=1000, stream=stream, mr=pool)
    cenote.device_buffer.copy_device_to_ptr(new.ptr, fresh.ptr, 1000, stream)
    stream.synchronize()
    sim.drain()
    return fresh.tobytes() == b"B" * 1000


@pytest.mark.parametrize("own", [cenote.DEFAULT_STREAM, PER_THREAD, None, 1], ids=str)
def test_a_consumer_on_the_buffers_stream_may_go_on_there_when_the_buffer_has_left_it(
    own: Stream | int | None,
) -> None:
    pool, new = mr.PoolMemoryResource(mr.CudaMemoryResource(), 1024, 1024), pinned(b"B" * 1000)
    first, second = own if isinstance(own, Stream) else apart(own), apart()
    buffer = DeviceBuffer(size=1000, stream=cenote.DEFAULT_STREAM, mr=pool)
    buffer.tobytes(first)
    assert buffer.stream == first
    capsule = buffer.__dlpack__(stream=first.handle or 1)
    buffer.tobytes(second)
    assert buffer.stream == second
    use_on(first, buffer)
    del capsule
    buffer.close()
    assert keeps_new_contents(second, new, pool)


def test_a_consumer_that_asks_for_no_order_may_use_streams_of_any_device() -> None:
    pool, new = mr.PoolMemoryResource(mr.CudaMemoryResource(), 1024, 1024), pinned(b"B" * 1000)
    own, far = apart(), apart(1)
    buffer = DeviceBuffer(size=1000, stream=own, mr=pool)
    capsule = buffer.__dlpack__(stream=-1)
    use_on(far, buffer)
    del capsule
    buffer.close()
    assert keeps_new_contents(own, new, pool)


# Size 0


@pytest.mark.parametrize("kind", ["cenote", "rmm"])
@pytest.mark.parametrize("empty", ["new", "closed", "resized", "reserved", "pinned"])
def test_an_array_of_no_bytes_has_a_null_pointer(kind: str, empty: str) -> None:
    if kind == "rmm":
        from cenote.compat.rmm_only import DeviceBuffer as made
    else:
        from cenote import DeviceBuffer as made
    resource = mr.PinnedHostMemoryResource() if empty == "pinned" else None
    buffer = made(size=64 if empty in ("closed", "resized", "pinned") else 0, mr=resource)
    if empty == "closed":
        buffer.close()
    elif empty == "reserved":
        buffer.reserve(256)
    elif empty != "new":
        buffer.resize(0)
    assert buffer.__cuda_array_interface__["data"] == (0, False)
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = buffer.__dlpack__()
    assert ctypes.c_void_p.from_address(get(capsule, b"dltensor")).value is None
    assert np.from_dlpack(buffer, device="cpu").shape == (0,)


# Two threads, or a call within a call


MOVES: dict[str, Callable[[DeviceBuffer], Any]] = {
    "resize": lambda b: b.resize(b.size + 1000),
    "reserve": lambda b: b.reserve(b.capacity() + 1000),
    "shrink_to_fit": lambda b: b.shrink_to_fit(),
    "close": lambda b: b.close(),
    "__init__": lambda b: b.__init__(size=3),  # type: ignore[misc]
}
USES: dict[str, Callable[[DeviceBuffer], Any]] = {
    "tobytes": lambda b: b.tobytes(),
    "copy": lambda b: b.copy(),
    "copy_to_host": lambda b: b.copy_to_host(),
    "copy_from_host": lambda b: b.copy_from_host(b"x"),
    "copy_from_device": lambda b: b.copy_from_device(DeviceBuffer.to_device(b"x")),
    "as a source": lambda b: DeviceBuffer(size=10_000).copy_from_device(b),
    "prefetch": lambda b: b.prefetch(),
    "memoryview": memoryview,
    "DLPack": lambda b: b.__dlpack__(stream=2),
}


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same thread", "another thread"])
@pytest.mark.parametrize("move", ["resize", "reserve", "shrink_to_fit"])
def test_a_buffer_whose_memory_moves_is_refused_to_others(move: str, elsewhere: bool) -> None:
    real = mr.PinnedHostMemoryResource()
    refused: list[str] = []
    calls = {**MOVES, **USES}
    del calls["memoryview"]  # of memory that the host does not reach

    def try_all() -> bool:
        for name, call in calls.items():
            try:
                call(buffer)
            except RuntimeError as error:
                assert "in use by another call" in str(error)
                refused.append(name)
        assert (buffer.size, len(buffer), buffer.capacity(), buffer.ptr) == seen
        return True

    def allocate(nbytes: int, stream: Stream) -> int:
        if is_watched:
            is_watched.clear()
            assert in_thread(try_all) if elsewhere else try_all()
        return real.allocate(nbytes, stream)

    is_watched: list[bool] = []
    buffer = DeviceBuffer(size=2000, mr=mr.CallbackMemoryResource(allocate, real.deallocate))
    buffer.resize(1000)
    seen = (buffer.size, len(buffer), buffer.capacity(), buffer.ptr)
    is_watched.append(True)
    if move == "resize":
        buffer.resize(5000)
    elif move == "reserve":
        buffer.reserve(5000)
    else:
        buffer.shrink_to_fit()
    assert refused == list(calls)
    buffer.close()


def test_memory_that_another_thread_uses_does_not_move() -> None:
    program = f"""{KEEP_BUSY}
driver = ctypes.CDLL(str(pathlib.Path(cenote.__file__).parent / "lib" / "libcenote_sim.so"))
libc.sem_init(semaphore, 0, 0)
stream = cenote.Stream()
buffer = cenote.DeviceBuffer(size=1000, stream=stream, mr=mr.PinnedHostMemoryResource())
wait = ctypes.cast(libc.sem_wait, ctypes.c_void_p)
assert driver.cuLaunchHostFunc(ctypes.c_void_p(stream.handle), wait, semaphore) == 0
viewer = threading.Thread(target=lambda: memoryview(buffer).release())
viewer.start()
while True:
    try:
        buffer.reserve(10, stream)  # moves nothing: until the other thread is inside
    except RuntimeError as error:
        assert "in use by another call" in str(error)
        break
for move in (lambda: buffer.resize(5000, stream), buffer.close, lambda: buffer.shrink_to_fit(stream)):
    try:
        move()
    except RuntimeError:
        continue
    raise AssertionError("moved under a user")
libc.sem_post(semaphore)
viewer.join()
buffer.resize(5000, stream)
print("ended")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "ended\n", done.stderr


def test_a_buffer_that_is_closed_twice_is_freed_once() -> None:
    base = mr.CudaMemoryResource()
    freed: list[int] = []

    def deallocate(address: int, nbytes: int, stream: Stream) -> None:
        freed.append(address)
        if len(freed) == 1:
            in_thread(buffer.close)  # while the first is under way
        base.deallocate(address, nbytes, stream)

    buffer = DeviceBuffer(size=1000, mr=mr.CallbackMemoryResource(base.allocate, deallocate))
    where = buffer.ptr
    buffer.close()
    assert freed == [where]
    buffer.resize(10)
    assert buffer.size == 10


def test_a_buffer_that_is_closed_is_empty_while_its_memory_is_freed() -> None:
    base = mr.CudaMemoryResource()
    seen: list[tuple[int, int]] = []

    def deallocate(address: int, nbytes: int, stream: Stream) -> None:
        seen.append((buffer.ptr, buffer.capacity()))
        base.deallocate(address, nbytes, stream)

    buffer = DeviceBuffer(size=1000, mr=mr.CallbackMemoryResource(base.allocate, deallocate))
    before = cenote.usage()["cenote"].bytes
    buffer.close()
    assert seen == [(0, 0)]
    assert cenote.usage()["cenote"].bytes == before - 1000


@pytest.mark.parametrize("spec", ["pool:initial=1MiB", "cuda", "statistics | pool:initial=1MiB"])
def test_threads_that_share_a_buffer_lose_nothing(spec: str) -> None:
    resource = mr.from_spec(spec)
    buffer = DeviceBuffer(size=1000, mr=resource)
    failures: list[BaseException] = []
    start = threading.Barrier(4)

    def work(seed: int) -> None:
        choose = random.Random(seed)
        calls = [*MOVES.values(), *USES.values()]
        start.wait()
        for _ in range(200):
            try:
                choose.choice(calls)(buffer)
                if buffer.size > 8000:
                    buffer.close()
            except (RuntimeError, BufferError, ValueError):  # in use, exported, or too small for what is copied
                pass
            except BaseException as error:
                failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert failures == []
    buffer.close()
    sim.drain()
    assert not resource.in_use()
    resource.check()


def test_reads_of_one_buffer_on_two_streams_may_overlap(pool: mr.PoolMemoryResource) -> None:
    buffer = queued(apart(), pool)
    start = threading.Barrier(4)
    seen: list[bytes] = []

    def read() -> None:
        own = apart()
        start.wait()
        for _ in range(50):
            seen.append(buffer.tobytes(own))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [TEXT] * 200


@pytest.mark.parametrize("cls", [Stream, CudaStreamPool])
def test_an_object_that_several_threads_initialise_is_made_once(cls: type) -> None:
    for _ in range(20):
        made = cls.__new__(cls)
        before = sim.live().streams
        start = threading.Barrier(4)
        outcomes: list[str] = []

        def initialise(made: Any = made, start: Any = start, outcomes: Any = outcomes) -> None:
            start.wait()
            try:
                made.__init__()
                outcomes.append("made")
            except RuntimeError as error:
                outcomes.append(str(error))

        threads = [threading.Thread(target=initialise) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == sorted(["made", *[f"this {cls.__name__} was initialised already"] * 3])
        assert sim.live().streams - before == (1 if cls is Stream else 16)
        del made, initialise


MADE_ANEW_WITHIN = """
from cenote import mr

base = mr.CudaMemoryResource()


def allocate(nbytes, stream):
    if grows:
        pool.__init__(base, "1MiB", "1MiB")
    return base.allocate(nbytes, stream)


grows = []
pool = mr.PoolMemoryResource(mr.CallbackMemoryResource(allocate, base.deallocate), 0)
grows.append(True)
assert pool.allocate(1000) != 0  # of the pool that it was; which ends, and says what was left in it
grows.clear()
pool.deallocate(pool.allocate(1000), 1000)
print(pool.specification, pool.in_use())
"""


def test_a_resource_that_is_made_anew_within_a_call_is_there_to_its_end(run_fresh: Any) -> None:
    assert run_fresh(MADE_ANEW_WITHIN).stdout == "pool:initial=1MiB,max=1MiB | cuda 0\n"


@pytest.mark.parametrize("spec", ["pool", "statistics", "tracking"])
def test_a_resource_that_is_made_anew_while_others_use_it_loses_nothing(spec: str) -> None:
    make: dict[str, Callable[[Any], None]] = {
        "pool": lambda made: mr.PoolMemoryResource.__init__(made, mr.CudaMemoryResource(), "1MiB"),
        "statistics": lambda made: mr.StatisticsResourceAdaptor.__init__(made, mr.CudaMemoryResource()),
        "tracking": lambda made: mr.TrackingResourceAdaptor.__init__(made, mr.CudaMemoryResource()),
    }
    cls = {
        "pool": mr.PoolMemoryResource,
        "statistics": mr.StatisticsResourceAdaptor,
        "tracking": mr.TrackingResourceAdaptor,
    }
    before = sim.live().device_bytes
    made: list[Any] = [cls[spec].__new__(cls[spec])]
    make[spec](made[0])
    start = threading.Barrier(4)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        choose = random.Random(seed)
        calls = [make[spec], lambda m: m.state(), lambda m: m.trim(), lambda m: m.check(), lambda m: m.specification]
        start.wait()
        for _ in range(100):
            try:
                choose.choice(calls)(made[0])
            except BaseException as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made.clear()
    assert failures == []
    assert sim.live().device_bytes == before
