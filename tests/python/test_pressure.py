"""Pressure handlers: called when memory runs out, in their order, outside all locks, and never for themselves."""

from __future__ import annotations

import ctypes
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace

import pytest

import cenote
from cenote import mr, pressure, registry, sim

MIB = 1024**2
SIMULATED_DRIVER = ctypes.CDLL(str(sim._library.find_library()))


@pytest.fixture(autouse=True)
def pool() -> Iterator[mr.DeviceMemoryResource]:
    before = mr.set_current_device_resource(mr.from_spec("pool:max=64MiB"))
    made = mr.get_current_device_resource()
    yield made
    mr.set_current_device_resource(before or mr.CudaMemoryResource())


def steps_of(nbytes: int) -> list[tuple[str, int | None, str]]:
    with pytest.raises(cenote.OutOfMemoryError) as caught:
        cenote.DeviceBuffer(size=nbytes)
    return [(step.name, step.freed_bytes, step.why_not) for step in caught.value.steps]


def test_allocation_has_memory_after_a_handler_has_freed_some() -> None:
    cache = [cenote.DeviceBuffer(size=40 * MIB)]
    asked = []

    def drop(nbytes: int, device: int) -> int:
        asked.append((nbytes, device))
        cache.pop().close()
        return 40 * MIB

    with cenote.add_pressure_handler(drop):
        buffer = cenote.DeviceBuffer(size=50 * MIB)
        (figures,) = pressure.pressure_handlers()
    assert asked == [(50 * MIB, 0)]
    assert buffer.size == 50 * MIB
    assert (figures.calls, figures.successes, figures.freed_bytes) == (1, 1, 40 * MIB)
    assert pressure.pressure_handlers() == []


def test_clients_and_resources_ask_as_buffers_do(pool: mr.DeviceMemoryResource) -> None:
    client = registry.Client("tests of pressure")
    cache: list[cenote.DeviceBuffer] = []

    def drop(nbytes: int, device: int) -> int:
        cache.pop().close()
        return 40 * MIB

    with cenote.add_pressure_handler(drop):
        for allocate, free in (
            (client.allocate, client.deallocate),
            (pool.allocate, lambda address: pool.deallocate(address, 50 * MIB)),
        ):
            cache.append(cenote.DeviceBuffer(size=40 * MIB))
            free(allocate(50 * MIB))
            assert cache == []


def test_handlers_are_called_by_priority_and_age_until_one_helps() -> None:
    called = []
    cache = [cenote.DeviceBuffer(size=40 * MIB)]

    def handler(name: str, priority: int, helps: bool = False) -> pressure.PressureHandler:
        def act(nbytes: int, device: int) -> int:
            called.append(name)
            if helps:
                cache.pop().close()
            return int(helps)

        return cenote.add_pressure_handler(act, priority, name=name)

    handlers = [handler("low", -1), handler("first", 5), handler("second", 5), handler("helps", 0, True)]
    assert [each.name for each in pressure.pressure_handlers()] == ["first", "second", "helps", "low"]
    cenote.DeviceBuffer(size=50 * MIB)
    assert called == ["first", "second", "helps"]
    for each in handlers:
        assert each.remove()
        assert not each.remove()


def test_error_says_what_each_handler_did() -> None:
    def raises(nbytes: int, device: int) -> int:
        raise KeyError("no cache")

    def wrong(nbytes: int, device: int) -> int:
        return -1

    hook, sys.unraisablehook = sys.unraisablehook, lambda report: None
    try:
        with (
            cenote.add_pressure_handler(raises, 3, name="raises"),
            cenote.add_pressure_handler(wrong, 2, name="wrong"),
            cenote.add_pressure_handler(lambda nbytes, device: None, 1, name="unknown"),
            cenote.add_pressure_handler(lambda nbytes, device: 0, 0, name="nothing"),
        ):
            assert steps_of(100 * MIB) == [
                ("raises", None, "failed: KeyError: 'no cache'"),
                (
                    "wrong",
                    None,
                    "failed: ValueError: what a pressure handler returns must be the bytes it has freed, not -1",
                ),
                ("unknown", None, ""),
                ("nothing", 0, ""),
            ]
    finally:
        sys.unraisablehook = hook


def failure_of(resource: mr.DeviceMemoryResource, nbytes: int) -> list[tuple[str, int | None, str]]:
    with pytest.raises(cenote.OutOfMemoryError) as raised:
        resource.allocate(nbytes)
    assert ("tried: " in str(raised.value)) == bool(raised.value.steps)
    return [(step.name, step.freed_bytes, step.why_not) for step in raised.value.steps]


def test_error_says_what_the_pool_itself_has_tried() -> None:
    over_pages, over_chunks = mr.from_spec("pool:max=64MiB"), mr.from_spec("pool:initial=0,max=64MiB | cuda")
    blocks = [(pool, pool.allocate(40 * MIB)) for pool in (over_pages, over_chunks)]
    assert failure_of(over_pages, 50 * MIB) == [
        ("blocks of other streams", None, ""),
        ("free pages brought together", None, ""),
        ("idle pages of other pools", 0, ""),
        ("waiting for the device's work", None, ""),
    ]
    assert failure_of(over_chunks, 50 * MIB) == [
        ("blocks of other streams", None, ""),
        ("free chunks given back", 0, ""),
    ]
    assert failure_of(over_pages, 100 * MIB) == []  # nothing could help
    for pool, block in blocks:
        pool.deallocate(block, 40 * MIB)
    assert failure_of(mr.LimitingResourceAdaptor(over_pages, MIB), 2 * MIB) == []


def test_error_says_that_the_drivers_pools_were_waited_for_and_trimmed() -> None:
    others, drivers = mr.CudaMemoryResource(), mr.from_spec("async")
    nbytes = cenote.driver.memory_info(0)[0] - 64 * MIB  # what other tests hold is not free
    taken = others.allocate(nbytes)
    steps = failure_of(drivers, 1024 * MIB)
    assert steps[-1][0] == "waiting for frees of the driver's pools, and trimming them"
    others.deallocate(taken, nbytes)


def test_handler_that_takes_too_long_is_not_waited_for() -> None:
    may_end = threading.Event()

    def hang(nbytes: int, device: int) -> None:
        may_end.wait(60)

    with (
        cenote.add_pressure_handler(hang, 1, name="hangs", timeout=0.05),
        cenote.add_pressure_handler(lambda nbytes, device: 0, 0, name="waits", timeout=0.05),
    ):
        assert steps_of(100 * MIB) == [
            ("hangs", None, "it was not done in time"),
            ("waits", 0, "skipped: the handlers' thread was busy for too long"),
        ]
        may_end.set()
        for _ in range(100):
            if steps_of(100 * MIB)[1] == ("waits", 0, ""):
                break
            time.sleep(0.01)
        assert steps_of(100 * MIB)[1] == ("waits", 0, "")


def test_handler_may_allocate_and_is_not_called_for_that() -> None:
    calls = []

    def greedy(nbytes: int, device: int) -> int:
        calls.append(nbytes)
        cenote.DeviceBuffer(size=MIB).close()
        with pytest.raises(cenote.OutOfMemoryError) as caught:
            cenote.DeviceBuffer(size=200 * MIB)
        calls.append([step.why_not for step in caught.value.steps])
        return 0

    with cenote.add_pressure_handler(greedy):
        assert steps_of(100 * MIB) == [("test_handler_may_allocate_and_is_not_called_for_that.<locals>.greedy", 0, "")]
    assert calls == [100 * MIB, ["skipped: a pressure handler allocates this"]]


def test_handler_may_remove_itself_and_add_others() -> None:
    def once(nbytes: int, device: int) -> None:
        cenote.remove_pressure_handler(once)
        cenote.add_pressure_handler(later)

    def later(nbytes: int, device: int) -> int:
        return 0

    cenote.add_pressure_handler(once, name="once")
    assert [name for name, _, _ in steps_of(100 * MIB)] == ["once"]
    assert [name.rpartition(".")[2] for name, _, _ in steps_of(100 * MIB)] == ["later"]
    assert cenote.remove_pressure_handler(later)


def test_many_threads_out_of_memory_at_once_all_end() -> None:
    cache = [cenote.DeviceBuffer(size=4 * MIB) for _ in range(12)]
    lock = threading.Lock()

    def drop(nbytes: int, device: int) -> int:
        with lock:
            if not cache:
                return 0
            cache.pop().close()
        return 4 * MIB

    failures = []

    def work() -> None:
        for _ in range(50):
            try:
                cenote.DeviceBuffer(size=24 * MIB).close()
            except cenote.OutOfMemoryError as error:
                failures.append(error)

    with cenote.add_pressure_handler(drop):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)
    assert all(error.steps for error in failures)


def test_stream_in_a_capture_calls_no_handler() -> None:
    on = cenote.Stream()
    client = registry.Client("tests of pressure")
    relaxed, graph = 2, ctypes.c_void_p()
    assert SIMULATED_DRIVER.cuStreamBeginCapture_v2(ctypes.c_void_p(on.handle), relaxed) == 0
    with cenote.add_pressure_handler(lambda nbytes, device: 0, name="never"), pytest.raises(MemoryError) as caught:
        client.allocate(100 * MIB, on)
    assert SIMULATED_DRIVER.cuStreamEndCapture(ctypes.c_void_p(on.handle), ctypes.byref(graph)) == 0
    assert isinstance(caught.value, cenote.OutOfMemoryError)
    assert [step.why_not for step in caught.value.steps] == ["skipped: the stream is being captured"]


def test_garbage_is_collected() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.me = self
            self.buffer = cenote.DeviceBuffer(size=40 * MIB)

    gc.disable()
    try:
        Cycle()
        with cenote.add_pressure_handler(pressure.collect_garbage):
            assert cenote.DeviceBuffer(size=50 * MIB).size == 50 * MIB
    finally:
        gc.enable()


def test_caches_of_frameworks_that_are_not_loaded_have_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "torch", None)
    assert pressure.empty_cupy_cache(MIB, 0) == 0
    assert pressure.empty_torch_cache(MIB, 0) == 0


def test_what_cupys_cache_gives_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pool:
        total = 10 * MIB

        def total_bytes(self) -> int:
            return self.total

        def free_all_blocks(self) -> None:
            self.total = 4 * MIB

    class Device:
        def __init__(self, device: int) -> None: ...
        def __enter__(self) -> None: ...
        def __exit__(self, *_: object) -> None: ...

    cupy = ModuleType("cupy")
    pool = Pool()
    vars(cupy).update(cuda=SimpleNamespace(Device=Device), get_default_memory_pool=lambda: pool)
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert pressure.empty_cupy_cache(MIB, 0) == 6 * MIB


EXIT = """
import time, threading, cenote
from cenote import mr
mr.set_current_device_resource(mr.from_spec("pool:max=1MiB"))
cenote.add_pressure_handler(lambda nbytes, device: time.sleep(30), timeout=30)
def work():
    try: cenote.DeviceBuffer(size=1 << 30)
    except MemoryError: pass
threading.Thread(target=work, daemon=True).start()
time.sleep(0.2)
"""

FORK = """
import os, cenote
cenote.add_pressure_handler(lambda nbytes, device: 0)
child = os.fork()
if child == 0:
    from cenote import mr
    mr.set_current_device_resource(mr.from_spec("pool:max=1MiB"))
    try: cenote.DeviceBuffer(size=1 << 30)
    except MemoryError as error: assert "the handlers' thread has ended" in str(error), error
    cenote.add_pressure_handler(lambda nbytes, device: 0, name="mine")
    try: cenote.DeviceBuffer(size=1 << 30)
    except MemoryError as error: assert "mine (nothing freed)" in str(error), error
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [EXIT, FORK], ids=["exit", "fork"])
def test_process_ends_and_forks_while_handlers_are_there(program: str) -> None:
    subprocess.run([sys.executable, "-c", program], check=True, timeout=20)
