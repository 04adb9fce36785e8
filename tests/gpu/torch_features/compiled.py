"""torch.compile(mode="reduce-overhead"), which keeps trees of CUDA graphs."""

from __future__ import annotations

from typing import Any

from .features import feature, fresh


@fresh
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


@fresh
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


@fresh
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
