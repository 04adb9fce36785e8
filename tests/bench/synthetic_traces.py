"""Workloads that nobody recorded: what a pool's design must not have been tuned to.

Each function gives the events of one, from a seed: id, bytes (-1 for a free) and stream; shape ``(events, 3)``.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class Tape:
    """Events as they happen."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, int]] = []
        self._count = 0

    def allocate(self, size: float, stream: int = 0) -> int:
        """Allocate at least a byte; give the id."""
        self._rows.append((self._count, max(1, int(size)), stream))
        self._count += 1
        return self._count - 1

    def free(self, *ids: int, stream: int = 0) -> None:
        """Free what these ids are."""
        self._rows += [(i, -1, stream) for i in ids]

    def rows(self) -> Rows:
        """All events so far."""
        return np.array(self._rows, dtype=np.int64).reshape(-1, 3)


def training(seed: int, layers: int, width: int, vocabulary: int, steps: int, is_steady: bool = False) -> Rows:
    """A transformer's training: activations of each layer, kept for the backward pass; gradients; Adam's state.

    The batch and the length of its sequences are drawn anew for each step, unless it is steady.
    """
    draw, tape = random.Random(seed), Tape()
    matrix = width * width
    parameters = [2 * n * matrix for _ in range(layers) for n in (3, 1, 4, 4)] + [2 * vocabulary * width]
    for size in parameters:
        tape.allocate(size)
    has_state = False
    for _ in range(steps):
        batch, length = (8, 1024) if is_steady else (draw.choice((2, 4, 6, 8, 10, 12)), draw.randint(128, 1024))
        tokens = batch * length
        row = tokens * width * 2
        saved = [tape.allocate(tokens * 8)]
        for _ in range(layers):
            for factor in (1, 3, 1, 1, 4, 4, 1):
                scratch = tape.allocate(row)
                saved.append(tape.allocate(factor * row))
                tape.free(scratch)
            saved += [tape.allocate(batch * 64 * length), tape.allocate(tokens * 4), tape.allocate(tokens * 4)]
        logits = [tape.allocate(tokens * vocabulary * size) for size in (2, 4, 4)]
        tape.free(*logits)
        upstream = tape.allocate(row)
        gradients: list[int] = []
        for i in reversed(range(len(saved))):
            if i % 5 == 0:
                upstream, old = tape.allocate(row), upstream
                tape.free(old)
            tape.free(saved[i])
            while len(gradients) < len(parameters) * (len(saved) - i) // len(saved):
                gradients.append(tape.allocate(parameters[-1 - len(gradients)]))
        tape.free(upstream)
        if not has_state:
            for size in parameters:
                tape.allocate(4 * size)
        has_state = True
        for begin in range(0, len(parameters), 8):
            tape.free(*[tape.allocate(2 * size) for size in parameters[begin : begin + 8]])
        tape.free(*gradients)
    return tape.rows()


def serving(seed: int, layers: int = 16, width: int = 2048, ticks: int = 500) -> Rows:
    """Sequences come and go; their key/value caches grow by concatenation: a new one, then the old one is freed."""
    draw, tape = random.Random(seed), Tape()
    for _ in range(layers):
        tape.allocate(24 * width * width)
    active: list[tuple[int, int, list[int]]] = []
    for _ in range(ticks):
        if len(active) < 12 and draw.random() < 0.1:
            prompt = min(max(int(draw.lognormvariate(5.5, 1)), 8), 4000)
            scratch = tape.allocate(8 * prompt * width)
            caches = [tape.allocate(4 * width * prompt) for _ in range(layers)]
            tape.free(scratch)
            active.append((prompt, prompt + 1 + int(draw.expovariate(1 / 120)), caches))
        still = []
        for length, end, caches in active:
            for layer in range(layers):
                scratch = tape.allocate(2 * width)
                grown = tape.allocate(4 * width * (length + 1))
                tape.free(caches[layer], scratch)
                caches[layer] = grown
            if length + 1 < end:
                still.append((length + 1, end, caches))
            else:
                tape.free(*caches)
        active = still
    return tape.rows()


def pipeline(seed: int, streams: int, is_consumer_freeing: bool, items: int = 3000, depth: int = 6) -> Rows:
    """Producers on their own streams decode items of random size; a consumer on stream 0 uses and frees them later."""
    draw, tape = random.Random(seed), Tape()
    mib = 1 << 20
    for _ in range(4):
        tape.allocate(draw.randint(50, 400) * mib)
    queue: list[tuple[int, int]] = []
    for _ in range(items):
        stream = draw.randint(1, streams - 1)
        raw = tape.allocate(draw.lognormvariate(2.2, 1) * mib, stream)
        queue.append((tape.allocate(draw.lognormvariate(2.6, 0.8) * mib, stream), stream))
        tape.free(raw, stream=stream)
        while len(queue) > depth * (streams - 1):
            item, its_stream = queue.pop(draw.randrange(4))
            work = tape.allocate(draw.lognormvariate(3, 0.9) * mib)
            tape.free(item, stream=0 if is_consumer_freeing else its_stream)
            tape.free(work)
    return tape.rows()


def churn(seed: int, streams: int, count: int = 10_000, total: int = 6 << 30) -> Rows:
    """Blocks of 512 bytes to 360 MiB that live for random times, at a level of filling that changes."""
    draw, tape = random.Random(seed), Tape()
    live: list[tuple[int, int, float]] = []
    used, level = 0.0, 0.5
    for i in range(count):
        if i % 500 == 0:
            level = draw.uniform(0.3, 1)
        stream, size = draw.randrange(streams), 2 ** draw.uniform(9, 28.5)
        if used + size < total * level:
            live.append((tape.allocate(size, stream), stream, size))
            used += size
        must_free = used > total * level * 0.95
        while live and (must_free or draw.random() < 0.3):
            block, its_stream, size = live.pop(draw.randrange(len(live)))
            tape.free(block, stream=its_stream)
            used -= size
            must_free = used > total * level * 0.95
    return tape.rows()


def all_of_them() -> Iterator[tuple[str, str, Rows]]:
    """Give name, group and events of each."""
    for seed in (1, 2):
        yield f"training {seed}", "training", training(seed, layers=16, width=1536, vocabulary=32_000, steps=60)
    yield "training 3", "training", training(3, layers=32, width=2048, vocabulary=50_000, steps=30)
    yield "steady", "steady", training(4, layers=16, width=1536, vocabulary=32_000, steps=20, is_steady=True)
    for seed in (1, 2):
        yield f"serving {seed}", "serving", serving(seed)
    yield "pipeline 1", "pipelines", pipeline(1, streams=5, is_consumer_freeing=True)
    yield "pipeline 2", "pipelines", pipeline(2, streams=5, is_consumer_freeing=True)
    yield "pipeline 3", "pipelines", pipeline(3, streams=9, is_consumer_freeing=False, depth=10)
    yield "churn 1", "churn", churn(1, streams=1)
    yield "churn 2", "churn", churn(2, streams=4)
