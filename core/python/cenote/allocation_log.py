"""Logging of allocations, switched on and off for every device at once. Documented in `cenote.mr`."""

from __future__ import annotations

import os

from cenote import driver
from cenote._adaptors import LoggingResourceAdaptor
from cenote._memory_resource import DeviceMemoryResource, UpstreamResourceAdaptor
from cenote._registry import (
    devices_with_resource,
    find_per_device_resource,
    get_per_device_resource,
    set_per_device_resource,
)

__all__ = ["disable_logging", "enable_logging", "get_log_filenames"]


def enable_logging(log_file_name: str | os.PathLike[str] | None = None) -> None:
    """Log every allocation and free of the current resources to files of CSV, one a device.

    A `LoggingResourceAdaptor` is put onto the current resource of every device that has one, or of the current device
    if none has. A resource that is logged already, at any place of its stack, is left as it is. Either all are put on
    or, where one fails, none.

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
    resources = {device: get_per_device_resource(device) for device in devices_with_resource()}
    if not resources:
        device = driver.current_device()
        resources[device] = get_per_device_resource(device)
    logged = {
        device: LoggingResourceAdaptor(resource, log_file_name)
        for device, resource in resources.items()
        if _log_of(resource) is None
    }
    for device, log in logged.items():
        set_per_device_resource(device, log)


def disable_logging() -> None:
    """Take the `LoggingResourceAdaptor` off every current resource whose outermost adaptor it is.

    One that stands under another adaptor stays: the adaptor above it belongs to somebody else.
    """
    for device in devices_with_resource():
        resource = find_per_device_resource(device)
        if isinstance(resource, LoggingResourceAdaptor):
            set_per_device_resource(device, resource.upstream_mr)


def get_log_filenames() -> dict[int, str | None]:
    """Name the files that are written, with absolute paths.

    Returns
    -------
    dict
        By device, for every device that has a current resource; None where it is not logged.
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
    while resource is not None and not isinstance(resource, LoggingResourceAdaptor):
        resource = resource.upstream_mr if isinstance(resource, UpstreamResourceAdaptor) else None
    return resource
