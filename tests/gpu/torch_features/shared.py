"""What cenote has beside PyTorch's own allocator: graphs that share pages, a resource for a part of a program."""

from __future__ import annotations

import gc
import time
from typing import Any

from .features import MiB, alone, device_free, feature_of_cenote, install, installs_itself, tensor
from .programs import receive_and_change


def _graph_of(size: int) -> tuple[Any, Any, Any]:
    """Capture a graph with temporaries of its own and an output, over an input from outside."""
    import torch

    x = torch.zeros(size, device="cuda")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x.repeat(2) * 2 + 1)[:size] * 3
    return graph, x, y


@alone
@feature_of_cenote
def graphs_that_share_pages_cost_the_largest() -> object:
    import torch

    import cenote

    sizes = [(index + 1) * (MiB // 4) for index in reversed(range(64))]
    with cenote.graphs_share_pages() as alone_pages:
        largest = _graph_of(sizes[0])
    largest_bytes = alone_pages.nbytes
    del largest
    gc.collect()
    torch.cuda.synchronize()
    assert alone_pages.nbytes == 0
    torch.cuda.empty_cache()
    before, reserved = device_free(), torch.cuda.memory_reserved()
    graphs = []
    with cenote.graphs_share_pages() as pages:
        for size in sizes:
            graphs.append(_graph_of(size))
            assert pages.nbytes <= 1.05 * largest_bytes, (size, pages.nbytes, largest_bytes)
    taken = before - device_free()
    grown = torch.cuda.memory_reserved() - reserved
    for turn in range(3):
        for graph, x, y in graphs:
            x.fill_(float(turn))
            graph.replay()
            assert float(y.sum()) == (turn * 2 + 1) * 3 * len(y), (turn, len(y))
    inputs = sum(4 * size for size in sizes)
    assert pages.nbytes <= grown <= 1.1 * (pages.nbytes + inputs), (pages.nbytes, grown, inputs)
    del graph, x, y, graphs
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    assert pages.nbytes == 0
    return largest_bytes, grown - inputs, taken - inputs


@feature_of_cenote
def graphs_that_share_pages_may_not_run_at_once() -> object:
    import torch

    import cenote

    with cenote.graphs_share_pages():
        first, _x, _y = _graph_of(MiB)
        second, z, w = _graph_of(MiB)
    outside, _a, _b = _graph_of(MiB)
    side, other = torch.cuda.Stream(), torch.cuda.Stream()
    seen = []
    with torch.cuda.stream(side):
        first.replay()
        second.replay()  # in the order of one stream
        torch.cuda._sleep(1_000_000_000)
        first.replay()
    with torch.cuda.stream(other):
        outside.replay()
        try:
            second.replay()
        except RuntimeError as error:
            seen.append("at once" in str(error))
        side.synchronize()
        z.fill_(2.0)
        second.replay()
    torch.cuda.synchronize()
    seen.append(float(w[0]))
    first.reset()
    assert all(seen), seen
    return seen


@feature_of_cenote
def a_pool_of_the_program_shares_no_pages() -> object:
    import torch

    import cenote

    pool = torch.cuda.MemPool()
    with cenote.graphs_share_pages() as pages:
        with torch.cuda.use_mem_pool(pool):
            kept = tensor(30 * MiB)
        seen = [pages.nbytes]
        graph = _graph_of(MiB)
    seen.append(pages.nbytes > 0)
    del kept, graph
    return seen


@feature_of_cenote
def a_tensor_is_on_offer_to_others_while_it_lives() -> object:
    import torch
    import torch.multiprocessing as multiprocessing

    import cenote

    before = torch.cuda.memory_allocated()
    context = multiprocessing.get_context("spawn")
    queue, answers = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=receive_and_change, args=(queue, answers, "cenote"), daemon=True)
    process.start()
    kept = torch.arange(1000, device="cuda")
    address = kept.data_ptr()
    queue.put(kept)
    assert answers.get() == 499500
    queue.put(None)
    process.join()
    time.sleep(0.5)  # until the thread that answers other processes has seen that this one ended
    del kept
    gc.collect()
    torch.cuda.ipc_collect()
    assert torch.cuda.memory_allocated() == before
    try:
        cenote.registry.Client("tests").withdraw(address)
    except ValueError:  # it is not on offer
        return process.exitcode
    raise AssertionError("a tensor that was freed is on offer to other processes")


@feature_of_cenote
def use_is_for_the_calling_thread_and_not_for_autograds() -> object:
    import torch

    import cenote
    from cenote import mr

    class Watch(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Any) -> Any:
            return x * 2

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:
            seen.append(mr.get_current_device_resource() is pool)
            return gradient * 2

    seen: list[bool] = []
    with cenote.use("statistics | pool") as pool:
        x = torch.ones(3 * MiB, device="cuda", requires_grad=True)
        inside = pool.state().in_use
        assert inside is not None and inside >= 12 * MiB
        Watch.apply(x).sum().backward()
    outside = torch.ones(3 * MiB, device="cuda")
    gradient_is_of_the_process = pool.state().in_use - inside < 12 * MiB
    assert float(x.grad.sum()) == 2 * 3 * MiB
    del x, outside
    gc.collect()
    torch.cuda.synchronize()
    return seen, gradient_is_of_the_process


@installs_itself
@feature_of_cenote
def mempool_mode_leaves_pytorchs_allocator_in_its_place() -> object:
    import torch

    import cenote

    report = cenote.install("statistics | pool", frameworks="torch", torch_mode="mempool")
    assert report and "segments" in str(report), report
    assert torch.cuda.get_allocator_backend() == "native"
    kept = torch.ones(10 * MiB, device="cuda")
    seen = [torch.cuda.memory_allocated(), cenote.usage()["torch"].bytes]
    x = torch.ones(10 * MiB, device="cuda", requires_grad=True)
    (x * 3).sum().backward()
    assert float(x.grad.sum()) == 30 * MiB
    try:
        tensor(10**12)
        raise AssertionError("there was memory")
    except torch.OutOfMemoryError as error:
        assert str(error).startswith("CUDA out of memory. Tried to allocate 931.32 GiB"), error
    report = cenote.uninstall("torch")
    assert report and "driver" in str(report), report
    used = cenote.usage()["torch"].bytes
    more = torch.ones(30 * MiB, device="cuda")
    assert cenote.usage()["torch"].bytes == used
    del kept, more, x
    install("cenote")
    assert torch.ones(1000, device="cuda").sum() == 1000
    return seen
