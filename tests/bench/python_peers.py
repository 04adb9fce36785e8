"""The allocators as Python sees them: how each is made, and how a framework is told to use it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

POOL_BYTES = 4 << 30
KEEP_ALL = 2**63 - 1


def make_cenote(kind: str, initial: int = POOL_BYTES) -> Any:
    """Make one of cenote's resources."""
    from cenote import mr

    def pool() -> Any:
        return mr.PoolMemoryResource(mr.VirtualMemoryResource(), initial)

    makers: dict[str, Callable[[], Any]] = {
        "pool": pool,
        "chunks": lambda: mr.PoolMemoryResource(mr.CudaMemoryResource(), initial),
        "arena": lambda: mr.ArenaMemoryResource(mr.CudaMemoryResource(), initial),
        "binning": lambda: mr.BinningMemoryResource(pool(), 18, 22),
        "async": lambda: mr.CudaAsyncMemoryResource(initial),
        "statistics": lambda: mr.StatisticsResourceAdaptor(pool()),
    }
    return makers[kind]()


def make_rmm(kind: str, initial: int = POOL_BYTES) -> Any:
    """Make one of RMM's resources with the same parameters."""
    import rmm.mr as mr

    def pool() -> Any:
        return mr.PoolMemoryResource(mr.CudaMemoryResource(), initial_pool_size=initial)

    makers: dict[str, Callable[[], Any]] = {
        "pool": pool,
        "arena": lambda: mr.ArenaMemoryResource(mr.CudaMemoryResource(), initial),
        "binning": lambda: mr.BinningMemoryResource(pool(), 18, 22),
        "async": lambda: mr.CudaAsyncMemoryResource(initial_pool_size=initial, release_threshold=KEEP_ALL),
        "statistics": lambda: mr.StatisticsResourceAdaptor(pool()),
    }
    return makers[kind]()


def make_resource(peer: str, initial: int = POOL_BYTES) -> Any:
    """Make the resource of a peer such as ``cenote-pool`` or ``rmm-async``."""
    library, _, kind = peer.partition("-")
    return {"cenote": make_cenote, "rmm": make_rmm}[library](kind, initial)


def make_replayed(peer: str) -> Any:
    """Make what a trace is replayed on: a resource that grows as it needs, or the allocator of a framework."""
    if peer == "torch":
        return _Torch()
    return _CuPy(peer) if peer.startswith("cupy") else make_resource(peer, 0)


class _Torch:
    """PyTorch's caching allocator, by its functions for other libraries."""

    def __init__(self) -> None:
        import torch

        torch.cuda.init()
        torch.cuda.empty_cache()
        self._cuda = torch.cuda

    def allocate(self, nbytes: int, stream: Any) -> int:
        return int(self._cuda.caching_allocator_alloc(nbytes, stream=stream.handle))

    def deallocate(self, address: int, nbytes: int, stream: Any) -> None:
        self._cuda.caching_allocator_delete(address)


class _CuPy:
    """A pool of CuPy's, whose blocks are objects."""

    def __init__(self, peer: str) -> None:
        import cupy

        self._stream_of = cupy.cuda.ExternalStream
        self._pool = cupy.cuda.MemoryAsyncPool() if peer == "cupy-async" else cupy.cuda.MemoryPool()
        self._blocks: dict[int, Any] = {}

    def allocate(self, nbytes: int, stream: Any) -> int:
        with self._stream_of(stream.handle):
            block = self._pool.malloc(nbytes)
        self._blocks[block.ptr] = block
        return int(block.ptr)

    def deallocate(self, address: int, nbytes: int, stream: Any) -> None:
        with self._stream_of(stream.handle):
            del self._blocks[address]


def make_current(peer: str) -> Any:
    """Make the resource of a peer and set it as its library's current one."""
    resource = make_resource(peer)
    if peer.startswith("cenote"):
        from cenote.mr import set_current_device_resource
    else:
        from rmm.mr import set_current_device_resource
    set_current_device_resource(resource)
    return resource


@functools.cache
def give_torch(peer: str) -> None:
    """Let torch allocate through `peer`, once; ``torch`` leaves it its own allocator."""
    import torch

    if peer.startswith("cenote"):
        _install_cenote(peer, "torch")
    elif peer.startswith("rmm"):
        from rmm.allocators.torch import rmm_torch_allocator

        make_current(peer)
        torch.cuda.memory.change_current_allocator(rmm_torch_allocator)


@functools.cache
def give_cupy(peer: str) -> None:
    """Let CuPy allocate through `peer`, once; ``cupy-pool`` leaves it its own pool."""
    import cupy

    if peer == "cupy-async":
        cupy.cuda.set_allocator(cupy.cuda.MemoryAsyncPool().malloc)
    elif peer.startswith("cenote"):
        _install_cenote(peer, "cupy")
    elif peer.startswith("rmm"):
        from rmm.allocators.cupy import rmm_cupy_allocator

        make_current(peer)
        cupy.cuda.set_allocator(rmm_cupy_allocator)


@functools.cache
def give_numba(peer: str) -> None:
    """Let Numba allocate through `peer`, once; ``numba`` leaves it its own manager."""
    from numba import cuda

    if peer.startswith("cenote"):
        _install_cenote(peer, "numba")
    elif peer.startswith("rmm"):
        from rmm.allocators.numba import RMMNumbaManager

        make_current(peer)
        cuda.set_memory_manager(RMMNumbaManager)


def _install_cenote(peer: str, framework: str) -> None:
    import cenote

    report = cenote.install(make_resource(peer), frameworks=(framework,))
    if not report:
        raise RuntimeError("; ".join(row.detail for row in report))


def version_of(peer: str, case: str) -> str:
    """Versions of the packages that a cell is about, as ``name version, …``."""
    from importlib import metadata

    distributions = {
        "cenote": ("cenote",),
        "rmm": ("rmm-cu13", "rmm-cu12"),
        "torch": ("torch",),
        "cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"),
        "numba": ("numba-cuda",),
        "cuda": ("cuda-core",),
    }
    found = []
    for word in dict.fromkeys((peer.partition("-")[0], case.partition("-")[0])):
        for name in distributions.get(word, ()):
            try:
                found.append(f"{name} {metadata.version(name)}")
                break
            except metadata.PackageNotFoundError:
                continue
    return ", ".join(found)
