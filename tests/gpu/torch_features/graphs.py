"""CUDA graphs."""

from __future__ import annotations

import gc
import threading
from typing import Any

from .features import MiB, alone, device_free, feature


def captured(size: int = 1000, pool: Any = None) -> tuple[Any, Any, Any]:
    import torch

    x = torch.ones(size, device="cuda")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = (x * 2 + 1) * 3
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        y = (x * 2 + 1) * 3
    return graph, x, y


@feature
def graph_replays() -> object:
    import torch

    graph, x, y = captured()
    seen = []
    for value in (1.0, 2.0, 5.0):
        x.fill_(value)
        graph.replay()
        noise = [torch.full((1000,), 99.0, device="cuda") for _ in range(100)]
        seen.append(float(y.sum()))
    del noise
    return seen


@alone
@feature
def graph_gives_its_memory_back() -> None:
    import torch

    graph, x, y = captured(MiB)
    del graph, x, y
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = device_free()
    for _ in range(5):
        graph, x, y = captured(100 * MiB)
        graph.replay()
        del graph, x, y
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    assert before - device_free() <= 64 * MiB, (before - device_free()) / MiB


@feature
def graphs_share_a_pool() -> object:
    first, _x, y = captured(30 * MiB)
    first.replay()
    out = float(y[:1000].sum())
    del y
    second, _z, w = captured(30 * MiB, pool=first.pool())
    second.replay()
    return out, float(w[:1000].sum())


@feature
def graph_keeps_its_outputs() -> object:
    import torch

    x = torch.ones(1000, device="cuda")
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        kept = x + 1
        for _ in range(10):
            gone = x * 5
            del gone
        late = kept * 2
    graph.replay()
    others = [torch.full((1000,), 7.0, device="cuda") for _ in range(50)]
    graph.replay()
    assert all(float(each.sum()) == 7000 for each in others)
    return float(kept.sum()), float(late.sum())


@feature
def graph_with_a_side_stream() -> object:
    import torch

    x = torch.ones(1 << 16, device="cuda")
    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        a = x + 1
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            b = a * 3
            a.record_stream(side)
        del a
        c = x * 7
        torch.cuda.current_stream().wait_stream(side)
        d = b + c
    for _ in range(3):
        graph.replay()
    return float(d.sum())


@feature
def graph_captures_in_relaxed_and_thread_local_mode() -> object:
    import torch

    seen = []
    for mode in ("relaxed", "thread_local", "global"):
        x = torch.ones(1000, device="cuda")
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode=mode):
            y = x.repeat(5000) * 2
        graph.replay()
        seen.append(float(y.sum()))
    return seen


@feature
def abandoned_capture() -> object:
    import torch

    x = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            y = x + 1
            raise KeyError("stop")
    except KeyError:
        pass
    del graph
    y = None
    gc.collect()
    graph, x, y = captured()
    graph.replay()
    return float(y.sum()), float((torch.ones(10, device="cuda") + 1).sum())


@feature
def graph_of_a_training_step() -> object:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1)).cuda()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, target = torch.randn(32, 64, device="cuda"), torch.randn(32, 1, device="cuda")

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        loss = torch.nn.functional.mse_loss(model(x), target)
        loss.backward()
        optimizer.step()
        return loss

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    optimizer.zero_grad(set_to_none=True)
    with torch.cuda.graph(graph):
        loss = step()
    for _ in range(5):
        graph.replay()
    return f"{float(loss):.5f}"


@feature
def make_graphed_callables() -> object:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)).cuda()
    x = torch.randn(8, 64, device="cuda", requires_grad=True)
    graphed = torch.cuda.make_graphed_callables(model, (x,))
    y = graphed(torch.ones(8, 64, device="cuda", requires_grad=True))
    y.sum().backward()
    return f"{float(y.detach().sum()):.4f}"


@feature
def pool_checkpoint() -> object:
    import torch

    pool = torch.cuda.graph_pool_handle()
    x = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=pool):
        y = x + 1
        z = x + 2
    device = torch.cuda.current_device()
    live = {y.untyped_storage().data_ptr(), z.untyped_storage().data_ptr()}
    seen = [torch._C._cuda_checkPoolLiveAllocations(device, pool, live)]
    state = torch._C._cuda_getCheckpointState(device, pool)
    del z
    seen.append(torch._C._cuda_checkPoolLiveAllocations(device, pool, live))
    torch._C._cuda_setCheckpointPoolState(device, state, [], [])
    seen.append(torch._C._cuda_checkPoolLiveAllocations(device, pool, live))
    return seen


def _in_turn(order: tuple[int, ...], share: bool) -> list[float]:
    """Capture three graphs, of which the second reads what the first has made; launch them in an order."""
    import torch

    a = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()
    graphs = [torch.cuda.CUDAGraph() for _ in range(3)]
    pool = torch.cuda.graph_pool_handle() if share else None
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        arguments = (pool,) if share else ()
        graphs[0].capture_begin(*arguments)
        b = a.clone()
        c = b + 1
        d = b + 2
        graphs[0].capture_end()
        graphs[1].capture_begin(*arguments)
        e = c + 3
        del c
        graphs[1].capture_end()
        graphs[2].capture_begin(*arguments)
        f = d + 4
        graphs[2].capture_end()
    torch.cuda.current_stream().wait_stream(side)
    for number in order:
        graphs[number].replay()
    torch.cuda.synchronize()
    return [float(each.sum()) for each in (e, f)]


@feature
def graphs_of_a_pool_are_launched_in_their_order() -> object:
    seen = [_in_turn((0, 1, 2), True), _in_turn((0, 1, 2), False), _in_turn((0, 2, 1), False)]
    assert seen == [[5000.0, 7000.0]] * 3, seen
    assert _in_turn((0, 2, 1), True) == [10000.0, 7000.0]  # the third has the memory that the second reads
    return seen


@feature
def a_graph_is_captured_again() -> object:
    import torch

    a = torch.ones(1000, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    seen = []
    for amount in (1, 2):
        with torch.cuda.graph(graph):
            b = a
            for _ in range(10):
                b = b + amount
        graph.replay()
        seen.append(float(b.sum()))
        graph.reset()
    return seen


@feature
def segments_of_a_capture_over_two_streams() -> object:
    import torch

    x = torch.randn(10 * MiB, device="cuda")
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(first):
        graph.capture_begin()
        y = x + 1
    with torch.cuda.stream(second):
        second.wait_stream(first)
        z = x + 2
    first.wait_stream(second)
    with torch.cuda.stream(first):
        graph.capture_end()
    segments = [each for each in torch.cuda.memory_snapshot() if each["segment_pool_id"] == graph.pool()]
    streams = {each["stream"] for each in segments}
    del y, z
    return len(segments), len(streams)


@feature
def another_thread_allocates_during_a_capture() -> object:
    import torch

    failures = []

    def allocate() -> None:
        try:
            with torch.cuda.stream(torch.cuda.Stream()):
                for size in (1000, 5 * MiB):
                    torch.cuda.caching_allocator_delete(torch.cuda.caching_allocator_alloc(size))
        except RuntimeError as error:
            failures.append(error)

    allocate()
    for mode in ("thread_local", "relaxed"):
        x = torch.ones(1000, device="cuda")
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode=mode):
            y = x + 1
            thread = threading.Thread(target=allocate)
            thread.start()
            thread.join()
        graph.replay()
        assert float(y.sum()) == 2000
    assert not failures, failures


@feature
def a_recorded_block_waits_beside_a_capture() -> object:
    import torch

    waiting, a = torch.zeros(3, device="cuda"), torch.zeros(3, device="cuda")
    streams = [torch.cuda.Stream() for _ in range(3)]
    torch.cuda.synchronize()
    with torch.cuda.stream(streams[0]):
        waiting.record_stream(streams[0])
        torch.cuda._sleep(50_000_000)
        waiting.fill_(1.0)
    del waiting
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.stream(streams[1]):
        graph.capture_begin()
        b = a.clone()
        streams[2].wait_stream(streams[1])
        with torch.cuda.stream(streams[2]):
            b.fill_(1.0)
            b.record_stream(streams[2])
            del b
        streams[1].wait_stream(streams[2])
        graph.capture_end()
    torch.cuda.synchronize()
    torch.zeros(3, device="cuda")
    graph.replay()
    torch.cuda.synchronize()


@feature
def many_captures_leave_nothing_behind() -> object:
    import torch

    a, b = torch.rand(1024, 512, device="cuda"), torch.rand(512, 64, device="cuda")
    torch.mm(a, b)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    for _ in range(50):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            c = torch.mm(a, b)
        graph.replay()
    torch.cuda.synchronize()
    del c, graph
    gc.collect()
    torch.cuda.empty_cache()
    assert torch.cuda.memory_allocated() <= before + 64 * MiB  # of cuBLAS, once
    pools = [each for each in torch.cuda.memory_snapshot() if each["segment_pool_id"] != (0, 0)]
    return len(pools)


@feature
def memory_runs_out_in_a_capture() -> object:
    import torch

    try:
        with torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.zeros(2**40, device="cuda")
    except torch.OutOfMemoryError as error:
        return str(error)[:20]
    raise AssertionError("there was memory")


@feature
def blocks_of_a_checkpoint_are_freed_one_by_one() -> object:
    import torch

    side = torch.cuda.Stream()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        made = [torch.ones(512, device="cuda", dtype=torch.uint8) for _ in range(11)]
        kept = [made[5], made[8]]
        del made
    pool = graph.pool()

    def live() -> int:
        segments = [each for each in torch.cuda.memory_snapshot() if each["segment_pool_id"] == pool]
        return sum(block["state"] == "active_allocated" for each in segments for block in each["blocks"])

    state = torch._C._cuda_getCheckpointState(0, pool)
    addresses = [each.data_ptr() for each in kept]
    seen = [live()]
    del kept
    seen.append(live())
    torch._C._cuda_setCheckpointPoolState(0, state, [], [])
    seen.append(live())
    for address in addresses:
        torch._C._cuda_cudaCachingAllocator_raw_delete(address)
        seen.append(live())
    assert seen == [2, 0, 2, 1, 0], seen
    return seen
