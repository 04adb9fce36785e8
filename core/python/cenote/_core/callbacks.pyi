from collections.abc import Callable

from typing_extensions import disjoint_base

from cenote._core.memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor
from cenote._core.stream import Stream

@disjoint_base
class CallbackMemoryResource(DeviceMemoryResource):
    allocate_func: Callable[..., int]
    deallocate_func: Callable[..., None]
    def __init__(self, allocate_func: Callable[..., int], deallocate_func: Callable[..., None]) -> None: ...

@disjoint_base
class FailureCallbackResourceAdaptor(UpstreamResourceAdaptor):
    def __init__(
        self,
        upstream_mr: DeviceMemoryResource,
        callback: Callable[[int], bool] | Callable[[int, Stream, int], bool],
        max_tries: int = 64,
    ) -> None: ...
