"""torch.cuda.MemPool."""

from __future__ import annotations

import gc
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import Any

from .features import MiB, alone, device_free, feature, tensor


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
    taken = before - device_free()
    assert taken >= 490 * MiB, taken / MiB
    del kept, pool
    gc.collect()
    torch.cuda.empty_cache()
    taken = before - device_free()
    assert taken <= 32 * MiB, taken / MiB


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


@feature
def the_innermost_mem_pool_takes_the_block() -> object:
    import torch

    pools = [torch.cuda.MemPool() for _ in range(3)]
    kept = []
    with torch.cuda.use_mem_pool(pools[0]):
        kept.append(tensor(20 * MiB))
        with torch.cuda.use_mem_pool(pools[1]):
            kept.append(tensor(20 * MiB))
            with torch.cuda.use_mem_pool(pools[2]):
                kept.append(tensor(20 * MiB))
            kept.append(tensor(20 * MiB))
        kept.append(tensor(20 * MiB))
    seen = [len(torch.cuda.memory.memory_snapshot(pool.id)) for pool in pools]
    assert seen == [2, 2, 1], seen
    return seen


@feature
def memory_fraction_counts_what_pools_hold() -> object:
    import torch

    held = torch.cuda.MemPool()
    spare = torch.cuda.MemPool(use_on_oom=True)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((80 * MiB + torch.cuda.memory_reserved()) / total)
    with torch.cuda.use_mem_pool(held):
        a = tensor(40 * MiB)
    with torch.cuda.use_mem_pool(spare):
        b = tensor(40 * MiB)
    address, seen = b.data_ptr(), []

    def runs_out(size: int) -> bool:
        try:
            tensor(size)
        except torch.OutOfMemoryError:
            return True
        return False

    seen.append(runs_out(40 * MiB))
    del a, b
    c = tensor(30 * MiB)  # from the pool that is there for it
    seen += [c.data_ptr() == address, runs_out(30 * MiB)]
    del c
    torch.cuda.set_per_process_memory_fraction(1.0)
    assert seen == [True, True, True], seen
    return seen


@feature
def a_tensor_outlives_its_mem_pool() -> object:
    import torch

    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept = torch.ones(1 << 20, device="cuda")
    del pool
    gc.collect()
    torch.cuda.empty_cache()
    return float(kept.sum())


@feature
def empty_cache_leaves_a_mem_pool_in_use_alone() -> object:
    import torch

    pools = [torch.cuda.MemPool() for _ in range(4)]

    def body(pool: Any) -> None:
        with torch.cuda.use_mem_pool(pool):
            tensor(16)
            torch.cuda.empty_cache()

    threads = [threading.Thread(target=body, args=(pool,)) for pool in pools]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [len(pool.snapshot()) for pool in pools]
