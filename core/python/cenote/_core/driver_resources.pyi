from collections.abc import Iterable
from typing import SupportsIndex, SupportsInt

from cenote._core.memory_resource import DeviceMemoryResource

class CudaMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class ManagedMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class PinnedHostMemoryResource(DeviceMemoryResource):
    def __init__(self) -> None: ...

class VirtualMemoryResource(DeviceMemoryResource):
    def __init__(
        self,
        enable_ipc: bool | None = None,
        enable_fabric: bool = False,
        for_rdma: bool = False,
        peers: Iterable[SupportsIndex] | str | None = None,
    ) -> None: ...

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
