from dataclasses import dataclass

from typing_extensions import disjoint_base

from cenote._core.memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor

@dataclass(frozen=True)
class Pin:
    address: int
    nbytes: int
    kind: str
    count: int

@dataclass(frozen=True)
class PoolCounters:
    allocations: int
    from_front_cache: int
    from_own_stream: int
    from_ready: int
    from_other_stream: int
    from_upstream: int
    from_reclaim: int
    waits: int
    events: int
    upstream_allocations: int
    upstream_frees: int
    pages_moved: int

class PoolMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        initial_pool_size: int | str | None = None,
        maximum_pool_size: int | str | None = None,
        *,
        tight: bool = False,
        idle_seconds: float | None = None,
    ) -> None: ...
    def pool_size(self) -> int: ...
    def counters(self) -> PoolCounters: ...
    def pin(self, ptr: int, kind: str = "exported") -> None: ...
    def unpin(self, ptr: int, kind: str = "exported") -> None: ...
    def pins(self) -> list[Pin]: ...

class ArenaMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        arena_size: int | str | None = None,
        dump_log_on_failure: bool = False,
    ) -> None: ...
    def arena_size(self) -> int: ...

class FixedSizeMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        block_size: int | str = 1048576,
        blocks_to_preallocate: int = 128,
    ) -> None: ...
    def get_block_size(self) -> int: ...

@disjoint_base
class BinningMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self, upstream_mr: DeviceMemoryResource, min_size_exponent: int = -1, max_size_exponent: int = -1
    ) -> None: ...
    def add_bin(self, allocation_size: int | str, bin_resource: DeviceMemoryResource | None = None) -> None: ...
    @property
    def bin_mrs(self) -> list[DeviceMemoryResource]: ...
