"""Untyped device memory that frees itself, and copies between bare addresses and the host."""

from cenote._core.copies import copy_device_to_ptr, copy_host_to_ptr, copy_ptr_to_host
from cenote._core.device_buffer import DeviceBuffer, to_device
from cenote._core.public_names import publish

__all__ = ["DeviceBuffer", "copy_device_to_ptr", "copy_host_to_ptr", "copy_ptr_to_host", "to_device"]

publish(globals())
