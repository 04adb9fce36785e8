"""Statistics: what is allocated and reserved, and its peaks."""

from __future__ import annotations

from .features import MiB, feature, tensor


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


@feature
def nothing_is_counted_while_the_allocator_is_off() -> object:
    import torch

    torch.cuda.init()
    stream = torch.cuda.current_stream().cuda_stream

    def counted() -> int:
        before = torch.cuda.memory_stats().get("requested_bytes.all.allocated", 0)
        address = torch._C._cuda_cudaCachingAllocator_raw_alloc(MiB, stream)
        after = torch.cuda.memory_stats().get("requested_bytes.all.allocated", 0)
        torch._C._cuda_cudaCachingAllocator_raw_delete(address)
        return after - before

    tensor(1000)
    torch.cuda.caching_allocator_enable(False)
    seen = [counted()]
    torch.cuda.caching_allocator_enable(True)
    seen.append(counted())
    assert seen == [0, MiB], seen
    return seen


@feature
def peaks_are_those_of_the_same_work() -> object:
    import torch

    def peak() -> int:
        torch.cuda.synchronize()
        value = torch.cuda.max_memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return value

    a, b = torch.rand(1, 32, 32, device="cuda"), torch.rand(24, 32, 1, device="cuda")
    torch.matmul(a, b)
    peak()
    torch.matmul(a, b)
    seen = [peak()]
    a = a.expand(24, 32, 32)
    torch.matmul(a, b)
    seen.append(peak())
    torch.bmm(a, b)
    seen.append(peak())
    assert len(set(seen)) == 1, seen
