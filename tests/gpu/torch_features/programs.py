"""Libraries and programs."""

from __future__ import annotations

import os
from typing import Any

from .features import chosen_allocator, feature, fresh, install
from .graphs import captured


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
    process = context.Process(target=receive_and_change, args=(queue, answers, chosen_allocator()), daemon=True)
    process.start()
    kept = torch.arange(1000, device="cuda")
    queue.put(kept)
    assert answers.get() == 499500
    torch.cuda.synchronize()
    assert int(kept[0]) == 77  # one memory: the other process wrote it
    queue.put(None)
    process.join()
    return process.exitcode


def receive_and_change(queue: Any, answers: Any, allocator: str) -> None:
    """Sum a tensor of the other process, change it, and hold it until something else arrives."""
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


@fresh
@feature
def tensors_live_at_the_end() -> None:
    import builtins

    import torch

    builtins.kept = [torch.ones(1000, device="cuda") for _ in range(10)]
    graph, x, y = captured()
    builtins.more = (graph, x, y)
