"""Who is measured: the allocators, which worker speaks for each, and how a plot shows it."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Peer:
    """One allocator."""

    name: str
    title: str
    color: str
    needs_gpu: bool = True
    is_floor: bool = False
    """Of the host, or the machine: what others are compared with."""


_OURS, _OURS_2, _OURS_3, _OURS_4 = "#00796b", "#26a69a", "#80cbc4", "#7cb342"
_RMM, _RMM_2, _RMM_3, _RMM_4 = "#e65100", "#fb8c00", "#ffb74d", "#fbc02d"

_PEERS = (
    Peer("cenote-pool", "cenote pool", _OURS, needs_gpu=False),
    Peer("cenote-chunks", "cenote pool over cuda, in chunks", "#00838f", needs_gpu=False),
    Peer("cenote-announced", "cenote pool, captures announced", "#004d40", needs_gpu=False),
    Peer("cenote-arena", "cenote arena", _OURS_2, needs_gpu=False),
    Peer("cenote-binning", "cenote binning", _OURS_3, needs_gpu=False),
    Peer("cenote-async", "cenote async", _OURS_4, needs_gpu=False),
    Peer("cenote-statistics", "cenote statistics over pool", "#4db6ac", needs_gpu=False),
    Peer("cenote-limiting", "cenote limiting over pool", "#00acc1", needs_gpu=False),
    Peer("rmm-pool", "RMM pool", _RMM),
    Peer("rmm-arena", "RMM arena", _RMM_2),
    Peer("rmm-binning", "RMM binning over pool", _RMM_3),
    Peer("rmm-async", "RMM cuda_async", _RMM_4),
    Peer("rmm-statistics", "RMM statistics over pool", "#bf360c"),
    Peer("torch", "torch, its caching allocator", "#c62828"),
    Peer("cupy-pool", "CuPy, its pool", "#1565c0"),
    Peer("cupy-async", "CuPy, its async pool", "#64b5f6"),
    Peer("numba", "Numba, its own", "#6a1b9a"),
    Peer("cuda-core", "cuda.core", "#5d4037"),
    Peer("mimalloc", "mimalloc (host)", "#424242", needs_gpu=False, is_floor=True),
    Peer("malloc", "glibc malloc (host)", "#9e9e9e", needs_gpu=False, is_floor=True),
    Peer("driver", "one event record + one wait", "#bdbdbd", needs_gpu=False, is_floor=True),
    Peer("machine", "the machine", "#bdbdbd", needs_gpu=False, is_floor=True),
    Peer("python", "an empty Python call", "#bdbdbd", needs_gpu=False, is_floor=True),
)

PEERS: dict[str, Peer] = {peer.name: peer for peer in _PEERS}


def choose(wanted: str, known: Sequence[str], what: str) -> list[str]:
    """Names from a list with commas, in the order of `known`; ``all`` is every one.

    ValueError names the closest where one is unknown.
    """
    names = [name.strip() for name in wanted.split(",") if name.strip()]
    if names == ["all"]:
        return list(known)
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(known)}"
            raise ValueError(f"{name!r} is not a {what}; {hint}")
    if not names:
        raise ValueError(f"no {what} named; known are: {', '.join(known)}")
    return [name for name in known if name in names]
