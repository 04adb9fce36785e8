"""CuPy's memory as an object like its own pool, and its pinned memory: on the simulated device, without CuPy.

With CuPy itself they are tested on a device, by tests/gpu.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

import cenote
from cenote import mr
from cenote.allocators.cupy import CenoteMemoryPool, pinned_allocator
from cenote.allocators.cupy.memory_pool import lift_limit_of_environment, set_limit_of_environment
from cenote.registry import Client

cupy = Client("cupy")
other = Client("other")


@pytest.fixture
def pool() -> Iterator[mr.DeviceMemoryResource]:
    replaced = mr.get_current_device_resource()
    made = mr.PoolMemoryResource(mr.CudaMemoryResource(), "1MiB", "4MiB")
    mr.set_current_device_resource(made)
    yield made
    mr.set_current_device_resource(replaced)


def test_figures_are_those_of_cupy_in_the_resource_that_all_share(pool: mr.DeviceMemoryResource) -> None:
    shown = CenoteMemoryPool()
    before = shown.used_bytes()
    mine, others = cupy.allocate(1000), other.allocate(500_000)
    assert shown.used_bytes() - before == 1000
    free = (1 << 20) - pool.in_use()
    assert shown.free_bytes() == free and shown.total_bytes() == shown.used_bytes() + free
    assert shown.n_free_blocks() == 1
    cupy.deallocate(mine)
    other.deallocate(others)
    assert shown.used_bytes() == before
    shown.free_all_blocks()
    assert (shown.free_bytes(), shown.n_free_blocks(), pool.state().held) == (0, 0, 0)
    shown.free_all_free()


def test_other_devices_are_counted_by_themselves() -> None:
    if cenote.driver.device_count() < 2:
        pytest.skip("needs two devices")
    shown = CenoteMemoryPool()
    here = shown.used_bytes()
    there = cupy.allocate(1000, device=1)
    assert shown.used_bytes() == here and cupy.bytes_on(1) >= 1000
    cupy.deallocate(there)


def test_resource_that_holds_nothing_back_has_nothing_free() -> None:
    replaced = mr.set_current_device_resource(mr.CudaMemoryResource())
    block = cupy.allocate(1000)
    assert (CenoteMemoryPool().free_bytes(), CenoteMemoryPool().n_free_blocks()) == (0, 0)
    cupy.deallocate(block)
    if replaced is not None:
        mr.set_current_device_resource(replaced)


def test_limit_is_the_budget_of_the_current_device(pool: mr.DeviceMemoryResource) -> None:
    shown = CenoteMemoryPool()
    assert shown.get_limit() == 0
    try:
        shown.set_limit(size=2 << 20)
        assert shown.get_limit() == cenote.get_budget().limit == 2 << 20
        with pytest.raises(MemoryError, match="set by CuPy's set_limit"):
            cupy.allocate(3 << 20)
        cenote.budget(1 << 20, 0)  # the smaller one holds
        assert shown.get_limit() == 1 << 20
        with pytest.raises(MemoryError, match=r"set by cenote\.budget"):
            cupy.allocate(3 << 20)
        cenote.budget(None, 0)
        total = cenote.driver.memory_info(0)[1]
        shown.set_limit(fraction=0.5)
        assert shown.get_limit() == total // 2
    finally:
        shown.set_limit()
    assert shown.get_limit() == 0
    with pytest.raises(ValueError, match="at the same time"):
        shown.set_limit(1, 0.5)
    for wrong in ({"size": -1}, {"fraction": 1.5}, {"fraction": -0.1}):
        with pytest.raises(ValueError):
            shown.set_limit(**wrong)


def test_limit_of_cupys_variable_holds_on_each_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set_limit_of_environment() == ""
    monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", "25%")
    try:
        assert set_limit_of_environment() == "25%"
        for device in range(cenote.driver.device_count()):
            assert cenote.get_budget(device).limit == cenote.driver.memory_info(device)[1] // 4
        with pytest.raises(MemoryError, match="set by CUPY_GPU_MEMORY_LIMIT"):
            cupy.allocate(3 << 30)
        monkeypatch.setenv("CUPY_GPU_MEMORY_LIMIT", "much")
        with pytest.raises(ValueError, match="'much' is no budget"):
            set_limit_of_environment()
    finally:
        lift_limit_of_environment()
    assert cenote.get_budget().limit is None


def test_pinned_memory_comes_from_the_resource_and_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace())
    pointer = SimpleNamespace(PinnedMemoryPointer=lambda memory, offset: SimpleNamespace(mem=memory, offset=offset))
    monkeypatch.setitem(sys.modules, "cupy.cuda", pointer)
    resource = mr.from_spec("pool:initial=1MiB | pinned")
    allocate = pinned_allocator(resource)
    blocks = [allocate(1000) for _ in range(3)]
    assert len({block.mem.ptr for block in blocks}) == 3 and all(block.mem.size == 1000 for block in blocks)
    assert resource.in_use() == 3 * 1024
    del blocks
    assert resource.in_use() == 0
    with pytest.raises(MemoryError):
        allocate(1 << 50)
    with pytest.raises(ValueError, match=r"pool \| pinned"):
        pinned_allocator(mr.CudaMemoryResource())
