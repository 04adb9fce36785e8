"""The current resource of each device, and who holds how many bytes of it."""

from cenote._core.registry import (
    Client,
    Usage,
    default_specification,
    devices_with_resource,
    find_per_device_resource,
    get_current_device_resource,
    get_per_device_resource,
    registry_address,
    reset_all_device_resources,
    reset_current_device_resource,
    reset_per_device_resource,
    set_current_device_resource,
    set_default_specification,
    set_per_device_resource,
    usage,
)

__all__ = [
    "Client",
    "Usage",
    "default_specification",
    "devices_with_resource",
    "find_per_device_resource",
    "get_current_device_resource",
    "get_per_device_resource",
    "registry_address",
    "reset_all_device_resources",
    "reset_current_device_resource",
    "reset_per_device_resource",
    "set_current_device_resource",
    "set_default_specification",
    "set_per_device_resource",
    "usage",
]
