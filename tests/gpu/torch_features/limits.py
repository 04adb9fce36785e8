"""Limits, and what happens when memory runs out."""

from __future__ import annotations

import gc

from .features import MiB, alone, device_free, feature, tensor


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
