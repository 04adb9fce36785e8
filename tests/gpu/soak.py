"""Libraries exchange arrays from one pool, on several threads, streams and devices, and every byte is looked at.

    CENOTE_SOAK_SECONDS=180 python soak.py

Each thread has streams of its own of PyTorch, CuPy, Numba and cuda.core. It makes an array with one of them, hands
it to another one, by DLPack or ``__cuda_array_interface__``, on the same thread or on another, and looks at all of it.
At the end nothing is held, and the statistics say so to the byte.
"""

from __future__ import annotations

import gc
import os
import queue
import random
import threading
import time
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np
import torch
from cuda.core import Device
from numba import cuda

import cenote
import cenote.allocators.cuda
from cenote.allocators.numba import on_stream

THREADS = 4
SIZES = (1, 1000, 65_536, 1 << 20, 5_000_000)
LIBRARIES = ("torch", "cupy", "numba", "cuda.core")
CLIENTS = LIBRARIES


class Worker:
    """One thread's way with each of the libraries."""

    def __init__(self, number: int, device: int, inboxes: list[queue.Queue[Any]]) -> None:
        self.random = random.Random(number)
        self.device = device
        self.inboxes = inboxes
        self.inbox = inboxes[number]
        self.exchanges: dict[str, int] = {}
        torch.cuda.set_device(device)
        cupy.cuda.Device(device).use()
        cuda.select_device(device)
        self.core = Device(device)
        self.core.set_current()
        cenote.allocators.cuda.install()
        self.torch_stream = torch.cuda.Stream()
        self.cupy_stream = cupy.cuda.Stream(non_blocking=True)
        self.numba_stream = cuda.stream()
        self.core_stream = self.core.create_stream()

    def make(self, library: str, size: int, value: int) -> Any:
        """Make an array that is full of one value; its work is queued."""
        if library == "torch":
            with torch.cuda.stream(self.torch_stream):
                return torch.full((size,), value, dtype=torch.int8, device="cuda")
        if library == "cupy":
            with self.cupy_stream:
                return cupy.full(size, value, dtype=cupy.int8)
        if library == "numba":
            host = np.full(size, value, dtype=np.int8)
            if self.random.random() < 0.5:
                with on_stream(self.numba_stream):
                    array = cuda.to_device(host, stream=self.numba_stream)
            else:
                array = cuda.to_device(host, stream=self.numba_stream)
            self.numba_stream.synchronize()  # the host array ends here
            return array
        buffer = self.core.allocate(size, stream=self.core_stream)
        buffer.fill(value, stream=self.core_stream)
        return buffer

    def finish(self, library: str) -> None:
        """Wait for the work of a library's stream: what passes to another thread, or knows no order, is done."""
        {
            "torch": self.torch_stream.synchronize,
            "cupy": self.cupy_stream.synchronize,
            "numba": self.numba_stream.synchronize,
            "cuda.core": self.core_stream.sync,
        }[library]()

    def look(self, library: str, array: Any, maker: str, value: int) -> bool:
        """See with a library that the array has that value everywhere; its work is done then."""
        with torch.cuda.stream(self.torch_stream), self.cupy_stream:  # whose order DLPack keeps
            if library == "torch":
                view = torch.as_tensor(array, device="cuda") if maker == "numba" else torch.from_dlpack(array)
                return bool((view == value).all())
            view = cupy.asarray(array) if maker == "numba" else cupy.from_dlpack(array)
            if library == "cupy":
                return bool((view == value).all())
        self.cupy_stream.synchronize()
        host = cuda.as_cuda_array(view).copy_to_host(stream=self.numba_stream)
        self.numba_stream.synchronize()
        return bool((host == value).all())

    def step(self) -> None:
        """Make one array and pass it on; look at one that was passed here."""
        maker = self.random.choice(LIBRARIES)
        size, value = self.random.choice(SIZES), self.random.randrange(1, 100)
        array = self.make(maker, size, value)
        looker = self.random.choice(LIBRARIES[:3])
        if self.random.random() < 0.5:
            if maker not in ("torch", "cupy"):
                self.finish(maker)
            assert self.look(looker, array, maker, value), (maker, looker, size, value)
            self.exchanges[f"{maker} to {looker}"] = self.exchanges.get(f"{maker} to {looker}", 0) + 1
        else:
            self.finish(maker)
            same = [box for number, box in enumerate(self.inboxes) if number % devices() == self.device]
            self.random.choice(same).put((maker, array, value))
        del array
        while self.inbox.qsize() > 4:
            self.receive(*self.inbox.get_nowait())

    def receive(self, maker: str, array: Any, value: int) -> None:
        """Look at what another thread has made."""
        looker = self.random.choice(LIBRARIES[:3])
        assert self.look(looker, array, maker, value), (maker, looker, value)
        self.exchanges[f"{maker} to {looker}, another thread"] = (
            self.exchanges.get(f"{maker} to {looker}, another thread", 0) + 1
        )


def devices() -> int:
    """How many devices take part."""
    return min(2, torch.cuda.device_count())


def work(number: int, until: float, inboxes: list[queue.Queue[Any]], report: Callable[[Any], None]) -> None:
    """Run one thread to the end, and what was passed to it after that."""
    try:
        worker = Worker(number, number % devices(), inboxes)
        while time.monotonic() < until:
            worker.step()
        all_done.wait()
        while not worker.inbox.empty():
            worker.receive(*worker.inbox.get_nowait())
        torch.cuda.synchronize(worker.device)
        report(worker.exchanges)
    except BaseException as error:
        all_done.abort()
        report(error)


all_done = threading.Barrier(THREADS)


def main() -> None:
    """Soak, and look at what is left."""
    seconds = float(os.environ.get("CENOTE_SOAK_SECONDS", "10"))
    report = cenote.install("statistics | pool:max=4GiB")
    assert report, str(report)
    inboxes: list[queue.Queue[Any]] = [queue.Queue() for _ in range(THREADS)]
    reports: list[Any] = []
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=work, args=(number, until, inboxes, reports.append)) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failed in [each for each in reports if isinstance(each, BaseException)]:
        if not isinstance(failed, threading.BrokenBarrierError):
            raise failed
    total: dict[str, int] = {}
    for exchanges in reports:
        for pair, count in exchanges.items():
            total[pair] = total.get(pair, 0) + count
    gc.collect()
    for device in range(devices()):
        torch.cuda.synchronize(device)
        statistics = cenote.mr.get_per_device_resource(device)
        counts = statistics.allocation_counts
        assert counts.current_bytes == counts.current_count == 0, (device, counts)
        assert counts.total_count > 0
        statistics.upstream_mr.check()
    usage = cenote.usage()
    for client in CLIENTS:
        assert usage[client].bytes == usage[client].allocations == 0, usage
        assert usage[client].total_allocations > 0, usage
    print(f"{sum(total.values())} exchanges of {len(total)} kinds; {usage['torch'].total_allocations} tensors")


if __name__ == "__main__":
    main()
