"""A little real work in each framework, that allocates as real programs do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Done:
    """What a framework did.

    Attributes
    ----------
    framework : str
        Its name.
    on_pool : bool
        Whether it worked, and on the pool.
    what : str
        What it did, or why not.
    kept : object
        Its arrays: they hold their memory as long as this is alive.
    """

    framework: str
    on_pool: bool
    what: str
    kept: Any = field(default=None, repr=False)


def work(framework: str, device: int) -> Done:
    """Let a framework work on a device. Whatever goes wrong in it is reported, not raised.

    Parameters
    ----------
    framework : str
        A key of `WORK`.
    device : int
        The device's number.

    Returns
    -------
    Done
    """
    try:
        what, kept = WORK[framework](device)
    except Exception as error:  # frameworks fail in ways of their own
        first_line = next(iter(str(error).splitlines()), "")
        return Done(framework, False, f"{type(error).__name__}: {first_line}")
    return Done(framework, True, what, kept)


def _torch(device: int) -> tuple[str, Any]:
    import torch

    steps, batch, width = 20, 4096, 2048
    on = torch.device("cuda", device)
    model = torch.nn.Sequential(
        torch.nn.Linear(width, width),
        torch.nn.GELU(),
        torch.nn.Linear(width, width),
        torch.nn.GELU(),
        torch.nn.Linear(width, 1),
    ).to(on)
    optimizer = torch.optim.AdamW(model.parameters())
    x = torch.randn(batch, width, device=on)
    y = torch.sin(x.sum(dim=1, keepdim=True))
    loss = torch.zeros((), device=on)
    for _ in range(steps):
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    torch.cuda.synchronize(on)
    what = f"{steps} training steps of a {width}-wide network, loss {loss.item():.3f}"
    return what, (model, optimizer, x, y)


def _cupy(device: int) -> tuple[str, Any]:
    import cupy

    count = 2**24
    with cupy.cuda.Device(device):
        x = cupy.linspace(0, 1, count, dtype=cupy.float32)
        wave = cupy.sin(x) ** 2 + cupy.cos(x) ** 2
        blend = cupy.ElementwiseKernel("float32 a, float32 b", "float32 c", "c = a * b + 1", "cenote_demo_blend")
        y = blend(x, wave)
        order = cupy.sort(y)
        median = float(order[count // 2])
    return f"{count:,} floats: array math, a kernel of its own, a sort; median {median:.3f}", (x, wave, y, order)


def _numba(device: int) -> tuple[str, Any]:
    import numpy as np
    from numba import cuda

    count = 2**22
    cuda.select_device(device)
    x = cuda.to_device(np.arange(count, dtype=np.float32))
    y = cuda.device_array_like(x)
    arrays = f"{count:,} floats copied to the device"
    try:
        _numba_scale(x, y)
    except Exception as error:  # a compiler that does not fit the driver leaves the arrays usable
        first_line = next(iter(str(error).splitlines()), "")
        return f"{arrays}; no kernel ({type(error).__name__}: {first_line})", (x, y)
    return f"{arrays}, scaled by a kernel; last {y[count - 1]:,.0f}", (x, y)


def _numba_scale(x: Any, y: Any) -> None:
    from numba import cuda

    @cuda.jit  # type: ignore[untyped-decorator]
    def scale(source: Any, target: Any) -> None:
        index = cuda.grid(1)
        if index < source.size:
            target[index] = 2 * source[index]

    threads = 256
    scale[(x.size + threads - 1) // threads, threads](x, y)
    cuda.synchronize()


WORK: dict[str, Callable[[int], tuple[str, Any]]] = {"torch": _torch, "cupy": _cupy, "numba": _numba}
"""The work of each framework: from the device's number to what was done, and the arrays to keep."""
