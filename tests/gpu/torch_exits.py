"""Ends of processes with live CUDA tensors: with PyTorch's own allocator and with cenote, the same status and noise.

    python torch_exits.py NUMBER [OUTPUT.json]     NUMBER of exits with cenote; a few with PyTorch's own

PyTorch is imported once. Each exit is that of a forked child, which is the first to use CUDA. Some noise depends on
which of two processes is faster: where cenote's exits say what PyTorch's own did not, more of the latter are run.
"""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

WAYS = {
    "return": 0,
    "sys_exit": 3,
    "os_exit": 4,
    "exception": 1,
    "signal": -signal.SIGTERM,
    "capture": 5,
    "capture_exception": 1,
    "shared": 0,
}
"""With the status that the program asks for."""

AT_ONCE = 12
TIMEOUT_SECONDS = 100
MORE_TO_LEARN_FROM = 6


def install(allocator: str) -> None:
    if allocator == "cenote":
        import cenote

        report = cenote.install("pool | virtual", frameworks="torch", torch_mode="full")
        assert report, report


def live() -> list[Any]:
    """Tensors of all kinds: in a cycle, in a module, recorded on a stream, of a graph, of a pool."""
    import torch

    side = torch.cuda.Stream()
    kept: list[Any] = [torch.ones(1000, device="cuda"), torch.ones(1 << 22, device="cuda")]
    kept[0].record_stream(side)
    kept.append(kept)
    torch.kept = torch.ones(10, device="cuda")  # type: ignore[attr-defined]
    pool = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(pool):
        kept += [pool, torch.ones(1000, device="cuda")]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept += [graph, kept[1] * 2]
    graph.replay()
    return kept


def receive(allocator: str, tensors: Any, answers: Any) -> None:
    """Hold a tensor of another process while that ends."""
    install(allocator)
    kept = tensors.get()
    answers.put(float(kept.sum()))
    time.sleep(TIMEOUT_SECONDS)


def share(allocator: str) -> tuple[Any, Any]:
    """Start another process, before CUDA is used; give the way of tensors to it, and of its answers."""
    import torch.multiprocessing

    context = torch.multiprocessing.get_context("fork")
    tensors, answers = context.SimpleQueue(), context.SimpleQueue()
    context.Process(target=receive, args=(allocator, tensors, answers), daemon=True).start()
    return tensors, answers


def end(way: str, allocator: str) -> None:
    """End this process in that way, or return."""
    import torch

    other = share(allocator) if way == "shared" else None
    install(allocator)
    kept = live()
    if other is not None:
        other[0].put(kept[1])
        assert other[1].get() == 1 << 22
    if way == "sys_exit":
        sys.exit(3)
    if way == "os_exit":
        os._exit(4)
    if way == "exception":
        raise KeyError("the program failed")
    if way == "signal":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
    if way.startswith("capture"):
        graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream()
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            graph.capture_begin()
            kept.append(kept[1] * 3)
            if way == "capture_exception":
                raise KeyError("the program failed in a capture")
            torch.unfinished = (graph, stream, kept)  # type: ignore[attr-defined]
            sys.exit(5)
    torch.left = kept  # type: ignore[attr-defined]


def plain(noise: str) -> str:
    """Leave out what differs between any two runs."""
    noise = re.sub(r"\d\d:\d\d:\d\d\.\d+|0x[0-9a-f]+|\b\d{3,}\b", "N", noise)
    return re.sub(r'File "[^"]*", line \d+', "File", noise)


def name_of(status: int) -> str:
    """Say a status of an exit in words."""
    if status == -signal.SIGKILL:
        return f"{status} (killed: took more than {TIMEOUT_SECONDS} s, or memory ran out)"
    return f"{status} ({signal.Signals(-status).name})" if status < 0 else str(status)


class Exits:
    """Children that run, and what became of those that ended."""

    def __init__(self) -> None:
        self.running: dict[int, tuple[str, str, Path, float]] = {}
        self.seen: dict[tuple[str, str], Counter[tuple[int, str]]] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="exits-"))
        self.started = 0

    def fork(self, way: str, allocator: str) -> bool:
        """Start one; True in the child, which is to end that way."""
        while len(self.running) >= AT_ONCE:
            self.wait_for_one()
        self.started += 1
        noise = self.folder / f"{self.started}.txt"
        pid = os.fork()
        if pid == 0:
            out = os.open(noise, os.O_WRONLY | os.O_CREAT)
            os.dup2(out, 1)
            os.dup2(out, 2)
            return True
        self.running[pid] = (way, allocator, noise, time.monotonic())
        return False

    def wait_for_one(self) -> None:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid != 0:
                break
            for each, (*_, since) in self.running.items():
                if time.monotonic() - since > TIMEOUT_SECONDS:
                    os.kill(each, signal.SIGKILL)
            time.sleep(0.005)
        way, allocator, noise, _ = self.running.pop(pid)
        outcome = (os.waitstatus_to_exitcode(status), plain(noise.read_text(errors="replace")))
        self.seen.setdefault((way, allocator), Counter())[outcome] += 1

    def wait_for_all(self) -> None:
        while self.running:
            self.wait_for_one()

    def differences(self, way: str) -> list[str]:
        """What cenote's exits do that the program does not ask for, or say that PyTorch's own do not say, in short.

        Where PyTorch's own crash, as in a capture, what they say is not compared.
        """
        known = self.seen[way, "native"]
        wanted = WAYS[way]
        crashes = any(status < 0 and status != wanted for status, _ in known)
        lines = {line for _, noise in known for line in noise.splitlines()}
        found = []
        for (status, noise), count in self.seen.get((way, "cenote"), Counter()).items():
            new = [] if crashes else [line for line in noise.splitlines() if line not in lines]
            if status == wanted and not new:
                continue
            said = noise.splitlines()[-3:] if status != wanted else new[:3]
            ended = f"status {name_of(status)} instead of {name_of(wanted)}" if status != wanted else "new noise"
            total = self.seen[way, "cenote"].total()
            found.append("\n    ".join([f"{way}: {count} of {total} exits: {ended}", *(line[:200] for line in said)]))
        return found


def main() -> int | None:
    """Fork the exits; in a child, what remains of it is to end."""
    number = int(sys.argv[1])
    import torch  # noqa: F401 (imported once for all)

    import cenote.allocators.torch  # noqa: F401

    exits = Exits()
    jobs = [(way, "native") for way in WAYS for _ in range(2)]
    jobs += [(list(WAYS)[index % len(WAYS)], "cenote") for index in range(number)]
    for way, allocator in jobs:
        if exits.fork(way, allocator):
            return end(way, allocator)
    exits.wait_for_all()
    for way in [way for way in WAYS if exits.differences(way)]:
        for _ in range(MORE_TO_LEARN_FROM):
            if exits.fork(way, "native"):
                return end(way, "native")
    exits.wait_for_all()
    for (way, allocator), outcomes in exits.seen.items():
        statuses = sorted({status for status, _ in outcomes})
        print(f"{way}: {outcomes.total()} exits of {allocator}, status {statuses}")
    found = [each for way in WAYS for each in exits.differences(way)]
    print(f"{number} exits, {len(found)} differences", *found, sep="\n")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps({"exits": number, "differences": found}))
    return 1 if found else 0


if __name__ == "__main__":
    if status := main():
        sys.exit(status)
