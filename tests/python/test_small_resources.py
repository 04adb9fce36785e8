"""What is particular to arena, fixed size, binning, callback, view and managed pools, as seen from Python."""

from __future__ import annotations

import functools
import gc
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import pytest

import cenote
from cenote import mr, sim

MIB = 1024**2


def cuda() -> mr.DeviceMemoryResource:
    return mr.CudaMemoryResource()


@pytest.mark.parametrize("size", [4 * MIB, "4MiB", "4 mib"])
def test_arena_has_the_size_that_it_was_given(size: int | str) -> None:
    arena = mr.ArenaMemoryResource(cuda(), arena_size=size)
    assert arena.arena_size() == arena.largest_free() == 4 * MIB
    assert arena.in_use() == 0
    assert arena.upstream_mr == arena.get_upstream()


def test_arena_below_a_mebibyte_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"at least 1\.00 MiB"):
        mr.ArenaMemoryResource(cuda(), MIB - 256)


def test_arena_leaves_its_map_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quiet, telling = (mr.ArenaMemoryResource(cuda(), MIB, dump_log_on_failure=dump) for dump in (False, True))
    with pytest.raises(MemoryError):
        quiet.allocate(2 * MIB)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(MemoryError):
        telling.allocate(2 * MIB)
    assert (tmp_path / "cenote_arena_memory_dump.log").read_text().endswith(f" {MIB} free\n")


def test_blocks_of_fixed_size_say_their_size() -> None:
    assert mr.FixedSizeMemoryResource(cuda(), 1000, 4).get_block_size() == 1024
    assert mr.FixedSizeMemoryResource(cuda(), "64KiB", 0).get_block_size() == 65536
    assert mr.FixedSizeMemoryResource(cuda()).get_block_size() == 1 << 20
    assert mr.FixedSizeMemoryResource(cuda()).state().held == 128 * MIB


def test_more_than_a_block_is_out_of_memory() -> None:
    fixed = mr.FixedSizeMemoryResource(cuda(), 4096, 1)
    with pytest.raises(cenote.OutOfMemoryError, match="fixed_size") as caught:
        fixed.allocate(4097)
    assert caught.value.largest_free == 4096


@pytest.mark.parametrize("arguments", [(0,), (0, 0), (1, 2**63), (2**63, 2), (2**64 - 1, 1)])
def test_blocks_that_cannot_be_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="bloc"):
        mr.FixedSizeMemoryResource(cuda(), *arguments)


def test_bins_that_were_added_are_listed_in_that_order() -> None:
    binning = mr.BinningMemoryResource(cuda(), 10, 17)
    assert binning.bin_mrs == []
    fixed, plain = mr.FixedSizeMemoryResource(cuda(), 1 << 10), cuda()
    binning.add_bin(1 << 27, plain)
    binning.add_bin(1 << 10, fixed)
    assert binning.bin_mrs == [plain, fixed]


def test_bin_keeps_its_resource_alive() -> None:
    binning = mr.BinningMemoryResource(cuda())
    binning.add_bin("1MiB", mr.StatisticsResourceAdaptor(cuda()))
    gc.collect()
    binning.deallocate(binning.allocate(1000), 1000)
    assert binning.bin_mrs[0].allocation_counts.total_count == 1  # type: ignore[attr-defined]


def test_a_bin_that_stands_on_its_own_binning_is_refused() -> None:
    binning = mr.BinningMemoryResource(cuda())
    for inner in (binning, mr.StatisticsResourceAdaptor(binning)):
        with pytest.raises(ValueError, match="takes its memory from"):
            binning.add_bin(MIB, inner)
    assert binning.bin_mrs == []


def test_a_bin_that_was_never_initialised_is_refused() -> None:
    binning = mr.BinningMemoryResource(cuda())
    with pytest.raises(RuntimeError, match="never initialised"):
        binning.add_bin(MIB, mr.CudaMemoryResource.__new__(mr.CudaMemoryResource))
    assert binning.bin_mrs == []


def test_late_bin_is_refused_while_it_would_misroute_a_free() -> None:
    binning = mr.BinningMemoryResource(cuda())
    address = binning.allocate(1000)
    with pytest.raises(RuntimeError, match="add bins before allocating"):
        binning.add_bin(4096)
    binning.deallocate(address, 1000)
    binning.add_bin(4096)


@pytest.mark.parametrize("exponents", [(5, 4), (5, 63), (-2, 5), (0, 127)])
def test_exponents_that_make_no_bins_are_refused(exponents: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="exponent"):
        mr.BinningMemoryResource(cuda(), *exponents)


@pytest.mark.parametrize("exponents", [(-1, 5), (5, -1), (-1, -1)])
def test_one_missing_exponent_means_no_bins(exponents: tuple[int, int]) -> None:
    counted = mr.StatisticsResourceAdaptor(cuda())
    binning = mr.BinningMemoryResource(counted, *exponents)
    binning.deallocate(binning.allocate(16), 16)
    assert counted.allocation_counts.total_bytes == 16


class Recorder:
    """Functions for a callback resource over plain device memory."""

    def __init__(self) -> None:
        self.base = cuda()
        self.calls: list[tuple[Any, ...]] = []

    def allocate(self, size: int, stream: cenote.Stream) -> int:
        self.calls.append((size, stream))
        return self.base.allocate(size, stream)

    def deallocate(self, ptr: int, size: int, stream: cenote.Stream) -> None:
        self.calls.append((ptr, size, stream))
        self.base.deallocate(ptr, size, stream)


def test_callbacks_get_what_was_asked_for() -> None:
    recorder, stream = Recorder(), cenote.Stream()
    resource = mr.CallbackMemoryResource(recorder.allocate, recorder.deallocate)
    buffer = cenote.DeviceBuffer(size=257, stream=stream, mr=resource)
    address = buffer.ptr
    del buffer
    assert recorder.calls == [(257, stream), (address, 257, stream)]


def test_callbacks_that_take_the_alignment_get_stream_first() -> None:
    base, seen = cuda(), []

    def allocate(stream: cenote.Stream, size: int, alignment: int) -> int:
        seen.append((size, alignment))
        return base.allocate(size, stream)

    def deallocate(stream: cenote.Stream, ptr: int, size: int, alignment: int, *, base: Any) -> None:
        seen.append((size, alignment))
        base.deallocate(ptr, size, stream)

    resource = mr.CallbackMemoryResource(allocate, functools.partial(deallocate, base=base))
    resource.deallocate(resource.allocate(10), 10)
    assert seen == [(10, 256), (10, 256)]


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (MemoryError, MemoryError),
        (RuntimeError, RuntimeError),
        (KeyError, RuntimeError),
        (Exception, RuntimeError),
        (BaseException, BaseException),
    ],
)
def test_what_the_allocate_function_raises_reaches_the_caller(
    raised: type[BaseException], caught: type[BaseException]
) -> None:
    error = raised("no memory today")

    def allocate(size: int, stream: cenote.Stream) -> int:
        raise error

    resource = mr.CallbackMemoryResource(allocate, Recorder().deallocate)
    for stack in (resource, mr.PoolMemoryResource(resource, 0), mr.StatisticsResourceAdaptor(resource)):
        with pytest.raises(caught, match="no memory today") as info:
            stack.allocate(100)
        assert error in (info.value, info.value.__cause__)
        stack.check()


def test_what_the_free_function_raises_is_reported_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, reported = Recorder(), []

    def deallocate(ptr: int, size: int, stream: cenote.Stream) -> None:
        recorder.deallocate(ptr, size, stream)
        raise RuntimeError("trouble after the free")

    monkeypatch.setattr(sys, "unraisablehook", reported.append)
    resource = mr.CallbackMemoryResource(recorder.allocate, deallocate)
    cenote.DeviceBuffer(size=10, mr=resource)
    assert [str(report.exc_value) for report in reported] == ["trouble after the free"]


@pytest.mark.parametrize("answer", ["an address", None, 1.5, -1, 2**64])
def test_answer_that_is_no_address_is_an_error(answer: Any) -> None:
    resource = mr.CallbackMemoryResource(lambda size, stream: answer, Recorder().deallocate)
    with pytest.raises(RuntimeError) as caught:
        resource.allocate(100)
    assert isinstance(caught.value.__cause__, (TypeError, OverflowError))


def test_null_from_the_allocate_function_is_out_of_memory() -> None:
    with pytest.raises(cenote.OutOfMemoryError):
        mr.CallbackMemoryResource(lambda size, stream: 0, Recorder().deallocate).allocate(100)


@pytest.mark.parametrize("wrong", [None, 3, "allocate", lambda: 0, lambda a, b, c, d, e: 0])
def test_what_cannot_be_called_like_that_is_a_type_error(wrong: Any) -> None:
    recorder = Recorder()
    with pytest.raises(TypeError, match="allocate_func"):
        mr.CallbackMemoryResource(wrong, recorder.deallocate)
    with pytest.raises(TypeError, match="deallocate_func"):
        mr.CallbackMemoryResource(recorder.allocate, wrong)


def test_callbacks_may_use_other_threads_and_the_resource_under_a_pool() -> None:
    recorder = Recorder()
    pool = mr.PoolMemoryResource(mr.CallbackMemoryResource(recorder.allocate, recorder.deallocate), 0)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            stream = cenote.Stream()
            for _ in range(20):
                buffers = [cenote.DeviceBuffer(size=MIB, stream=stream, mr=pool) for _ in range(4)]
                del buffers
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert recorder.calls


def test_callable_that_refers_to_its_resource_is_collected_with_it() -> None:
    class Owner:
        def __init__(self) -> None:
            self.resource = mr.CallbackMemoryResource(self.allocate, self.deallocate)

        def allocate(self, size: int, stream: cenote.Stream) -> int:
            return 0

        def deallocate(self, ptr: int, size: int, stream: cenote.Stream) -> None:
            pass

    owner = weakref.ref(Owner())
    gc.collect()
    assert owner() is None


def test_callable_stays_while_the_registry_holds_the_resource() -> None:
    recorder = Recorder()
    mr.set_current_device_resource(mr.CallbackMemoryResource(recorder.allocate, recorder.deallocate))
    gc.collect()
    cenote.DeviceBuffer(size=5)
    assert len(recorder.calls) == 2


class CUmemoryPool:
    """As cuda.bindings.driver has it: a handle that becomes an int."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __int__(self) -> int:
        return self._handle


def test_view_takes_the_handles_of_cuda_bindings() -> None:
    owner = mr.CudaAsyncMemoryResource()
    for handle in (CUmemoryPool(owner.pool_handle()), owner.pool_handle()):
        view = mr.CudaAsyncViewMemoryResource(handle)
        assert view.pool_handle() == owner.pool_handle()
        buffer = cenote.DeviceBuffer(size=1000, mr=view)
        assert owner.in_use() == view.in_use() != 0
        del buffer
        sim.drain()


@pytest.mark.parametrize("wrong", [None, "pool", 1.5, True, object()])
def test_view_of_what_is_no_pool_is_a_value_error(wrong: Any) -> None:
    with pytest.raises(ValueError, match="pool_handle"):
        mr.CudaAsyncViewMemoryResource(wrong)


def test_view_of_null_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="null"):
        mr.CudaAsyncViewMemoryResource(0)


def test_view_of_a_pool_that_is_gone_is_a_memory_error_that_says_so() -> None:
    owner = mr.CudaAsyncMemoryResource()
    view = mr.CudaAsyncViewMemoryResource(owner.pool_handle())
    del owner
    gc.collect()
    with pytest.raises(MemoryError, match="has been destroyed"):
        view.allocate(100)
    sim.clear_violations()  # the simulated driver noticed the dead handle too


def test_managed_pool_needs_a_driver_that_has_one(run_fresh: Any) -> None:
    run_fresh(
        """
        import cenote, pytest
        with pytest.raises(RuntimeError, match="13.0 or newer; this one is for 12.4"):
            cenote.mr.CudaAsyncManagedMemoryResource()
        """,
        CENOTE_SIM="driver=12040",
    )


def test_managed_pools_of_a_device_are_one() -> None:
    one, other = mr.CudaAsyncManagedMemoryResource(), mr.CudaAsyncManagedMemoryResource()
    assert one.pool_handle() == other.pool_handle() != 0
    assert one.is_host_accessible


def test_system_memory_needs_a_device_that_can_use_it(run_fresh: Any) -> None:
    run_fresh(
        """
        import cenote, pytest
        for make in (cenote.mr.SystemMemoryResource, lambda: cenote.mr.SamHeadroomMemoryResource(0)):
            with pytest.raises(RuntimeError, match="pageable memory access"):
                make()
        """,
        CENOTE_SIM="devices=1",
    )


def test_headroom_is_a_number_of_bytes() -> None:
    assert mr.SamHeadroomMemoryResource("1GiB").specification == "sam_headroom:headroom=1GiB"
    for wrong, error in ((None, TypeError), (-1, OverflowError), ("much", ValueError), (1.5, TypeError)):
        with pytest.raises(error):
            mr.SamHeadroomMemoryResource(wrong)  # type: ignore[arg-type]
