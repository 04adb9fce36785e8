"""One cell in a process of its own, as an allocator that a framework was given cannot be exchanged later.

::

    python -m tests.bench.python_worker CASE PEER

It speaks the protocol of the workers in C++ (cpp/worker.hpp): a line of JSON on stdin, a line of JSON on stdout.
"""

from __future__ import annotations

import functools
import json
import sys
import time
from collections.abc import Callable
from typing import Any

from tests.bench import python_peers

Pair = Callable[[], object]
Answer = dict[str, Any]


def _pair(peer: str, nbytes: int) -> Pair:
    if peer == "cuda-core":
        from cuda.core import Device  # type: ignore[import-not-found]

        device = Device()
        device.set_current()
        resource, stream = device.memory_resource, device.default_stream
        return lambda: resource.allocate(nbytes, stream=stream).close(stream)
    if peer == "python":
        return lambda: None
    mr = python_peers.make_resource(peer)
    allocate, deallocate = mr.allocate, mr.deallocate
    return lambda: deallocate(allocate(nbytes), nbytes)


def _buffer(peer: str, nbytes: int) -> Pair:
    if peer == "python":
        return lambda: None
    if peer.startswith("cenote"):
        from cenote import DeviceBuffer
    else:
        from rmm import DeviceBuffer  # type: ignore[import-not-found, no-redef]
    python_peers.make_current(peer)
    return lambda: DeviceBuffer(size=nbytes)


def _torch_empty(peer: str, nbytes: int) -> Pair:
    import torch  # type: ignore[import-not-found]

    python_peers.give_torch(peer)
    empty, dtype, device = torch.empty, torch.uint8, torch.device("cuda", 0)
    return lambda: empty(nbytes, dtype=dtype, device=device)


def _cupy_alloc(peer: str, nbytes: int) -> Pair:
    import cupy  # type: ignore[import-not-found]

    python_peers.give_cupy(peer)
    alloc = cupy.cuda.alloc
    return lambda: alloc(nbytes)


def _numba_array(peer: str, nbytes: int) -> Pair:
    import numpy as np

    python_peers.give_numba(peer)
    from numba import cuda  # type: ignore[import-not-found]

    array = cuda.device_array
    return lambda: array(nbytes, dtype=np.uint8)


PAIRS: dict[str, Callable[[str, int], Pair]] = {
    "py-pair": _pair,
    "py-buffer": _buffer,
    "torch-empty": _torch_empty,
    "cupy-alloc": _cupy_alloc,
    "numba-array": _numba_array,
}


def time_pairs(pair: Pair, count: int, budget_ms: int) -> Answer:
    """Call `pair` up to `count` times, within the budget; an eighth of that as a warm-up."""
    _repeat(pair, max(1, count // 8), budget_ms / 8)
    nanoseconds, done = _repeat(pair, count, budget_ms)
    return {"value": nanoseconds / done, "done": done, "figures": {}}


def _repeat(pair: Pair, count: int, budget_ms: float) -> tuple[int, int]:
    done, part = 0, 8
    begin = time.perf_counter_ns()
    taken = 0
    while done < count and (done == 0 or taken < budget_ms * 1e6):
        size = min(part, count - done)
        for _ in range(size):
            pair()
        done += size
        taken = time.perf_counter_ns() - begin
        if taken < budget_ms * 1e6 / 64:
            part *= 2
    return taken, done


@functools.cache
def _read(path: str) -> Any:
    from cenote.logs.trace import read

    return read(path)


def replay(peer: str, path: str, share: float) -> Answer:
    """Replay the first `share` of a trace; nanoseconds an event, and the memory held over the most in use."""
    from cenote import driver
    from cenote.logs.replay import Replay, streams_of

    def free_bytes() -> int:
        return int(driver.memory_info(driver.current_device())[0])

    trace = _read(path)
    trace = trace[: max(1, int(share * len(trace)))]
    driver.synchronize(driver.current_device())  # what the last round freed is free
    before = free_bytes()
    resource = python_peers.make_replayed(peer)
    if peer.startswith("rmm"):
        from rmm.pylibrmm.stream import DEFAULT_STREAM, Stream

        streams: dict[int, Any] = {name: Stream() if name else DEFAULT_STREAM for name in streams_of(trace)}
    else:
        streams = streams_of(trace)
    run = Replay(resource, streams)
    run.play(trace)
    held = before - free_bytes()
    result = run.finish()
    events = result.allocations + result.frees
    figures = {"held / live": held / max(1, result.peak_bytes)}
    return {"value": result.seconds * 1e9 / max(1, events), "done": events, "figures": figures}


class Worker:
    """Answers requests about one case and one peer; what it measures is made at the first run of each size."""

    def __init__(self, case: str, peer: str) -> None:
        self._case, self._peer = case, peer
        self._pairs: dict[int, Pair] = {}

    def answer(self, request: Answer) -> Answer:
        """Do what is asked; a failure is an answer too."""
        try:
            if request["do"] == "hello":
                return self._hello()
            if request["do"] != "run":
                return {"error": f"{request['do']!r} is nothing that can be done: hello, run or quit"}
            return self._run(request)
        except Exception as error:  # a peer may fail in any way, and the others are to be measured all the same
            return {"error": (str(error).splitlines() or [type(error).__name__])[0]}

    def _hello(self) -> Answer:
        answer: Answer = {"worker": "python", "peers": {}, "missing": {}, "cases": {self._case: self._peer}}
        try:
            if self._case in PAIRS:
                self._pair(1024)()
            else:
                python_peers.make_resource(self._peer, 0)
            answer["peers"][self._peer] = python_peers.version_of(self._peer, self._case)
        except Exception as error:  # as above
            answer["missing"][self._peer] = (str(error).splitlines() or [type(error).__name__])[0]
        return answer

    def _run(self, request: Answer) -> Answer:
        if self._case == "replay":
            return replay(self._peer, request["file"], float(request["share"]))
        return time_pairs(self._pair(request.get("bytes", 0)), request["count"], request["budget_ms"])

    def _pair(self, nbytes: int) -> Pair:
        if nbytes not in self._pairs:
            if self._pairs and self._case in ("py-pair", "py-buffer"):
                self._pairs.clear()  # one resource at a time
            self._pairs[nbytes] = PAIRS[self._case](self._peer, nbytes)
        return self._pairs[nbytes]


def main() -> None:
    """Answer until told to quit."""
    worker = Worker(*sys.argv[1:3])
    answers, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "quit":
            return
        print(json.dumps(worker.answer(request)), file=answers, flush=True)


if __name__ == "__main__":
    main()
