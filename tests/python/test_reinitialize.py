"""`cenote.reinitialize`: fresh resources for devices, all of them or none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

import cenote
from cenote import driver, mr, registry, sim

GIB = 1024**3
BOTH = (0, 1)


@pytest.fixture
def hook() -> Iterator[Callable[..., Any]]:
    """Registers hooks that are forgotten when the test ends."""
    registered = []

    def register(function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Callable[..., Any]:
        registered.append(function)
        return cenote.register_reinitialize_hook(function, *arguments, **keywords)

    yield register
    for function in registered:
        cenote.unregister_reinitialize_hook(function)


def specification(device: int = 0) -> str:
    return mr.get_per_device_resource(device).specification


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({}, "cuda"),
        ({"managed_memory": True}, "managed"),
        ({"pool_allocator": True, "initial_pool_size": "2kib"}, "pool:initial=2KiB | cuda"),
        ({"pool_allocator": True, "initial_pool_size": "0pib", "maximum_pool_size": "8kib"}, "pool:initial=0,max=8KiB"),
        ({"pool_allocator": True, "managed_memory": True, "initial_pool_size": 256}, "pool:initial=256 | managed"),
        ({"initial_pool_size": 1, "maximum_pool_size": "no size"}, "cuda"),
    ],
)
def test_arguments_choose_the_resource(arguments: dict[str, Any], expected: str) -> None:
    before = mr.get_per_device_resource(0)
    cenote.reinitialize(**arguments)
    assert specification().startswith(expected)
    assert mr.get_per_device_resource(0) is not before


def test_pool_without_sizes_takes_half_of_the_free_memory() -> None:
    free, _ = cenote.available_device_memory()
    cenote.reinitialize(pool_allocator=True)
    pool = mr.get_current_device_resource()
    assert isinstance(pool, mr.PoolMemoryResource)
    assert pool.pool_size() == free // 2 // 256 * 256


@pytest.mark.parametrize(("devices", "expected"), [(1, {1}), (None, {0}), ([0, 1], {0, 1}), ({1}, {1}), ((1, 1), {1})])
def test_only_the_named_devices_get_a_pool(devices: Any, expected: set[int]) -> None:
    cenote.reinitialize(pool_allocator=True, initial_pool_size=0, devices=devices)
    assert {device for device in BOTH if specification(device).startswith("pool")} == expected


def test_any_iterable_names_devices() -> None:
    cenote.reinitialize(pool_allocator=True, initial_pool_size=0, devices=(device for device in BOTH))
    assert [specification(device) for device in BOTH] == ["pool:initial=0 | cuda"] * 2


def test_other_devices_go_back_to_their_first_resource() -> None:
    mr.set_per_device_resource(1, mr.from_spec("pool:initial=0", 1))
    cenote.reinitialize(devices=0)
    assert registry.devices_with_resource() == [0]
    assert specification(1) == "cuda"


@pytest.mark.parametrize("current", BOTH)
def test_callers_device_stays_current(current: int, on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    with on_device(current):
        cenote.reinitialize(devices=BOTH)
        assert driver.current_device() == current
        with pytest.raises(MemoryError):
            cenote.reinitialize(pool_allocator=True, initial_pool_size=2**40, devices=BOTH)
        assert driver.current_device() == current


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"initial_pool_size": 2048, "maximum_pool_size": 1024}, RuntimeError, "Initial pool size exceeds the maximum"),
        ({"initial_pool_size": "2k", "maximum_pool_size": "8k"}, ValueError, "Could not parse '2k'"),
        ({"initial_pool_size": "1" * 400}, ValueError, "Could not parse"),
        ({"initial_pool_size": 1000}, RuntimeError, "multiple of 256"),
        ({"initial_pool_size": 0, "maximum_pool_size": 1000}, RuntimeError, "multiple of 256"),
        ({"initial_pool_size": -256}, OverflowError, "initial_pool_size must be from 0"),
        ({"initial_pool_size": 1.5}, TypeError, "float"),
        ({"initial_pool_size": 2**40}, MemoryError, "1.00 TiB"),
        ({"devices": 2}, IndexError, "no device 2"),
        ({"devices": -1}, IndexError, "no device -1"),
        ({"devices": [0, 2**70]}, IndexError, "no device"),
        ({"devices": "0"}, TypeError, "str"),
        ({"devices": [None]}, TypeError, "NoneType"),
        ({"initial_pool_size": 0, "logging": True}, ValueError, "log_file_name"),
    ],
)
def test_error_leaves_everything_as_it_was(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    before = {device: mr.get_per_device_resource(device) for device in BOTH}
    with pytest.raises(error, match=text):
        cenote.reinitialize(pool_allocator=True, **{"devices": BOTH, **arguments})
    assert {device: mr.get_per_device_resource(device) for device in BOTH} == before


def test_failure_on_the_second_device_gives_the_firsts_memory_back() -> None:
    before = {device: mr.get_per_device_resource(device) for device in BOTH}
    full = mr.from_spec("cuda", 1)
    block = full.allocate(7 * GIB)
    held = sim.live().device_bytes
    with pytest.raises(MemoryError):
        cenote.reinitialize(pool_allocator=True, initial_pool_size="4GiB", devices=BOTH)
    assert sim.live().device_bytes == held
    assert {device: mr.get_per_device_resource(device) for device in BOTH} == before
    full.deallocate(block, 7 * GIB)


def test_what_an_idle_pool_holds_serves_the_next_one() -> None:
    for _ in range(2):
        cenote.reinitialize(pool_allocator=True, initial_pool_size="6GiB")  # of 8
    assert specification() == "pool:initial=6GiB | cuda"


def test_memory_from_before_stays_valid_and_goes_back_where_it_came_from() -> None:
    cenote.reinitialize(pool_allocator=True, initial_pool_size="4MiB")
    buffer = cenote.DeviceBuffer.to_device(b"kept")
    cenote.reinitialize()
    assert buffer.tobytes() == b"kept"
    pool = buffer.mr
    assert pool.state().in_use == 256
    del buffer
    assert pool.state().in_use == 0


def test_logging_writes_a_file_for_each_device(tmp_path: Path) -> None:
    cenote.reinitialize(logging=True, log_file_name=tmp_path / "log.csv", devices=BOTH)
    expected = {device: str(tmp_path / f"log.dev{device}.csv") for device in BOTH}
    assert cenote.get_log_filenames() == expected
    mr.get_per_device_resource(1).allocate(0)
    cenote.reinitialize()
    assert Path(expected[0]).read_text().startswith("Thread,Time,Action,Pointer,Size,Stream")


def test_hooks_run_in_reverse_order_with_their_arguments(hook: Callable[..., Any]) -> None:
    called = []
    hook(lambda: called.append(1))
    hook(lambda: called.append(2))
    hook(lambda first, *, last: called.append((first, last)), 3, last=4)
    cenote.reinitialize()
    assert called == [(3, 4), 2, 1]


def test_hook_may_be_registered_twice_and_is_forgotten_as_a_whole(hook: Callable[..., Any]) -> None:
    called = []
    twice = hook(called.append, 1)
    hook(lambda: called.append(2))
    hook(called.append, 3)
    cenote.reinitialize()
    assert called == [3, 2, 1]
    cenote.unregister_reinitialize_hook(twice)
    cenote.unregister_reinitialize_hook(print)  # was never there
    cenote.reinitialize()
    assert called == [3, 2, 1, 2]


def test_registering_a_hook_returns_it(hook: Callable[..., Any]) -> None:
    def function() -> None: ...

    assert hook(function) is function


def test_hook_that_fails_keeps_the_resources(hook: Callable[..., Any]) -> None:
    before = mr.get_per_device_resource(0)
    hook(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cenote.reinitialize()
    assert mr.get_per_device_resource(0) is before


def test_hook_sees_the_resource_that_is_about_to_go(hook: Callable[..., Any]) -> None:
    before, seen = mr.get_per_device_resource(0), []
    hook(lambda: seen.append(mr.get_per_device_resource(0)))
    cenote.reinitialize()
    assert seen == [before]


def test_everything_is_initialised_from_the_start(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh("""
        import cenote
        assert cenote.is_initialized() and cenote.mr.is_initialized()
        assert not cenote.driver.is_loaded()
        cenote.reinitialize()
        assert cenote.is_initialized()
    """)


def test_without_a_driver_the_error_says_so(run_fresh: Callable[..., CompletedProcess[str]]) -> None:
    run_fresh(
        """
        import cenote
        try:
            cenote.reinitialize()
        except cenote.DriverUnavailableError as error:
            assert "CENOTE_CUDA_DRIVER=sim" in str(error), error
        else:
            raise SystemExit("no error")
        """,
        CENOTE_CUDA_DRIVER="/no/such/library.so",
    )


def test_available_memory_is_the_current_devices(on_device: Callable[[int], AbstractContextManager[None]]) -> None:
    with on_device(1):
        free, total = cenote.available_device_memory()
        block = mr.get_current_device_resource()
        address = block.allocate(GIB)
        assert cenote.mr.available_device_memory() == (free - GIB, total)
        block.deallocate(address, GIB)
    assert (free, total) == driver.memory_info(1)
