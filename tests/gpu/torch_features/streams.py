"""Streams and threads."""

from __future__ import annotations

import threading

from .features import MiB, alone, device_free, feature, tensor


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


@feature
def record_stream_of_a_part_of_a_tensor() -> object:
    import torch

    own, other = torch.cuda.Stream(), torch.cuda.Stream()
    with torch.cuda.stream(own):
        base = torch.zeros(10, device="cuda")
    part = base[5:]
    with torch.cuda.stream(other):
        torch.cuda._sleep(100_000_000)
    part.record_stream(other)
    address = base.data_ptr()
    del base, part
    own.synchronize()
    with torch.cuda.stream(own):
        again = torch.zeros(10, device="cuda")
    return again.data_ptr() != address


@alone
@feature
def recorded_blocks_are_freed_when_memory_runs_out() -> object:
    import torch

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        y = torch.zeros(1 << 28, device="cuda")
    for _ in range(int(device_free() / (1 << 30)) + 20):
        x = torch.ones(1 << 28, device="cuda")
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            y += x
        x.record_stream(side)
        del x
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    return float(y[0]) > 20
