from collections.abc import Callable, Iterable
from typing import SupportsIndex, SupportsInt

from cenote._core.memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor

class CudaMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class ManagedMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class PinnedHostMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class CudaAsyncMemoryResource(DeviceMemoryResource):
    def __init__(
        self,
        initial_pool_size: int | str | None = None,
        release_threshold: int | str | None = None,
        enable_ipc: bool = False,
        enable_fabric: bool = False,
        peers: Iterable[SupportsIndex] | str | None = None,
    ) -> None: ...
    def pool_handle(self) -> int: ...

class CudaAsyncViewMemoryResource(DeviceMemoryResource):
    def __init__(self, pool_handle: SupportsInt, peers: Iterable[SupportsIndex] | str | None = None) -> None: ...
    def pool_handle(self) -> int: ...

class CudaAsyncManagedMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...
    def pool_handle(self) -> int: ...

class SystemMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class SamHeadroomMemoryResource(DeviceMemoryResource):
    def __init__(self, headroom: int | str) -> None: ...

class CallbackMemoryResource(DeviceMemoryResource):
    allocate_func: Callable[..., int]
    deallocate_func: Callable[..., None]
    def __init__(self, allocate_func: Callable[..., int], deallocate_func: Callable[..., None]) -> None: ...

class PoolMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        initial_pool_size: int | str | None = None,
        maximum_pool_size: int | str | None = None,
    ) -> None: ...
    def pool_size(self) -> int: ...
    def counters(self) -> dict[str, int]: ...

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

class BinningMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self, upstream_mr: DeviceMemoryResource, min_size_exponent: int = -1, max_size_exponent: int = -1
    ) -> None: ...
    def add_bin(self, allocation_size: int | str, bin_resource: DeviceMemoryResource | None = None) -> None: ...
    @property
    def bin_mrs(self) -> list[DeviceMemoryResource]: ...
