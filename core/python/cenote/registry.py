"""The current resource of each device, and who holds how many bytes of it."""

from cenote._registry import (
    Client,
    Usage,
    find_per_device_resource,
    get_current_device_resource,
    get_per_device_resource,
    registry_address,
    set_current_device_resource,
    set_per_device_resource,
    usage,
)

__all__ = [
    "Client",
    "Usage",
    "find_per_device_resource",
    "get_current_device_resource",
    "get_per_device_resource",
    "registry_address",
    "set_current_device_resource",
    "set_per_device_resource",
    "usage",
]
