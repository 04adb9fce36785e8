"""Captures into a graph on a device: what happens beside them ends none; unused memory of pools is for the next."""

from __future__ import annotations

import pytest

CALLS = {
    "state": "resource.state()",
    "trim": "resource.trim()",
    "running out": """
try:
    resource.allocate(1 << 50, side)
    raise AssertionError("there was as much")
except MemoryError:
    pass
""",
    "making one": "mr.from_spec(specification)",
    "allocate and deallocate": "resource.deallocate(resource.allocate(1000, side), 1000, side)",
    "a buffer": """
buffer = cenote.DeviceBuffer(size=5000, stream=side, mr=resource)
buffer.copy_from_host(b"x" * 5000, side)
assert buffer.tobytes(side) == b"x" * 5000
buffer.close()
del buffer  # it keeps its resource, and the end of a pool would end a later capture
""",
    "figures of all": "cenote.usage(); cenote.driver.device_properties(0)",
    "waiting for a stream": "side.synchronize(); assert side.is_done()",
}

# What a pool needs an event over all work for ends a capture that is not announced, as the page of the pool says.
NEED_ALL_WORK = {"trim", "running out", "making one"}


def test_a_capture_of_pytorch_stays_valid_beside_calls_on_another_thread(run):
    run(
        f"""
        import threading, cenote, torch
        from cenote import mr
        x = torch.ones(1000, device="cuda")
        side = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        for specification in ("cuda", "async", "pool:initial=4MiB | cuda", "pool:initial=4MiB | async"):
            resource = mr.from_spec(specification)
            for mode in ("global", "thread_local", "relaxed"):
                for name, code in {CALLS!r}.items():
                    if "pool" in specification and name in {NEED_ALL_WORK!r}:
                        continue
                    failed = []
                    def call():
                        try:
                            exec(code, globals())
                        except BaseException as error:
                            failed.append(error)
                    graph = torch.cuda.CUDAGraph()
                    with torch.cuda.graph(graph, capture_error_mode=mode):
                        y = x + 1
                        thread = threading.Thread(target=call)
                        thread.start()
                        thread.join()
                        z = y * 2
                    assert not failed, (specification, mode, name, failed)
                    graph.replay()
                    torch.cuda.synchronize()
                    assert float(z[0]) == 4.0, (specification, mode, name)
        """
    )


def test_an_announced_capture_stays_valid_also_beside_pools_that_run_out_and_end(run):
    run(
        """
        import threading, cenote, torch
        from cenote import mr
        cenote.install("pool:initial=64MiB | cuda", frameworks=["torch"])
        x = torch.ones(1000, device="cuda")
        side = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        failed = []
        def call(specification):
            try:
                resource = mr.from_spec(specification)
                block = resource.allocate(3 << 20, side)
                resource.deallocate(block, 3 << 20, side)
                resource.trim()
                try:
                    resource.allocate(1 << 50, side)
                except MemoryError:
                    pass
                del resource
            except BaseException as error:
                failed.append(error)
        for specification in ("pool:initial=4MiB | cuda", "pool:initial=4MiB | async", "async", "arena | cuda"):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                y = x + 1
                thread = threading.Thread(target=call, args=(specification,))
                thread.start()
                thread.join()
                z = y * 2
            assert not failed, (specification, failed)
            graph.replay()
            torch.cuda.synchronize()
            assert float(z[0]) == 4.0
        """
    )


@pytest.mark.alone  # takes most of the device
def test_memory_of_an_async_resource_that_is_gone_is_there_for_the_next(run):
    run(
        """
        import cenote, torch
        from cenote import mr
        torch.cuda.init()
        size = int(torch.cuda.mem_get_info()[0] * 0.7) & ~0x1FFFFF
        streams = (torch.cuda.Stream(), torch.cuda.default_stream())
        for specification in ("cuda", "async", "pool:initial=0 | cuda"):
            for stream, is_busy in zip(streams * 2, (False, False, True, True)):
                gone = mr.CudaAsyncMemoryResource()
                block = gone.allocate(size, stream)
                if is_busy:
                    with torch.cuda.stream(stream):
                        torch.cuda._sleep(200_000_000)  # a tenth of a second
                gone.deallocate(block, size, stream)
                del gone
                resource = mr.from_spec(specification)
                on = torch.cuda.Stream()
                resource.deallocate(resource.allocate(size, on), size, on)
                on.synchronize()
                resource.trim()
                del resource
        """
    )


@pytest.mark.alone  # takes most of the device
def test_a_resource_that_is_replaced_leaves_its_memory_to_the_next(run):
    run(
        """
        import cenote, torch
        size = int(torch.cuda.mem_get_info()[0] * 0.7) & ~0x1FFFFF
        cenote.mr.set_current_device_resource(cenote.mr.CudaAsyncMemoryResource())
        buffer = cenote.DeviceBuffer(size=size)
        del buffer
        cenote.reinitialize(pool_allocator=True, initial_pool_size=size)
        """
    )


def test_the_drivers_managed_pool_keeps_what_is_freed_over_a_synchronisation(run):
    run(
        """
        import cenote
        try:
            resource = cenote.mr.CudaAsyncManagedMemoryResource()
        except RuntimeError as error:
            assert "managed memory need" in str(error), error
            raise SystemExit
        stream = cenote.Stream(flags=cenote.CudaStreamFlags.NON_BLOCKING)
        for _ in range(3):
            resource.deallocate(resource.allocate(64 << 20, stream), 64 << 20, stream)
            stream.synchronize()
        assert resource.state().held >= 64 << 20
        """
    )


SHARED_AND_OWN = """
import gc, cenote
cenote.install("pool", frameworks=[FRAMEWORK], torch_mode="pluggable")
resource = cenote.mr.get_current_device_resource()
PREPARE
resource.trim(wait=True)
before = resource.state().held
held = {}
for shared in (True, False):
    graphs = capture(8, shared)
    held[shared] = resource.state().held - before
    for _ in range(2):
        for number in range(8):
            launch(graphs, number)
    del graphs
    gc.collect()
    cenote.driver.synchronize(0)
    resource.trim(wait=True)
    assert resource.state().held <= before, (shared, resource.state().held, before)
print({shared: nbytes >> 20 for shared, nbytes in held.items()})
assert held[True] * 4 <= held[False], held
"""

PREPARE = {
    "torch": """
import torch
x = torch.ones(1 << 24, device="cuda")
work = lambda number: ((x * 2) * (x + number)).sum()
for _ in range(2):
    work(0)
torch.cuda.synchronize()
def capture(count, shared):
    graphs = []
    for number in range(count):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=graphs[0][0].pool() if shared and graphs else None):
            y = work(number)
        graphs.append((graph, y))
    return graphs
def launch(graphs, number):
    graph, y = graphs[number]
    graph.replay()
    torch.cuda.synchronize()
    assert float(y) == 2 * (1 + number) * len(x), number
""",
    "cupy": """
import contextlib, cupy
x, y = cupy.ones(1 << 23), cupy.empty(1 << 23)
stream = cupy.cuda.Stream(non_blocking=True)
with stream:
    cupy.multiply(x + 1.0, x + 2.5, out=y)
stream.synchronize()
def capture(count, shared):
    graphs, pool = [], cenote.GraphPool()
    for number in range(count):
        with pool.capture(stream) if shared else contextlib.nullcontext(), stream:
            stream.begin_capture()
            cupy.multiply(x + 1.0, x + float(number), out=y)
            graphs.append(stream.end_capture())
    return graphs
def launch(graphs, number):
    graphs[number].launch(stream)
    stream.synchronize()
    assert bool((y == 2 * (1 + number)).all()), number
""",
}


@pytest.mark.parametrize("framework", PREPARE)
def test_graphs_of_a_pool_cost_one_of_them_and_leave_nothing_behind(run, framework):
    pytest.importorskip(framework)
    print(run(SHARED_AND_OWN.replace("FRAMEWORK", repr(framework)).replace("PREPARE", PREPARE[framework])))
