"""PyTorch, CuPy and Numba live in one pool at once; blocks go back to their owners; ordering holds on a device."""

from __future__ import annotations

import pytest

INSTALL = """
import gc
import numpy as np
import cenote
report = cenote.install("statistics | pool:initial=256MiB,max=2GiB | cuda", frameworks=("torch", "cupy", "numba"))
assert all(row.installed for row in report), report
import torch, cupy
from numba import cuda
statistics = cenote.mr.get_current_device_resource()
pool = statistics.upstream_mr
"""


def test_the_statistics_equal_the_sum_of_what_the_frameworks_hold(run):
    run(
        INSTALL
        + """
a = torch.arange(100_000, device="cuda")
b = cupy.arange(50_000)
c = cuda.to_device(np.arange(25_000))
d = cenote.DeviceBuffer(size=12_345)
total = sum(u.bytes for u in cenote.usage().values())
assert statistics.allocation_counts.current_bytes == total, (statistics.allocation_counts, cenote.usage())
assert cenote.usage()["cupy"].bytes >= b.nbytes and cenote.usage()["numba"].bytes == 200_000
assert cenote.usage()["torch"].bytes >= 800_000 and cenote.usage()["cenote"].bytes == 12_345

# One pool: the addresses lie in one chunk of the driver's.
from cenote._core import driver
addresses = [a.data_ptr(), b.data.ptr, c.device_ctypes_pointer.value, d.ptr]
assert len({driver.address_range(p, 0) for p in addresses}) == 1

assert int(a.sum()) == 4999950000 and int(b.sum()) == 1249975000 and c.copy_to_host().sum() == 312487500
pool.check()
del a, b, c, d
gc.collect()
cuda.current_context().deallocations.clear()
held = {name: u.bytes for name, u in cenote.usage().items()}
assert statistics.allocation_counts.current_bytes == sum(held.values()), held
assert held["torch"] == held["numba"] == held["cenote"] == 0, held
pool.check()
"""
    )


def test_a_block_goes_back_to_the_resource_that_made_it(run):
    run(
        """
        import gc
        import numpy as np
        import cenote
        first = cenote.mr.from_spec("statistics | pool:initial=64MiB | cuda")
        second = cenote.mr.from_spec("statistics | async")
        assert all(row.installed for row in cenote.install(first, ("torch", "cupy", "numba")))
        import torch, cupy
        from numba import cuda
        old = [torch.ones(1000, device="cuda"), cupy.ones(1000)]
        old += [cuda.to_device(np.ones(1000)), cenote.DeviceBuffer(size=9)]
        before = first.allocation_counts.current_bytes
        assert before > 0
        assert cenote.mr.set_current_device_resource(second) is first
        new = [torch.ones(1000, device="cuda"), cupy.ones(1000)]
        new += [cuda.to_device(np.ones(1000)), cenote.DeviceBuffer(size=9)]
        assert first.allocation_counts.current_bytes == before
        assert second.allocation_counts.current_bytes > 0
        del old
        gc.collect()
        cuda.current_context().deallocations.clear()
        assert first.allocation_counts.current_bytes == 0, first.allocation_counts
        assert second.allocation_counts.current_count == second.allocation_counts.total_count
        del new
        gc.collect()
        cuda.current_context().deallocations.clear()
        assert second.allocation_counts.current_bytes == 0, second.allocation_counts
        first.check()
        """
    )


def test_a_replaced_resource_lives_until_its_last_block_is_freed(run):
    run(
        """
        import cenote
        driver_memory = cenote.mr.StatisticsResourceAdaptor(cenote.mr.CudaMemoryResource())
        cenote.install(cenote.mr.PoolMemoryResource(driver_memory, "64MiB"), frameworks=("torch",))
        import torch
        tensor = torch.arange(1000, device="cuda")
        cenote.mr.set_current_device_resource(cenote.mr.CudaMemoryResource())
        assert driver_memory.allocation_counts.current_bytes == 64 << 20
        assert int(tensor.sum()) == 499500
        del tensor
        assert driver_memory.allocation_counts.current_bytes == 0, "the pool was not given back"
        """
    )


SPIN_AND_READ = """
import cenote
cenote.install("pool:initial=64MiB,max=64MiB | cuda", frameworks=("torch",))
import torch
side = torch.cuda.Stream()
wrong = 0
for trial in range(20):
    source = torch.full((1 << 20,), 7, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(side):
        torch.cuda._sleep(40_000_000)          # a kernel that spins about 20 ms
        result = source.clone()                # reads the tensor only after that
    {record}
    address = source.data_ptr()
    del source
    other = torch.full((1 << 20,), 9, dtype=torch.int32, device="cuda")
    reused = other.data_ptr() == address
    torch.cuda.synchronize()
    wrong += int((result != 7).any())
    del other, result
    torch.cuda.synchronize()
"""


def test_a_tensor_used_on_a_second_stream_is_not_reused_early_after_record_stream(run):
    run(SPIN_AND_READ.format(record="source.record_stream(side)") + "assert wrong == 0, wrong")


def test_without_record_stream_it_is_reused_early(run):
    """The control: the test above can fail."""
    run(SPIN_AND_READ.format(record="pass") + "assert wrong > 0, wrong")


def test_record_stream_stalls_no_stream(run):
    run(
        """
        import cenote
        cenote.install("pool:initial=256MiB | cuda", frameworks=("torch",))
        import torch
        side = torch.cuda.Stream()
        source = torch.full((1 << 20,), 7, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()
        with torch.cuda.stream(side):
            torch.cuda._sleep(2_000_000_000)       # about a second
            result = source.clone()
        source.record_stream(side)
        del source
        other = torch.full((1 << 20,), 9, dtype=torch.int32, device="cuda")
        torch.cuda.current_stream().synchronize()
        assert not side.query(), "the free waited for the side stream"
        torch.cuda.synchronize()
        assert bool((result == 7).all())
        """
    )


def test_a_block_freed_on_one_stream_serves_another_in_order(run):
    run(
        """
        import cenote
        pool = cenote.mr.from_spec("pool:initial=8MiB,max=8MiB | cuda")
        cenote.install(pool, frameworks=("torch",))
        import torch
        a, b = torch.cuda.Stream(), torch.cuda.Stream()
        reused = 0
        for trial in range(20):
            with torch.cuda.stream(a):
                first = torch.empty(1 << 20, dtype=torch.int32, device="cuda")
                address = first.data_ptr()
                torch.cuda._sleep(20_000_000)
                first.fill_(1)                       # late: after the spinning kernel
                del first
            with torch.cuda.stream(b):
                second = torch.full((1 << 20,), 2, dtype=torch.int32, device="cuda")
                reused += second.data_ptr() == address
                torch.cuda.synchronize()
                assert bool((second == 2).all()), trial
                del second
            torch.cuda.synchronize()
        assert reused > 0
        assert pool.counters().waits > 0, pool.counters()
        pool.check()
        """
    )


def test_a_dead_stream_is_never_touched(run):
    """CuPy frees an array after its stream was destroyed; the handle would crash the driver."""
    run(
        """
        import cenote
        cenote.install("pool:initial=64MiB | cuda", frameworks=("cupy",))
        import cupy
        for trial in range(50):
            stream = cupy.cuda.Stream(non_blocking=True)
            with stream:
                array = cupy.arange(100_000)
            stream.synchronize()
            del stream
            total = int(array.sum())
            assert total == 4999950000
            del array
        cupy.cuda.Device().synchronize()
        assert cenote.usage()["cupy"].bytes == 0, cenote.usage()
        cenote.mr.get_current_device_resource().check()
        """
    )


def test_a_graph_is_captured_and_replayed_over_the_pool(run):
    run(
        """
        import cenote
        pool = cenote.mr.from_spec("pool:initial=64MiB | cuda")
        cenote.install(pool, frameworks=("torch",))
        import torch
        x = torch.ones(1000, device="cuda")
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y = (x * 2 + 1).sum()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = (x * 2 + 1).sum()
        noise = [torch.full((1000,), 99.0, device="cuda") for _ in range(100)]   # must not land in the graph's memory
        for value in (1.0, 2.0, 5.0):
            x.fill_(value)
            graph.replay()
            noise = [torch.full((1000,), 99.0, device="cuda") for _ in range(100)]
            assert float(y) == 1000 * (2 * value + 1), (float(y), value)
        pool.check()
        """
    )


def test_frees_are_held_back_while_a_graph_is_captured(run):
    run(
        """
        import cenote
        cenote.install("pool:initial=64MiB | cuda", frameworks=("torch",))
        import torch
        side = torch.cuda.Stream()
        x = torch.ones(1000, device="cuda")
        used = torch.ones(1000, device="cuda")
        used.record_stream(side)
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            y = x + 1
            del used                   # freeing it must not end the capture
        graph.replay()
        torch.cuda.synchronize()
        assert float(y.sum()) == 2000
        """
    )


@pytest.mark.alone
@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("import torch; torch.empty(1 << 30, device='cuda')", "OutOfMemoryError: CUDA out of memory."),
        ("import cupy; cupy.empty(1 << 30)", "OutOfMemoryError: Out of memory allocating"),
        ("from numba import cuda; cuda.device_array(1 << 30)", "OutOfMemoryError: out_of_memory"),
        ("cenote.DeviceBuffer(size=1 << 40)", "OutOfMemoryError: out_of_memory"),
    ],
)
def test_out_of_memory_names_the_figures_and_leaves_the_pool_usable(run, program, error):
    run(
        f"""
        import cenote
        cenote.install("pool:initial=64MiB,max=64MiB | cuda")
        for attempt in range(3):
            try:
                exec({program!r})
            except Exception as raised:
                text = "\\n".join([f"{{type(raised).__name__}}: {{raised}}", *getattr(raised, "__notes__", [])])
                assert {error!r} in text and "limit 64.00 MiB" in text, text
            else:
                raise SystemExit("nothing was raised")
        pool = cenote.mr.get_current_device_resource()
        pool.deallocate(pool.allocate(60 << 20), 60 << 20)
        pool.check()
        """
    )


def test_another_process_opens_a_numba_array_of_the_pool(run, tmp_path):
    """The array lies inside a chunk; the handle is of the chunk, and carries the offset."""
    script = tmp_path / "share.py"
    script.write_text(
        """
import multiprocessing
import numpy as np

def total(handle, answer):
    from numba import cuda
    with handle as array:
        answer.put(int(array.copy_to_host().sum()))

if __name__ == "__main__":
    import cenote
    cenote.install("pool:initial=64MiB | cuda", frameworks=("numba",))
    from numba import cuda
    first = cuda.to_device(np.zeros(1000))
    array = cuda.to_device(np.arange(1000))
    spawn = multiprocessing.get_context("spawn")
    answer = spawn.Queue()
    child = spawn.Process(target=total, args=(array.get_ipc_handle(), answer))
    child.start()
    print(answer.get(timeout=60))
    child.join()
"""
    )
    program = f"import subprocess, sys; subprocess.run([sys.executable, {str(script)!r}], check=True)"
    assert run(program).strip() == "499500"


def test_handle_of_mapped_memory_is_refused_and_the_way_is_named(run):
    run(
        """
        import cenote
        cenote.install("pool", frameworks=("numba",))
        import numpy as np
        from numba import cuda
        array = cuda.to_device(np.arange(1000))
        try:
            array.get_ipc_handle()
        except RuntimeError as error:
            assert "'pool | virtual'" in str(error) and "'pool | cuda'" in str(error), error
        else:
            raise AssertionError
        """
    )


def test_numba_memory_is_ready_on_every_stream(run):
    """The block was freed with work pending on it; a stream that nobody orders after it may use it at once."""
    run(
        """
        import cenote
        cenote.install("pool:initial=16MiB,max=16MiB | cuda", frameworks=("torch", "numba"))
        import numpy as np, torch
        from numba import cuda
        reused = 0
        for trial in range(10):
            side = torch.cuda.Stream()
            with torch.cuda.stream(side):
                late = torch.empty(12 << 20, dtype=torch.uint8, device="cuda")
                address = late.data_ptr()
                torch.cuda._sleep(40_000_000)
                late.fill_(1)
                del late
            array = cuda.device_array(12 << 20, np.uint8)
            reused += array.device_ctypes_pointer.value == address
            stream = cuda.external_stream(torch.cuda.Stream().cuda_stream)
            array.copy_to_device(np.full(12 << 20, 2, np.uint8), stream=stream)
            stream.synchronize()
            torch.cuda.synchronize()
            assert (array.copy_to_host() == 2).all(), trial
            del array
            torch.cuda.synchronize()
        assert reused > 0
        """
    )
