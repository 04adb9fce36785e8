"""cuda.core on cenote: `CenoteMemoryResource` for ``Device(i).memory_resource``; its own resources under cenote.

::

    from cuda.core import Device
    from cenote.allocators.cuda import CenoteMemoryResource
    device = Device()
    device.set_current()
    device.memory_resource = CenoteMemoryResource()
    buffer = device.allocate(1 << 20, stream=device.default_stream)

What allocates through a Device then draws from the current resource: nvmath-python, and the host arrays that are passed
to a kernel of Numba. cuda.core has a Device for each thread, so each thread has to be told: `install` does that for the
thread that calls it.

`from_cuda_core` is the other direction: any resource of cuda.core as one of cenote's, to stand under a pool or an
adaptor.
"""

from __future__ import annotations

import functools
import threading
from typing import Any

import cenote.driver
import cenote.mr
from cenote.registry import Client

try:
    from cuda.core import LEGACY_DEFAULT_STREAM, Buffer, Device, MemoryResource
    from cuda.core import Stream as CoreStream
    from cuda.core import __version__ as _version
except ImportError as error:
    why = f"CenoteMemoryResource needs cuda.core, which cannot be imported ({error}): pip install 'cenote[cuda]'"
    raise ImportError(why) from error
if not hasattr(Buffer, "set_deallocation_stream"):  # without it a buffer is freed on the default stream
    raise ImportError(f"cuda.core {_version} is too old, its buffers know no stream: pip install 'cuda-core>=1.2'")

from cenote.allocators.cuda import _buffers

__all__ = ["CenoteMemoryResource", "from_cuda_core", "install", "uninstall"]

_client = Client("cuda.core")
_MANAGED = ("managed", "async_managed")


class CenoteMemoryResource(MemoryResource):  # type: ignore[misc,unused-ignore]
    """Memory of cenote's as cuda.core wants it.

    A buffer is freed in the order of the stream that it was allocated on, or of the one that ``Buffer.close`` is given.

    Parameters
    ----------
    resource : cenote.mr.DeviceMemoryResource, optional
        Where the memory comes from. If not given: from the resource that is current on the device at each allocation;
        `cenote.usage` then counts it for ``cuda.core``.
    device : int, optional
        Without `resource`: the device; the current one if not given.

    Raises
    ------
    TypeError
        If `resource` is no memory resource of cenote's.
    ValueError
        If both are given.
    IndexError
        If there is no such device.
    """

    # Attributes, which cuda.core asks of each buffer, as properties of Python's would take longer than an allocation.
    device_id: int = -1
    """The device whose memory this is."""
    is_device_accessible: bool = True
    """The device can read and write the memory of every resource."""
    is_host_accessible: bool = False
    """Whether the host can, too; False where the memory is that of whatever resource is current."""
    is_managed: bool = False
    """Whether the driver moves the memory between host and device; False as above."""

    def __init__(self, resource: cenote.mr.DeviceMemoryResource | None = None, device: int | None = None) -> None:
        if resource is not None:
            if not isinstance(resource, cenote.mr.DeviceMemoryResource):
                raise TypeError(f"resource must be a memory resource of cenote's, not {type(resource).__name__}")
            if device is not None:
                raise ValueError("device is for the current resource of a device; a resource that is given has its own")
            device = resource.device
        elif device is None:
            device = cenote.driver.current_device()
        elif not 0 <= device < cenote.driver.device_count():
            raise IndexError(f"there is no device {device}: there are {cenote.driver.device_count()}")
        self._resource = resource
        self._device = self.device_id = device
        if resource is None and type(self) is CenoteMemoryResource:  # whose methods nobody has replaced
            methods = CenoteMemoryResource.allocate.__get__(self), CenoteMemoryResource.deallocate.__get__(self)
            self.allocate, self.deallocate = _buffers.make_functions(
                self, *methods, device, CoreStream, Buffer.from_handle
            )
        words = resource.specification.split("|") if resource is not None else ["cuda"]
        # The current resource may change: all that it promises is memory of the device.
        self.is_managed = words[-1].partition(":")[0].strip() in _MANAGED
        self.is_host_accessible = resource is not None and resource.is_host_accessible

    def allocate(self, size: int, *, stream: Any) -> Buffer:
        """Allocate in the order of `stream`.

        Parameters
        ----------
        size : int
            Size in bytes.
        stream : cuda.core.Stream or any framework's stream
            The memory is usable by work queued on it from now on, and freed in its order.

        Returns
        -------
        cuda.core.Buffer

        Raises
        ------
        cenote.OutOfMemoryError
            There is no memory. It is a MemoryError.
        """
        if self._resource is not None:
            address = self._resource.allocate(size, _plain(stream))
        else:
            address = _client.allocate(size, _plain(stream), self._device)
        return Buffer.from_handle(address, size, mr=self, stream=stream)

    def deallocate(self, ptr: Any, size: int, *, stream: Any) -> None:
        """Free in the order of `stream`: what a buffer calls that is closed or dies.

        Parameters
        ----------
        ptr : int
            The address.
        size : int
            The size that it was allocated with, in bytes.
        stream : cuda.core.Stream or any framework's stream
            Work queued on it so far may still use the memory.
        """
        if self._resource is not None:
            self._resource.deallocate(int(ptr), size, _plain(stream))
        else:
            _client.deallocate(int(ptr), _plain(stream))

    @property
    def resource(self) -> cenote.mr.DeviceMemoryResource:
        """The resource that the next buffer comes from."""
        return self._resource if self._resource is not None else cenote.mr.get_per_device_resource(self._device)

    def __reduce__(self) -> tuple[type, tuple[cenote.mr.DeviceMemoryResource | None, int | None]]:
        return type(self), (self._resource, self._device if self._resource is None else None)

    def __repr__(self) -> str:
        of = f"'{self._resource.specification}'" if self._resource is not None else "the current resource"
        return f"<cenote.allocators.cuda.CenoteMemoryResource of {of} on device {self._device}>"


def _plain(stream: Any) -> Any:
    """Give the handle of a stream of cuda.core's, which is sooner understood; any other stream as it is."""
    return stream.__cuda_stream__()[1] if type(stream) is CoreStream else stream


def from_cuda_core(resource: MemoryResource) -> cenote.mr.DeviceMemoryResource:
    """Make a resource of cenote's out of one of cuda.core's, to stand under a pool or an adaptor.

    Parameters
    ----------
    resource : cuda.core.MemoryResource
        Any, such as ``DeviceMemoryResource``, ``PinnedMemoryResource`` or one of a user's.

    Returns
    -------
    cenote.mr.CallbackMemoryResource
        Of the resource's device, or of the current one where the resource has none. It keeps `resource` alive.

    Raises
    ------
    TypeError
        If it is none of cuda.core's resources.
    """
    if not isinstance(resource, MemoryResource):
        raise TypeError(f"resource must be a cuda.core.MemoryResource, not {type(resource).__name__}")
    buffers: dict[int, Buffer] = {}  # a buffer that dies frees its memory

    def allocate(size: int, stream: Any) -> int:
        try:
            buffer = resource.allocate(size, stream=_core_stream(stream))
        except Exception as error:  # cuda.core has one class for every error of the driver
            if "CUDA_ERROR_OUT_OF_MEMORY" in str(error):
                raise MemoryError(f"cuda.core: {error}") from error
            raise
        address = int(buffer.handle)
        buffers[address] = buffer
        return address

    def deallocate(ptr: int, size: int, stream: Any) -> None:
        buffers.pop(ptr).close(_core_stream(stream))

    before = cenote.driver.current_device()
    device = resource.device_id if resource.device_id >= 0 else before
    try:
        cenote.driver.set_device(device)
        return cenote.mr.CallbackMemoryResource(allocate, deallocate)
    finally:
        if device != before:
            cenote.driver.set_device(before)


def _core_stream(stream: Any) -> CoreStream:
    return CoreStream.from_handle(stream.handle) if stream.handle else LEGACY_DEFAULT_STREAM


_of_thread = threading.local()
"""``replaced``: by device, what the calling thread's Device had before `install`."""


@functools.cache
def _resource_of(device: int) -> CenoteMemoryResource:
    return CenoteMemoryResource(device=device)


def install() -> str:
    """Put cuda.core's devices onto cenote, on the calling thread.

    Each further thread that allocates through cuda.core calls this too. It may be called again.

    Returns
    -------
    str
        What took effect.
    """
    replaced = _of_thread.__dict__.setdefault("replaced", {})
    for device in Device.get_all_devices():
        ours = _resource_of(device.device_id)
        current = device.memory_resource
        if current is not ours:
            replaced[device.device_id] = current
            device.memory_resource = ours
    return (
        f"cuda.core {_version}: buffers of this thread's devices come from the current resource; "
        "other threads call cenote.allocators.cuda.install()"
    )


def uninstall() -> str:
    """Give the calling thread's devices back the memory resources that they had before `install`.

    Returns
    -------
    str
        What took effect.
    """
    replaced = _of_thread.__dict__.pop("replaced", {})
    for device in Device.get_all_devices():
        if device.device_id in replaced and device.memory_resource is _resource_of(device.device_id):
            device.memory_resource = replaced[device.device_id]
    return f"cuda.core {_version}: this thread's devices have the memory resources of before"
