"""Things that PyTorch users do with memory, one function each: with PyTorch's own allocator, and with cenote.

    python torch_features.py ALLOCATOR FEATURE      ALLOCATOR: native or cenote
    python torch_features.py ALLOCATOR              all of them, several at a time, as a table

A function fails by raising; what it returns must be the same with both allocators.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

FEATURES: dict[str, Callable[[], Any]] = {}
MiB = 1 << 20
ALONE: set[str] = set()
"""Those that look at what the device has left, or take all of it: not beside others."""
TIMEOUT_SECONDS = 100


def feature(function: Callable[[], Any]) -> Callable[[], Any]:
    FEATURES[function.__name__] = function
    return function


INSTALL_THEMSELVES: set[str] = set()


def installs_itself(function: Callable[[], Any]) -> Callable[[], Any]:
    INSTALL_THEMSELVES.add(function.__name__)
    return function


def alone(function: Callable[[], Any]) -> Callable[[], Any]:
    ALONE.add(function.__name__)
    return function


def tensor(size: int) -> Any:
    import torch

    return torch.empty(size, dtype=torch.uint8, device="cuda")


def device_free() -> int:
    import torch

    return torch.cuda.mem_get_info()[0]


# --- Statistics -------------------------------------------------------------------------------------------------------


@feature
def memory_allocated() -> object:
    import torch

    assert torch.cuda.memory_allocated() == 0
    kept = tensor(1000)
    seen = [torch.cuda.memory_allocated()]
    more = tensor(3 * MiB)
    seen.append(torch.cuda.memory_allocated())
    del kept, more
    seen.append(torch.cuda.memory_allocated())
    assert seen == [1024, 1024 + 3 * MiB, 0], seen
    return seen


@feature
def max_memory_allocated() -> object:
    import torch

    kept = tensor(8 * MiB)
    del kept
    assert torch.cuda.max_memory_allocated() == 8 * MiB
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_allocated() == 0
    kept = tensor(2 * MiB)
    assert torch.cuda.max_memory_allocated() == kept.numel()


@feature
def memory_reserved() -> None:
    import torch

    kept = tensor(30 * MiB)
    reserved = torch.cuda.memory_reserved()
    assert reserved >= 30 * MiB, reserved
    assert torch.cuda.max_memory_reserved() >= reserved
    del kept
    torch.cuda.empty_cache()
    assert torch.cuda.memory_reserved() < reserved


@feature
def peak_of_reserved_is_reset() -> None:
    import torch

    kept = tensor(64 * MiB)
    del kept
    torch.cuda.empty_cache()
    assert torch.cuda.max_memory_reserved() >= 64 * MiB
    torch.cuda.reset_peak_memory_stats()
    assert torch.cuda.max_memory_reserved() < 64 * MiB


@feature
def memory_stats() -> object:
    import torch

    kept = [tensor(1000), tensor(700), tensor(5 * MiB)]
    del kept[1]
    stats = torch.cuda.memory_stats()
    names = [
        f"{figure}.{pool}.{kind}"
        for figure in ("allocation", "allocated_bytes", "active", "active_bytes", "requested_bytes")
        for pool in ("all", "small_pool", "large_pool")
        for kind in ("current", "peak", "allocated", "freed")
    ]
    assert stats["num_alloc_retries"] == stats["num_ooms"] == 0
    for name in ("segment.all.current", "reserved_bytes.all.current", "inactive_split.all.peak"):
        assert name in stats, name
    return {name: stats[name] for name in names}


@feature
def requested_bytes() -> object:
    import torch

    kept = [tensor(size) for size in (1, 513, 100_000)]
    assert torch.cuda.memory_stats()["requested_bytes.all.current"] == 100_514
    del kept
    return torch.cuda.memory_stats()["requested_bytes.all.freed"]


@feature
def accumulated_statistics_are_reset() -> object:
    import torch

    for _ in range(10):
        tensor(1000)
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == 10
    torch.cuda.reset_accumulated_memory_stats()
    stats = torch.cuda.memory_stats()
    assert stats["allocation.all.allocated"] == stats["allocation.all.freed"] == 0


@feature
def memory_stats_as_nested_dict() -> None:
    import torch

    kept = tensor(1000)
    assert torch.cuda.memory_stats_as_nested_dict()["allocated_bytes"]["small_pool"]["current"] == 1024
    del kept


@feature
def memory_summary() -> None:
    import torch

    kept = tensor(MiB)
    text = torch.cuda.memory_summary()
    assert "Allocated memory" in text and "1024 KiB" in text, text
    assert "GPU reserved memory" in torch.cuda.memory_summary(abbreviated=True)
    del kept


@feature
def accelerator_memory_allocated() -> object:
    import torch

    kept = tensor(3 * MiB)
    seen = (torch.accelerator.memory_allocated(), torch.accelerator.max_memory_allocated())
    assert seen == (3 * MiB, 3 * MiB), seen
    assert torch.accelerator.memory_reserved() >= 3 * MiB
    del kept
    torch.accelerator.reset_peak_memory_stats()
    torch.accelerator.empty_cache()
    assert torch.accelerator.max_memory_allocated() == 0
    assert torch.accelerator.memory_stats()["allocation.all.current"] == 0
    return seen


@feature
def mem_get_info() -> None:
    import torch

    free, total = torch.cuda.mem_get_info()
    assert 0 < free < total


@feature
def pinned_memory_and_its_statistics() -> None:
    import torch

    torch.cuda.init()
    kept = torch.empty(1000, pin_memory=True)
    assert torch.cuda.memory.host_memory_stats()["allocated_bytes.current"] >= 4000
    assert torch.equal(kept.to("cuda").cpu(), kept) or kept.isnan().any()


# --- Snapshots --------------------------------------------------------------------------------------------------------


@feature
def memory_snapshot() -> None:
    import torch

    kept = [tensor(size) for size in (1000, 3 * MiB, 512, 40 * MiB)]
    del kept[1]
    addresses = {each.data_ptr() for each in kept}
    for segment in torch.cuda.memory_snapshot():
        assert sum(block["size"] for block in segment["blocks"]) == segment["total_size"], segment
        address = segment["address"]
        for block in segment["blocks"]:
            assert block["address"] == address
            address += block["size"]
            if block["state"] == "active_allocated":
                addresses.discard(block["address"])
    assert not addresses


@feature
def a_snapshot_adds_up_to_the_statistics() -> None:
    import torch

    kept = [tensor(size) for size in (1000, 300_000, 3 * MiB, 512, 40 * MiB, MiB, MiB + 1)]
    del kept[2], kept[0]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept += [tensor(5000), tensor(12 * MiB)]
    sums: dict[str, int] = {}

    def count(name: str, amount: int) -> None:
        sums[name] = sums.get(name, 0) + amount

    for segment in torch.cuda.memory_snapshot():
        for which in ("all", f"{segment['segment_type']}_pool"):
            count(f"allocated_bytes.{which}.current", segment["allocated_size"])
            count(f"active_bytes.{which}.current", segment["active_size"])
            count(f"requested_bytes.{which}.current", segment["requested_size"])
            count(f"reserved_bytes.{which}.current", segment["total_size"])
            for block in segment["blocks"]:
                count(f"allocation.{which}.current", block["state"] == "active_allocated")
                is_split = len(segment["blocks"]) > 1 and not segment["is_expandable"]
                count(f"inactive_split.{which}.current", is_split and block["state"] == "inactive")
    stats = torch.cuda.memory_stats()
    wrong = {name: (stats[name], seen) for name, seen in sums.items() if stats[name] != seen}
    assert not wrong, wrong


def _frames_name_this_file(entry: dict[str, Any]) -> bool:
    return any("torch_features" in frame["filename"] for frame in entry["frames"])


@feature
def record_memory_history() -> object:
    import torch

    torch.cuda.memory._record_memory_history(stacks="python")
    kept = tensor(1000)
    gone = tensor(2 * MiB)
    del gone
    snapshot = torch.cuda.memory._snapshot()
    actions = [entry["action"] for entry in snapshot["device_traces"][0]]
    named = [action for action in actions if action in ("alloc", "free_requested", "free_completed")]
    assert named == ["alloc", "alloc", "free_requested", "free_completed"], actions
    allocated = [entry for entry in snapshot["device_traces"][0] if entry["action"] == "alloc"]
    assert all(_frames_name_this_file(entry) for entry in allocated)
    assert abs(allocated[0]["time_us"] / 1e6 - time.time()) < 60
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    assert any(block["address"] == kept.data_ptr() and _frames_name_this_file(block) for block in blocks)
    torch.cuda.memory._record_memory_history(enabled=None)
    return named


@feature
def record_memory_history_with_cpp_stacks() -> None:
    import torch

    torch.cuda.memory._record_memory_history(stacks="all")
    kept = tensor(1000)
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    frames = next(entry["frames"] for entry in trace if entry["action"] == "alloc")
    assert any("at::" in frame["name"] for frame in frames), frames
    del kept


@feature
def history_of_the_state_alone() -> None:
    import torch

    torch.cuda.memory._record_memory_history(enabled="state", stacks="python")
    kept = tensor(1000)
    snapshot = torch.cuda.memory._snapshot()
    blocks = [block for segment in snapshot["segments"] for block in segment["blocks"]]
    assert any(block["address"] == kept.data_ptr() and _frames_name_this_file(block) for block in blocks)


@feature
def history_keeps_the_last_entries() -> object:
    import torch

    torch.cuda.memory._record_memory_history(max_entries=5)
    for _ in range(20):
        tensor(1000)
    return len(torch.cuda.memory._snapshot()["device_traces"][0])


@feature
def dump_snapshot() -> None:
    import torch
    from torch.cuda._memory_viz import segment_plot, segsum, trace_plot

    torch.cuda.memory._record_memory_history()
    kept = [tensor(3 * MiB) for _ in range(5)]
    del kept[::2]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "snapshot.pickle")
        torch.cuda.memory._dump_snapshot(str(path))
        snapshot = pickle.loads(path.read_bytes())
    assert set(snapshot) >= {"segments", "device_traces", "allocator_settings", "external_annotations"}
    assert "<script" in trace_plot(snapshot) and "<script" in segment_plot(snapshot)
    assert "Total" in segsum(snapshot) or segsum(snapshot)
    del kept


@feature
def a_history_can_be_walked_back() -> None:
    """As the viewer does: from the last segments and blocks, event by event, to the state before all of them."""
    import torch

    early = [tensor(size) for size in (1000, 3 * MiB)]
    torch.cuda.memory._record_memory_history()
    kept = [tensor((index * 7919 * 512) % (6 * MiB) + 1) for index in range(200)]
    del kept[::3], early[0]
    torch.cuda.empty_cache()
    kept += [tensor(5000) for _ in range(100)]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept.append(tensor(5 * MiB))
    torch.cuda.memory._snapshot()
    del kept[::2]
    snapshot = torch.cuda.memory._snapshot()
    segments = {
        each["address"]: (each["address"] + each["total_size"], each["stream"]) for each in snapshot["segments"]
    }
    blocks = {
        block["address"]
        for segment in snapshot["segments"]
        for block in segment["blocks"]
        if block["state"] != "inactive"
    }

    def around(start: int, end: int) -> int:
        return next(begin for begin, (its_end, _) in segments.items() if begin <= start and end <= its_end)

    for event in reversed(snapshot["device_traces"][0]):
        start, action = event["addr"] if event["action"] != "oom" else 0, event["action"]
        end = start + event["size"]
        if action in ("segment_unmap", "segment_free"):
            for begin, (its_end, stream) in list(segments.items()):
                if action == "segment_unmap" and stream == event["stream"] and (its_end == start or begin == end):
                    start, end = min(start, begin), max(end, its_end)
                    del segments[begin]
            segments[start] = (end, event["stream"])
        elif action in ("segment_map", "segment_alloc"):
            begin = around(start, end)
            its_end, stream = segments.pop(begin)
            assert action == "segment_map" or (begin, its_end) == (start, end)
            for rest, rest_end in ((begin, start), (end, its_end)):
                if rest != rest_end:
                    segments[rest] = (rest_end, stream)
        elif action == "free_completed":
            blocks.add(start)
        elif action == "free_requested":
            assert start in blocks
        elif action == "alloc":
            blocks.remove(start)
        assert all(around(block, block + 1) is not None for block in blocks), event
    assert len(blocks) == 2


@feature
def user_metadata() -> None:
    import torch

    torch.cuda.memory._record_memory_history()
    torch._C._cuda_setMemoryMetadata("step 7")
    assert torch._C._cuda_getMemoryMetadata() == "step 7"
    kept = tensor(1000)
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    assert [entry["user_metadata"] for entry in trace if entry["action"] == "alloc"] == ["step 7"]
    del kept


@feature
def profiler_shows_device_memory() -> None:
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA], profile_memory=True) as seen:
        kept = torch.ones(1 << 20, device="cuda") * 2
    used = sum(abs(event.self_device_memory_usage) for event in seen.key_averages())
    assert used >= 4 * MiB, used
    del kept


# --- Limits and errors ------------------------------------------------------------------------------------------------


@feature
def memory_fraction_limits() -> None:
    import torch

    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction(0.01)
    assert abs(torch.cuda.get_per_process_memory_fraction() - 0.01) < 1e-9
    kept = tensor(int(0.005 * total))
    try:
        tensor(int(0.006 * total))
        raise AssertionError("the limit does not hold")
    except torch.OutOfMemoryError as error:
        assert "allowed" in str(error), error
    del kept
    torch.cuda.empty_cache()
    kept = tensor(int(0.009 * total))
    torch.cuda.set_per_process_memory_fraction(1.0)
    more = tensor(int(0.02 * total))
    del kept, more


def _run_out(size: int = 10**12) -> Exception:
    import torch

    try:
        tensor(size)
    except torch.OutOfMemoryError as error:
        return error
    raise AssertionError("there was memory")


@feature
def out_of_memory_error() -> None:
    text = str(_run_out())
    assert text.startswith("CUDA out of memory. Tried to allocate 931.32 GiB. GPU 0 has a total capacity of "), text
    assert "Of the allocated memory" in text


@feature
def more_than_an_exbibyte() -> object:
    import torch

    try:
        torch.cuda.caching_allocator_alloc(1 << 61)
    except torch.OutOfMemoryError as error:
        assert str(error).startswith("CUDA out of memory. Tried to allocate 2147483648.00 GiB"), error
        return "raised"
    raise AssertionError("there was memory")


@feature
def out_of_memory_is_counted() -> object:
    import torch

    _run_out()
    _run_out()
    stats = torch.cuda.memory_stats()
    return stats["num_ooms"], stats["num_alloc_retries"]


@feature
def out_of_memory_observers() -> object:
    import torch

    seen = []
    torch._C._cuda_attach_out_of_memory_observer(lambda *figures: seen.append(figures))
    _run_out()
    assert len(seen) == 1 and seen[0][0] == 0 and 10**12 <= seen[0][1] <= 10**12 + 2 * MiB, seen
    return len(seen)


@feature
def out_of_memory_in_the_history() -> object:
    import torch

    torch.cuda.memory._record_memory_history()
    _run_out()
    trace = torch.cuda.memory._snapshot()["device_traces"][0]
    return [entry["action"] for entry in trace if entry["action"] == "oom"]


@alone
@feature
def a_program_goes_on_after_running_out() -> None:
    import torch

    size = int(device_free() * 0.3)
    kept = [tensor(size) for _ in range(3)]
    _run_out(size)
    del kept[0]
    kept.append(tensor(size))  # what was freed serves at once
    del kept
    gc.collect()
    kept = [tensor(int(size * 2.9))]  # in one piece, once idle memory went back
    assert torch.cuda.memory_allocated() >= kept[0].numel()


# --- Streams and threads ----------------------------------------------------------------------------------------------


@feature
def record_stream() -> None:
    import torch

    side = torch.cuda.Stream()
    for _ in range(10):
        source = torch.full((MiB,), 7, dtype=torch.int32, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            torch.cuda._sleep(20_000_000)
            result = source.clone()
        source.record_stream(side)
        del source
        other = torch.full((MiB,), 9, dtype=torch.int32, device="cuda")
        torch.cuda.synchronize()
        assert bool((result == 7).all())
        del other, result


@feature
def a_recorded_block_is_pending_until_the_stream_is_done() -> object:
    import torch

    side = torch.cuda.Stream()
    torch.cuda._sleep(1)
    torch.cuda.synchronize()
    kept = tensor(3 * MiB)
    with torch.cuda.stream(side):
        torch.cuda._sleep(1_000_000_000)
        kept.fill_(1)
    kept.record_stream(side)
    del kept
    stats = torch.cuda.memory_stats()
    seen = [stats["allocated_bytes.all.current"], stats["active_bytes.all.current"]]
    blocks = [block for segment in torch.cuda.memory_snapshot() for block in segment["blocks"]]
    seen.append(sum(block["state"] == "active_pending_free" for block in blocks))
    torch.cuda.synchronize()
    tensor(1000)
    return [*seen, torch.cuda.memory_stats()["active_bytes.all.current"]]


@feature
def external_stream_that_is_gone() -> None:
    import ctypes

    import torch

    torch.cuda.init()
    runtime = ctypes.CDLL("libcudart.so.13")
    for _ in range(20):
        handle = ctypes.c_void_p()
        assert runtime.cudaStreamCreateWithFlags(ctypes.byref(handle), 1) == 0
        with torch.cuda.stream(torch.cuda.ExternalStream(handle.value)):
            kept = torch.ones(1000, device="cuda")
        torch.cuda.synchronize()
        assert runtime.cudaStreamDestroy(handle) == 0
        assert float(kept.sum()) == 1000
        del kept  # after its stream


@feature
def many_threads() -> object:
    import torch

    failures = []

    def work() -> None:
        try:
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for size in range(1, 200):
                    kept = torch.full((size * 1000,), size, device="cuda")
                    assert int(kept[-1]) == size
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    [each.start() for each in threads]
    [each.join() for each in threads]
    assert not failures, failures
    return torch.cuda.memory_stats()["allocation.all.allocated"] >= 8 * 199, torch.cuda.memory_allocated()


@feature
def caching_allocator_alloc() -> object:
    import torch

    pointer = torch.cuda.caching_allocator_alloc(5000)
    seen = torch.cuda.memory_allocated()
    torch.cuda.caching_allocator_delete(pointer)
    return seen, torch.cuda.memory_allocated()


@alone
@feature
def empty_cache_gives_all_back() -> None:
    import torch

    torch.cuda.synchronize()
    kept = tensor(1000)
    before = device_free()
    many = [tensor(200 * MiB) for _ in range(20)] + [tensor(5000) for _ in range(1000)]
    del many
    torch.cuda.empty_cache()
    assert before - device_free() <= 32 * MiB, (before - device_free()) / MiB
    assert torch.cuda.memory_reserved() <= 32 * MiB
    del kept


@feature
def storage_resize() -> object:
    import torch

    kept = torch.ones(1000, device="cuda")
    kept.untyped_storage().resize_(0)
    seen = [torch.cuda.memory_allocated()]
    kept.untyped_storage().resize_(8000)
    return [*seen, torch.cuda.memory_allocated()]


# --- Pools ------------------------------------------------------------------------------------------------------------


@feature
def mem_pool() -> None:
    import torch

    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept = tensor(3 * MiB)
    outside = tensor(3 * MiB)
    segments = pool.snapshot()
    assert len(segments) == 1 and segments[0]["segment_pool_id"] == pool.id, segments
    first = segments[0]["address"]
    assert first <= kept.data_ptr() < first + segments[0]["total_size"]
    assert not first <= outside.data_ptr() < first + segments[0]["total_size"]


@feature
def mem_pool_use_count() -> object:
    import torch

    pool = torch.cuda.MemPool()
    seen = [pool.use_count()]
    with torch.cuda.use_mem_pool(pool):
        seen.append(pool.use_count())
    return [*seen, pool.use_count()]


@alone
@feature
def mem_pool_gives_its_memory_back() -> None:
    import torch

    torch.cuda.synchronize()
    tensor(1000)
    before = device_free()
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept = tensor(500 * MiB)
    assert before - device_free() >= 490 * MiB
    del kept, pool
    gc.collect()
    torch.cuda.empty_cache()
    assert before - device_free() <= 32 * MiB


@feature
def mem_pool_over_another_allocator() -> None:
    import torch

    source = """
        #include <cuda_runtime_api.h>
        extern "C" int calls = 0;
        extern "C" void* take(size_t n, int, cudaStream_t) {
          void* p = nullptr;
          ++calls;
          return cudaMalloc(&p, n) == cudaSuccess ? p : nullptr;
        }
        extern "C" void give(void* p, size_t, int, cudaStream_t) { cudaFree(p); --calls; }
    """
    import ctypes

    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.cpp").write_text(source)
        include = next(Path("/usr/local").glob("cuda*/include"))
        library = f"{folder}/a.so"
        subprocess.run(["g++", "-shared", "-fPIC", f"-I{include}", f"{folder}/a.cpp", "-o", library], check=True)
        torch.cuda.init()
        allocator = torch.cuda.memory.CUDAPluggableAllocator(library, "take", "give")
        calls = ctypes.c_int.in_dll(ctypes.CDLL(library), "calls")
        pool = torch.cuda.MemPool(allocator.allocator())
        with torch.cuda.use_mem_pool(pool):
            kept = torch.ones(1000, device="cuda")
        assert calls.value == 1 and float(kept.sum()) == 1000
        del kept, pool
        gc.collect()
        torch.cuda.empty_cache()
        assert calls.value == 0


@alone
@feature
def mem_pool_used_when_out_of_memory() -> None:
    import torch

    pool = torch.cuda.MemPool(use_on_oom=True)
    size = int(device_free() * 0.5)
    with torch.cuda.use_mem_pool(pool):
        kept = tensor(size)
    del kept
    kept = tensor(int(size * 0.9))
    more = tensor(int(size * 0.9))  # from the pool, as the device has no more
    del kept, more


@feature
def mem_pool_without_splits() -> object:
    import torch

    pool = torch.cuda.MemPool(no_split=True)
    with torch.cuda.use_mem_pool(pool):
        kept = [tensor(3 * MiB) for _ in range(3)]
    del kept
    return [len(segment["blocks"]) for segment in pool.snapshot()]


# --- Graphs -----------------------------------------------------------------------------------------------------------


def _captured(size: int = 1000, pool: Any = None) -> tuple[Any, Any, Any]:
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

    graph, x, y = _captured()
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

    graph, x, y = _captured(MiB)
    del graph, x, y
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    before = device_free()
    for _ in range(5):
        graph, x, y = _captured(100 * MiB)
        graph.replay()
        del graph, x, y
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
    assert before - device_free() <= 64 * MiB, (before - device_free()) / MiB


@feature
def graphs_share_a_pool() -> object:
    first, _x, y = _captured(30 * MiB)
    first.replay()
    out = float(y[:1000].sum())
    del y
    second, _z, w = _captured(30 * MiB, pool=first.pool())
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
    graph, x, y = _captured()
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


@feature
def compile_reduce_overhead_inference() -> object:
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 64)).cuda()
    compiled = torch.compile(model, mode="reduce-overhead")
    worst = 0.0
    with torch.no_grad():
        for size in (8, 16):
            for _ in range(5):
                x = torch.randn(size, 64, device="cuda")
                worst = max(worst, float((compiled(x).clone() - model(x)).abs().max()))
    assert worst < 1e-3, worst


@feature
def compile_reduce_overhead_training() -> object:
    import torch

    def losses(compiles: bool) -> list[float]:
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)).cuda()
        step = torch.compile(model, mode="reduce-overhead") if compiles else model
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        seen = []
        for _ in range(8):
            x = torch.randn(32, 64, device="cuda")
            optimizer.zero_grad()
            loss = step(x).square().mean()
            loss.backward()
            optimizer.step()
            seen.append(float(loss))
        return seen

    eager, graphed = losses(False), losses(True)
    assert all(abs(a - b) < 1e-3 for a, b in zip(eager, graphed, strict=True)), (eager, graphed)


@feature
def compile_reduce_overhead_with_branches() -> object:
    import torch

    @torch.compile(mode="reduce-overhead")
    def first(x: Any) -> Any:
        return x * 2 + 1

    @torch.compile(mode="reduce-overhead")
    def second(x: Any) -> Any:
        return x.sin() * 3

    @torch.compile(mode="reduce-overhead")
    def third(x: Any) -> Any:
        return x.cos() - 1

    for turn in range(8):
        torch.compiler.cudagraph_mark_step_begin()
        x = torch.full((1000,), float(turn), device="cuda")
        y = first(x)
        z = second(y) if turn % 2 else third(y)
        wanted = (x * 2 + 1).sin() * 3 if turn % 2 else (x * 2 + 1).cos() - 1
        assert torch.allclose(z, wanted, atol=1e-5), turn


# --- Libraries and programs -------------------------------------------------------------------------------------------


@feature
def cudnn_benchmark() -> object:
    import torch

    torch.backends.cudnn.benchmark = True
    convolution = torch.nn.Conv2d(3, 16, 3).cuda()
    y = convolution(torch.ones(4, 3, 64, 64, device="cuda"))
    y.sum().backward()
    return list(y.shape)


@feature
def share_with_another_process() -> object:
    import torch
    import torch.multiprocessing as multiprocessing

    context = multiprocessing.get_context("spawn")
    queue, answers = context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=_receive, args=(queue, answers, ALLOCATOR), daemon=True)
    process.start()
    kept = torch.arange(1000, device="cuda")
    queue.put(kept)
    assert answers.get() == 499500
    torch.cuda.synchronize()
    assert int(kept[0]) == 77  # one memory: the other process wrote it
    queue.put(None)
    process.join()
    return process.exitcode


def _receive(queue: Any, answers: Any, allocator: str) -> None:
    install(allocator, "share_with_another_process")
    import torch

    kept = queue.get()
    total = int(kept.sum())
    kept[0] = 77
    torch.cuda.synchronize()
    answers.put(total)
    queue.get()
    del kept


@feature
def nccl_in_one_process() -> object:
    import torch
    import torch.distributed as distributed

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(20000 + os.getpid() % 20000))
    distributed.init_process_group("nccl", rank=0, world_size=1)
    kept = torch.ones(1000, device="cuda")
    distributed.all_reduce(kept)
    gathered = [torch.empty_like(kept)]
    distributed.all_gather(gathered, kept)
    distributed.destroy_process_group()
    return float(gathered[0].sum())


@feature
def dlpack() -> object:
    import torch

    kept = torch.arange(1000, device="cuda")
    other = torch.from_dlpack(kept)
    del kept
    return int(other.sum())


@feature
def training_of_a_transformer() -> object:
    import torch

    torch.manual_seed(0)
    torch.use_deterministic_algorithms(True, warn_only=True)
    layer = torch.nn.TransformerEncoderLayer(128, 4, 256, dropout=0.0, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).cuda()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    seen = []
    for step in range(10):
        x = torch.randn(4 + step % 3, 32, 128, device="cuda")
        loss = (model(x) - x).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        seen.append(f"{float(loss):.6f}")
    return seen


@feature
def generation_with_a_growing_cache() -> object:
    import torch

    torch.manual_seed(0)
    cache = torch.empty(2, 8, 0, 64, device="cuda")
    total = 0.0
    for _ in range(200):
        cache = torch.cat([cache, torch.randn(2, 8, 1, 64, device="cuda")], dim=2)
        total = float(torch.nn.functional.scaled_dot_product_attention(cache[:, :, -1:], cache, cache).sum())
    return f"{total:.3f}"


@feature
def tensors_live_at_the_end() -> None:
    import builtins

    import torch

    builtins.kept = [torch.ones(1000, device="cuda") for _ in range(10)]
    graph, x, y = _captured()
    builtins.more = (graph, x, y)


# --- The way in and back ----------------------------------------------------------------------------------------------


@installs_itself
@feature
def installed_while_cuda_is_in_use() -> object:
    import torch

    before = torch.arange(1000, device="cuda")
    gone = tensor(3 * MiB)
    side = torch.cuda.Stream()
    graph, x, y = _captured()
    allocated = torch.cuda.memory_allocated()
    install(ALLOCATOR)
    seen = [torch.cuda.memory_allocated() - allocated]
    after = torch.arange(2000, device="cuda")
    seen += [torch.cuda.memory_allocated() - allocated, int(before.sum()), int(after.sum())]
    before.record_stream(side)
    after.record_stream(side)
    x.fill_(2.0)
    graph.replay()  # of PyTorch's own pool
    other, z, w = _captured()
    other.replay()
    seen += [float(y.sum()), float(w.sum())]
    del before, after, gone, graph, x, y, other, z, w
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return [*seen, torch.cuda.memory_allocated()]


@installs_itself
@feature
def uninstalled_and_installed_again() -> object:
    import torch

    seen = []
    kept = []
    for turn in range(3):
        install(ALLOCATOR)
        kept.append(torch.full((1000,), turn, device="cuda"))
        if ALLOCATOR == "cenote":
            import cenote

            report = cenote.uninstall("torch")
            assert report, report
            assert torch.cuda.get_allocator_backend() == "native"
        kept.append(torch.full((2000,), turn, device="cuda"))
        seen.append(torch.cuda.memory_allocated())
        torch.cuda.empty_cache()
    seen += [int(each.sum()) for each in kept]
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        kept[0] + 1
    del kept[::2]
    seen.append(torch.cuda.memory_allocated())
    del kept
    return [*seen, torch.cuda.memory_allocated()]


# --- Running them -----------------------------------------------------------------------------------------------------

ALLOCATOR = os.environ.get("TORCH_FEATURES_ALLOCATOR", "native")


RESOURCES = {"share_with_another_process": "pool | virtual:ipc=true"}
"""Where another resource than a pool is needed."""


def install(allocator: str, name: str = "") -> None:
    if allocator == "cenote":
        import cenote

        report = cenote.install(RESOURCES.get(name, "pool"), frameworks="torch")
        assert report, report
        assert "full allocator" in str(report) or "on cenote already" in str(report), report


def run_one(allocator: str, name: str) -> tuple[bool, str]:
    """Run a feature in a process of its own: whether it passed, and what it returned or why it failed."""
    environment = os.environ | {"TORCH_FEATURES_ALLOCATOR": allocator}
    command = [sys.executable, __file__, allocator, name]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, env=environment, check=False
        )
    except subprocess.TimeoutExpired as error:
        return False, f"took too long: {(error.stderr or b'')[-300:]!r}"
    if done.returncode != 0:
        return False, f"exit status {done.returncode}: {done.stderr[-1500:]}"
    return True, next((line[7:] for line in done.stdout.splitlines() if line.startswith("RESULT ")), "")


def main() -> int:
    allocator, *names = sys.argv[1:]
    if len(names) == 1:
        if names[0] not in INSTALL_THEMSELVES:
            install(allocator, names[0])
        print("RESULT", repr(FEATURES[names[0]]()))
        return 0
    names = names or list(FEATURES)
    names.sort(key=lambda name: name in ALONE)
    together = sum(name not in ALONE for name in names)
    failed = 0

    def run(name: str) -> bool:
        passed, text = run_one(allocator, name)
        print(f"{'ok  ' if passed else 'FAIL'} {allocator:6} {name} {text if not passed else text[:100]}", flush=True)
        return passed

    with ThreadPoolExecutor(min(14, os.cpu_count() or 1)) as workers:
        failed += sum(not passed for passed in workers.map(run, names[:together]))
    failed += sum(not run(name) for name in names[together:])
    print(f"{len(names) - failed} of {len(names)} work with {allocator}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
