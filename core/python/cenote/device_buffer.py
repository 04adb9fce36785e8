"""Untyped device memory that frees itself or is another process's, and copies between bare addresses and the host."""

from cenote._core.copies import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host
from cenote._core.device_buffer import DeviceBuffer, open_shared, to_device
from cenote._core.public_names import publish
from cenote._core.sharing import BlockHandle

__all__ = [
    "BlockHandle",
    "DeviceBuffer",
    "copy_device_to_ptr",
    "copy_host_to_ptr",
    "copy_ptr_to_host",
    "open_shared",
    "to_device",
]

publish(globals())
