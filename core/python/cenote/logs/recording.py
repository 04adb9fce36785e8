"""Logging of allocations, switched on and off for every device at once. Documented in `cenote`."""

from __future__ import annotations

import os

from cenote._core.adaptors import LoggingResourceAdaptor, log_path
from cenote._core.memory_resource import DeviceMemoryResource, first_in_stack
from cenote._core.registry import (
    device_to_begin_with,
    devices_with_resource,
    find_per_device_resource,
    get_per_device_resource,
    put_on_default,
    set_per_device_resource,
    take_off_default,
)
from cenote._core.specification import specification_value, specification_words

__all__ = ["disable_logging", "enable_logging", "get_log_filenames"]


def enable_logging(log_file_name: str | os.PathLike[str] | None = None) -> None:
    """Log every allocation and free of the current resources to files of CSV, one a device.

    A `LoggingResourceAdaptor` is put onto the current resource of every device: now where there is one, else when the
    device is first used. Where no device has one, the device that the calling thread has chosen, or the only one there
    is, gets it now. A resource that is logged already, at any
    place of its stack, is left as it is. Either all are put on or, where one fails, none.

    Parameters
    ----------
    log_file_name : str or os.PathLike, optional
        The file, begun anew; ``.dev<device>`` is put before its extension, and the number of the process in place of
        ``%p``. The environment variable ``CENOTE_LOG_FILE`` if not given.

    Raises
    ------
    ValueError
        If neither names a file.
    RuntimeError
        If a file cannot be opened, or another process is writing it.
    """
    word = "logging"
    if log_file_name is not None and (path := log_path(log_file_name)):
        word += ":file=" + specification_value(os.path.abspath(path))
    specification_words(word)  # which raises where there is no file
    resources = {device: get_per_device_resource(device) for device in devices_with_resource()}
    if not resources and (device := device_to_begin_with()) is not None:
        resources[device] = get_per_device_resource(device)
    logged = {
        device: LoggingResourceAdaptor(resource, log_file_name)
        for device, resource in resources.items()
        if _log_of(resource) is None
    }
    for device, log in logged.items():
        set_per_device_resource(device, log)
    put_on_default(word)


def disable_logging() -> None:
    """Take the `LoggingResourceAdaptor` off every current resource whose outermost adaptor it is.

    Devices that have no resource yet will not be logged either. One that stands under another adaptor stays: the
    adaptor above it belongs to somebody else.
    """
    for device in devices_with_resource():
        resource = find_per_device_resource(device)
        if isinstance(resource, LoggingResourceAdaptor):
            set_per_device_resource(device, resource.upstream_mr)
    take_off_default("logging")


def get_log_filenames() -> dict[int, str | None]:
    """Name the files that are written, with absolute paths.

    Returns
    -------
    dict
        By device, for every device that has a current resource by now; None where it is not logged.
    """
    logs = {device: _log_of(find_per_device_resource(device)) for device in devices_with_resource()}
    return {device: None if log is None else log.get_file_name() for device, log in logs.items()}


def _flush_logs() -> None:
    """Write out the lines that are still buffered."""
    for device in devices_with_resource():
        log = _log_of(find_per_device_resource(device))
        if log is not None:
            log.flush()


def _log_of(resource: DeviceMemoryResource | None) -> LoggingResourceAdaptor | None:
    """Find the outermost logging adaptor of a stack."""
    return first_in_stack(resource, LoggingResourceAdaptor)
