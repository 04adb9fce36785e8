"""What is measured: the table of cases. A case has rows (its parameters) and peers; each row and peer is one cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Parameters = Mapping[str, int | str]

KIB, MIB = 1024, 1024**2

_POOLS = ("cenote-pool", "cenote-chunks", "cenote-arena", "cenote-binning", "cenote-async")
_RMM = ("rmm-pool", "rmm-arena", "rmm-binning", "rmm-async")
_HOST = ("mimalloc", "malloc")
_EVERYONE = (_POOLS[0], "cenote-announced", *_POOLS[1:], *_RMM, *_HOST)


@dataclass(frozen=True)
class Row:
    """One line of a case's table."""

    label: str
    parameters: Parameters
    x: float = 0.0
    """Where a plot with lines puts it."""
    quick: bool = True
    """Whether ``--quick`` measures it."""


@dataclass(frozen=True)
class Case:
    """One thing that is measured of several peers."""

    name: str
    title: str
    what: str
    peers: tuple[str, ...]
    rows: tuple[Row, ...]
    worker: Literal["cpp", "python"] = "cpp"
    unit: str = "ns"
    baseline: str = "mimalloc"
    """The peer that ratios are over."""
    needs_gpu: bool = False
    plot: Literal["bars", "lines", ""] = "bars"
    x_label: str = ""
    effort: Parameters = field(default_factory=dict)
    """What every row is told: ``count`` operations in ``budget_ms`` milliseconds at most."""

    @property
    def section(self) -> str:
        """Cases of one section are interleaved, and their workers live at the same time."""
        if self.worker == "cpp":
            return "cpp"
        return "python" if self.name.startswith("py-") else self.name


def _size(nbytes: int) -> str:
    for unit, text in ((MIB, "MiB"), (KIB, "KiB")):
        if nbytes >= unit:
            return f"{nbytes // unit} {text}"
    return f"{nbytes} B"


_STREAMS = {"legacy": "legacy default stream", "own": "a stream of its own library", "foreign": "a foreign stream"}

_FLOORS = {
    "cas": "compare-and-swap, uncontended",
    "xchg": "exchange, uncontended",
    "event-record": "cuEventRecord, a stream",
    "event-record-legacy": "cuEventRecord, legacy default stream",
    "record-and-wait": "cuEventRecord + cuStreamWaitEvent",
    "stream-id": "cuStreamGetId",
    "capturing-and-id": "cuStreamIsCapturing + cuStreamGetId",
}

_PAIR = {"count": 200_000, "budget_ms": 30}
_SWEEP = {"count": 200_000, "budget_ms": 80, "preparation_ms": 12_000}
_THREADS = {"count": 100_000, "budget_ms": 60}
_PYTHON = {"count": 20_000, "budget_ms": 60}

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "floor",
            "The floor",
            "The pieces that an allocation is made of, each by itself.",
            ("machine",),
            tuple(Row(label, {"what": what}) for what, label in _FLOORS.items()),
            baseline="",
            plot="",
            effort={"count": 200_000, "budget_ms": 30},
        ),
        Case(
            "pair",
            "Same-size pair",
            "One block is allocated and freed, again and again, with nothing else in use.",
            _EVERYONE,
            tuple(
                Row(
                    f"{_size(nbytes)}, {label}",
                    {"bytes": nbytes, "stream": stream},
                    quick=nbytes in (4 * KIB, 64 * MIB) or stream == "own",
                )
                for stream, label in _STREAMS.items()
                for nbytes in (256, 4 * KIB, 1 * MIB, 64 * MIB)
            ),
            effort=_PAIR,
        ),
        Case(
            "live",
            "Random replacement, sizes of 256 B to 1 MiB",
            "Of so many live blocks of log-uniform sizes a random one is freed and another allocated. Where they would "
            "not fit into 16 GiB the largest size is smaller.",
            _EVERYONE,
            tuple(
                Row(
                    f"{live:,} live",
                    {"live": live, "largest_kib": 1024, "capacity_mib": 16384},
                    x=live,
                    quick=live <= 1000,
                )
                for live in (10, 100, 1_000, 10_000, 100_000, 1_000_000)
            ),
            plot="lines",
            x_label="live blocks",
            effort=_SWEEP,
        ),
        Case(
            "live-small",
            "Random replacement, sizes of 256 B to 4 KiB",
            "As above with small blocks; of the memory that their bookkeeping takes on the host, per live block, the "
            "growth of the process is measured while the blocks are made.",
            _EVERYONE,
            tuple(
                Row(
                    f"{live:,} live",
                    {"live": live, "largest_kib": 4, "capacity_mib": 16384},
                    x=live,
                    quick=live <= 10_000,
                )
                for live in (1_000, 10_000, 100_000, 1_000_000)
            ),
            plot="lines",
            x_label="live blocks",
            effort=_SWEEP,
        ),
        Case(
            "holes",
            "Replacement among holes",
            "So many blocks of 256 B · 2^(0…7) + 256 B · (0…63) are made, every second one is freed, and then random "
            "ones of the rest are replaced.",
            _EVERYONE,
            tuple(
                Row(f"{blocks:,} blocks", {"blocks": blocks}, x=blocks, quick=blocks <= 10_000)
                for blocks in (100, 1_000, 10_000, 100_000)
            ),
            plot="lines",
            x_label="blocks, every second one freed",
            effort=_SWEEP,
        ),
        Case(
            "rmm-random",
            "RMM's random allocations",
            "RMM's own benchmark with its parameters: 2 n steps, sizes of 1 to m MiB, 73 % of them allocations while "
            "fewer than n were made and 16 000 MiB are in use at most, in a pool of half the free memory. Time of one "
            "step.",
            _EVERYONE,
            tuple(
                Row(
                    f"n {blocks:,}, m {largest:,}",
                    {"blocks": blocks, "largest_mib": largest, "count": 1},
                    quick=blocks == 1_000 and largest in (1, 64),
                )
                for blocks in (1_000, 10_000, 100_000)
                for largest in (1, 4, 64, 256, 1024, 4096)
            ),
            plot="",
            effort={"budget_ms": 60},
        ),
        Case(
            "threads",
            "Threads",
            "Each thread replaces its 32 blocks of 256 B · (1…64) in random order. Time of one replacement as each "
            "thread sees it.",
            _EVERYONE,
            tuple(
                Row(
                    f"{threads} thread{'s' * (threads > 1)}, {label}",
                    {"threads": threads, "streams": streams},
                    x=threads,
                    quick=threads <= 4,
                )
                for streams, label in (("own", "a stream each"), ("one", "one stream"))
                for threads in (1, 2, 4, 8, 16)
            ),
            plot="lines",
            x_label="threads",
            effort=_THREADS,
        ),
        Case(
            "producer-consumer",
            "Producer and consumer",
            "Of each two threads one allocates 4 KiB and the other frees them, on the stream of the two or on its own.",
            _EVERYONE,
            tuple(
                Row(
                    f"{threads} threads, {label}",
                    {"threads": threads, "streams": streams},
                    quick=threads <= 2,
                )
                for streams, label in (("one", "one stream a pair"), ("own", "a stream each"))
                for threads in (2, 8, 16)
            ),
            plot="",
            effort=_THREADS,
        ),
        Case(
            "adaptors",
            "Adaptors",
            "Each thread allocates and frees 4 KiB on the legacy default stream, again and again. Time of one pair as "
            "each thread sees it. What an adaptor costs is counted beside it: with one thread, a pair of the pool "
            "below is measured in turn with it, every tenth of a millisecond; the median of the differences.",
            ("cenote-pool", "cenote-statistics", "cenote-limiting"),
            tuple(
                Row(f"{threads} thread{'s' * (threads > 1)}", {"threads": threads, "bytes": 4 * KIB})
                for threads in (1, 16)
            ),
            baseline="cenote-pool",
            effort={"count": 500_000, "budget_ms": 120},
        ),
        Case(
            "handoff",
            "From stream to stream",
            "All memory of a pool of 64 MiB is in use; 1 MiB is freed on one stream and allocated on the other. The "
            "driver's own pool is not limited and need not hand over.",
            ("cenote-pool", "cenote-chunks", "cenote-announced", "cenote-async", "rmm-pool", "rmm-async", "driver"),
            (Row("free on one, allocate on the other", {}),),
            baseline="driver",
            effort=_PAIR,
        ),
        Case(
            "busy-streams",
            "From stream to stream, with kernels running",
            "Each stream allocates 8 MiB, runs a kernel of 50 µs on it and frees it. The time until all is done, over "
            "that with no allocator: 1.00 is no time lost.",
            ("cenote-pool", "cenote-async", "rmm-pool", "rmm-async"),
            tuple(
                Row(
                    f"{streams} streams, {label}",
                    {"streams": streams, "memory": memory, "kernels": 40, "kernel_ns": 50_000},
                )
                for memory, label in (("tight", "a block each"), ("ample", "two blocks each"))
                for streams in (2, 4, 16)
            ),
            unit="× the time with no allocator",
            baseline="",
            needs_gpu=True,
        ),
        Case(
            "growth",
            "Growth and trim",
            "Of a pool that starts empty and grows as it likes, blocks of 64 MiB are taken until 8 GiB are in use. All "
            "are freed, it is trimmed, and they are taken again.",
            ("cenote-pool", "cenote-chunks", "cenote-async", "rmm-pool", "rmm-async"),
            tuple(
                Row(label, {"phase": phase, "mib": 8192})
                for phase, label in (("grow", "grow"), ("trim", "trim"), ("again", "grow again"))
            ),
            unit="µs/GiB",
            baseline="",
        ),
        Case(
            "py-pair",
            "allocate and deallocate from Python",
            "`mr.allocate` and `mr.deallocate` of 1 KiB on the legacy default stream; cuda.core: `allocate` and "
            "`close`.",
            (
                "cenote-pool",
                "cenote-arena",
                "cenote-binning",
                "cenote-async",
                "cenote-statistics",
                "rmm-pool",
                "rmm-arena",
                "rmm-binning",
                "rmm-async",
                "rmm-statistics",
                "cuda-core",
                "python",
            ),
            (Row("1 KiB", {"bytes": KIB}),),
            worker="python",
            baseline="python",
            effort=_PYTHON,
        ),
        Case(
            "py-buffer",
            "DeviceBuffer",
            "`DeviceBuffer(size=1024)` made and dropped, of the current resource.",
            ("cenote-pool", "cenote-arena", "cenote-async", "rmm-pool", "rmm-arena", "rmm-async", "python"),
            (Row("1 KiB", {"bytes": KIB}),),
            worker="python",
            baseline="python",
            effort=_PYTHON,
        ),
        Case(
            "torch-empty",
            "torch.empty",
            "`torch.empty` of bytes on the device, made and dropped.",
            ("torch", "cenote-pool", "cenote-async", "rmm-pool", "rmm-async"),
            (Row("1 KiB", {"bytes": KIB}), Row("4 MiB", {"bytes": 4 * MIB})),
            worker="python",
            baseline="torch",
            needs_gpu=True,
            effort=_PYTHON,
        ),
        Case(
            "cupy-alloc",
            "cupy.cuda.alloc",
            "`cupy.cuda.alloc`, made and dropped.",
            ("cupy-pool", "cupy-async", "cenote-pool", "cenote-async", "rmm-pool", "rmm-async"),
            (Row("1 KiB", {"bytes": KIB}), Row("4 MiB", {"bytes": 4 * MIB})),
            worker="python",
            baseline="cupy-pool",
            needs_gpu=True,
            effort=_PYTHON,
        ),
        Case(
            "numba-array",
            "numba.cuda.device_array",
            "`numba.cuda.device_array` of bytes, made and dropped.",
            ("numba", "cenote-pool", "cenote-async", "rmm-pool", "rmm-async"),
            (Row("1 KiB", {"bytes": KIB}), Row("4 MiB", {"bytes": 4 * MIB})),
            worker="python",
            baseline="numba",
            needs_gpu=True,
            effort=_PYTHON,
        ),
    )
}

REPLAY = Case(
    "replay",
    "Replay of recorded traces",
    "Recorded allocations and frees, made again from Python one after the other without the work between them; the "
    "resource grows as it needs. Time of one event; counted beside it, what the resource had taken from the device at "
    "the end over the most bytes in use.",
    (
        *("cenote-pool", "cenote-chunks", "cenote-binning", "cenote-async"),
        *("rmm-pool", "rmm-binning", "rmm-async", "torch", "cupy-pool", "cupy-async"),
    ),
    (),
    worker="python",
    baseline="",
    effort={"count": 1},
)
