"""One call that sets the resources of devices up anew, and the hooks that run before it. Documented in `cenote`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, SupportsIndex, TypeVar

from cenote import driver
from cenote._core.adaptors import LoggingResourceAdaptor
from cenote._core.arguments import whole_number
from cenote._core.memory_resource import DeviceMemoryResource
from cenote._core.pools import PoolMemoryResource
from cenote._core.registry import (
    devices_with_resource,
    find_per_device_resource,
    reset_per_device_resource,
    set_default_specification,
    set_per_device_resource,
)
from cenote._core.specification import from_spec
from cenote.units import parse_bytes

__all__ = [
    "available_device_memory",
    "is_initialized",
    "register_reinitialize_hook",
    "reinitialize",
    "unregister_reinitialize_hook",
]

_Hook = TypeVar("_Hook", bound=Callable[..., Any])
_hooks: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]] = []


def reinitialize(
    pool_allocator: bool = False,
    managed_memory: bool = False,
    initial_pool_size: int | str | None = None,
    maximum_pool_size: int | str | None = None,
    devices: SupportsIndex | Iterable[SupportsIndex] | None = 0,
    logging: bool = False,
    log_file_name: str | os.PathLike[str] | None = None,
) -> None:
    """Give devices fresh resources, and every other device the one that it would have at the start.

    First the hooks run, then all resources are made, and only then is one replaced: an error leaves everything as it
    was. Memory that is still held stays valid and goes back to the resource that it came from. The device that is
    current on the calling thread stays current.

    Parameters
    ----------
    pool_allocator : bool
        Put a `PoolMemoryResource` over the device's memory.
    managed_memory : bool
        Take managed memory instead of the device's own.
    initial_pool_size : int or str, optional
        Bytes that the pool takes at once, as a number or a text such as ``"1GiB"``; half of the free memory if not
        given. Without a pool it is ignored.
    maximum_pool_size : int or str, optional
        Bytes that the pool never exceeds; as much as there is if not given. Without a pool it is ignored.
    devices : int or iterable of int, optional
        The devices; 0 if not given.
    logging : bool
        Log every allocation and free (`LoggingResourceAdaptor`).
    log_file_name : str or os.PathLike, optional
        The log file, begun anew; ``.dev<device>`` is put before its extension, and the number of the process in place
        of ``%p``. The environment variable ``CENOTE_LOG_FILE`` if not given.

    Raises
    ------
    ValueError
        A text that is no size, or `logging` without a file.
    RuntimeError
        Sizes that are no multiples of 256, an initial size above the maximum, or a log file that cannot be opened.
    IndexError
        There is no such device.
    MemoryError
        The device cannot give the initial size.
    DriverUnavailableError
        There is no driver, or no device.
    """
    numbers = _device_numbers(devices)
    initial = _pool_size("initial_pool_size", initial_pool_size) if pool_allocator else None
    maximum = _pool_size("maximum_pool_size", maximum_pool_size) if pool_allocator else None

    def make_resource(device: int) -> DeviceMemoryResource:
        resource = from_spec("managed" if managed_memory else "cuda", device)
        if pool_allocator:
            resource = PoolMemoryResource(resource, initial, maximum)
        return LoggingResourceAdaptor(resource, log_file_name) if logging else resource

    for function, arguments, keywords in reversed(tuple(_hooks)):
        function(*arguments, **keywords)
    try:
        made = {device: make_resource(device) for device in numbers}
    except MemoryError:
        # What the present resources hold and do not use may be enough.
        _trim_resources()
        made = {device: make_resource(device) for device in numbers}
    for device, resource in made.items():
        set_per_device_resource(device, resource)
    set_default_specification(None)
    for device in devices_with_resource():
        if device not in made:
            reset_per_device_resource(device)


def _pool_size(name: str, size: int | str | None) -> int | None:
    if size is None:
        return None
    try:
        return parse_bytes(size)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"{name}: {error}") from None


def _device_numbers(devices: SupportsIndex | Iterable[SupportsIndex] | None) -> list[int]:
    """List the devices, each once; IndexError for one that is not there."""
    if devices is None:
        devices = 0
    numbers = [_device_number(device) for device in (devices if isinstance(devices, Iterable) else [devices])]
    count = driver.device_count()
    for number in numbers:
        if not 0 <= number < count:
            raise IndexError(f"there is no device {number}: this machine has {count}, counted from 0")
    return list(dict.fromkeys(numbers))


def _device_number(device: SupportsIndex) -> int:
    return whole_number("devices", device, "numbers of devices as int")


def _trim_resources() -> None:
    for device in devices_with_resource():
        resource = find_per_device_resource(device)
        if resource is not None:
            resource.trim()


def is_initialized() -> bool:
    """Whether every device has a resource that can be used: always True, as each has one from the start."""
    return True


def register_reinitialize_hook(func: _Hook, *args: Any, **kwargs: Any) -> _Hook:
    """Have `reinitialize` call a function first, with these arguments; the last one registered is called first.

    Such a function drops what a library holds of the resources that are about to be replaced.

    Parameters
    ----------
    func : callable
        May be registered several times.
    *args, **kwargs
        What it is called with.

    Returns
    -------
    callable
        `func`, so that this can be a decorator.

    Raises
    ------
    TypeError
        If `func` cannot be called.
    """
    if not callable(func):
        raise TypeError(f"func must be callable, not {type(func).__name__}")
    _hooks.append((func, args, kwargs))
    return func


def unregister_reinitialize_hook(func: Callable[..., Any]) -> None:
    """Forget every registration of `func`; nothing happens if there is none."""
    _hooks[:] = [hook for hook in _hooks if hook[0] != func]


def available_device_memory() -> tuple[int, int]:
    """Free and total memory of the current device, in bytes, as the driver says."""
    return driver.memory_info(driver.current_device())
