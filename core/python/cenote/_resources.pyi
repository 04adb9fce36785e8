from cenote._memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor

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
    ) -> None: ...
    def pool_handle(self) -> int: ...

class PoolMemoryResource(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        initial_pool_size: int | str | None = None,
        maximum_pool_size: int | str | None = None,
    ) -> None: ...
    def pool_size(self) -> int: ...
    def counters(self) -> dict[str, int]: ...
