"""The way in and back."""

from __future__ import annotations

import gc

from .features import MiB, chosen_allocator, feature, install, installs_itself, tensor
from .graphs import captured


@installs_itself
@feature
def installed_while_cuda_is_in_use() -> object:
    import torch

    before = torch.arange(1000, device="cuda")
    gone = tensor(3 * MiB)
    side = torch.cuda.Stream()
    graph, x, y = captured()
    allocated = torch.cuda.memory_allocated()
    install(chosen_allocator())
    seen = [torch.cuda.memory_allocated() - allocated]
    after = torch.arange(2000, device="cuda")
    seen += [torch.cuda.memory_allocated() - allocated, int(before.sum()), int(after.sum())]
    before.record_stream(side)
    after.record_stream(side)
    x.fill_(2.0)
    graph.replay()  # of PyTorch's own pool
    other, z, w = captured()
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
        install(chosen_allocator())
        kept.append(torch.full((1000,), turn, device="cuda"))
        if chosen_allocator() == "cenote":
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
