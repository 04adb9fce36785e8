"""RMM on cenote: the real ``rmm``, and every library that is compiled against librmm, draw from cenote.

::

    cenote build rmm                 # once, in the shell
    cenote.install(frameworks="rmm")

RMM's current resource of each device becomes one that draws from the resource of cenote that is current there, in C++
and in Python: what cuDF, cuML, cuGraph and others allocate is of the same pool as PyTorch's tensors, and is counted for
``rmm``. It must be compiled against the librmm that is installed, which ``cenote build rmm`` does; without it, RMM's
own ``CallbackMemoryResource`` calls Python for each allocation.

A program that uses ``rmm`` from Python alone needs no RMM: see ``CENOTE_AS_RMM``.
"""

from __future__ import annotations

import functools
import importlib.util
from importlib.machinery import ExtensionFileLoader
from typing import Any

import cenote.driver
import cenote.mr
from cenote.allocators.rmm.extension_build import MODULE, BuildError, built_extension, find_rmm
from cenote.registry import Client

__all__ = ["install", "memory_resource", "uninstall"]

_client = Client("rmm")
_replaced: dict[int, Any] = {}
"""By device, RMM's resource before `install`."""


def _is_cenote(rmm: Any) -> bool:
    """Whether ``rmm`` means cenote here: CENOTE_AS_RMM, cenote.compat.as_rmm."""
    return issubclass(rmm.mr.DeviceMemoryResource, cenote.mr.DeviceMemoryResource)


def _real_rmm() -> Any:
    import rmm

    if _is_cenote(rmm):
        raise ImportError("rmm means cenote in this process: there is no other RMM to put onto it")
    return rmm


@functools.cache
def _extension() -> Any:
    """Load the compiled module; None where it was not built."""
    _real_rmm()  # loads librmm first
    try:
        path = built_extension(find_rmm())
    except BuildError:
        return None
    if path is None:
        return None
    loader = ExtensionFileLoader(MODULE, str(path))
    spec = importlib.util.spec_from_loader(MODULE, loader)
    module = importlib.util.module_from_spec(spec) if spec is not None else None
    if module is not None:
        loader.exec_module(module)
    return module


@functools.cache
def memory_resource(device: int = 0) -> Any:
    """Make a resource of RMM's that draws from cenote's current one on a device.

    Parameters
    ----------
    device : int, default 0
        The device.

    Returns
    -------
    rmm.mr.DeviceMemoryResource
        In C++ alone after ``cenote build rmm``, else a ``rmm.mr.CallbackMemoryResource``. The same one each time.

    Raises
    ------
    ImportError
        RMM is not installed, or means cenote here.
    """
    extension = _extension()
    if extension is not None:
        return extension.CenoteMemoryResource(device)

    def allocate(size: int, stream: Any) -> int:
        return _client.allocate(size, stream, device)

    def deallocate(address: int, size: int, stream: Any) -> None:
        _client.deallocate(address, stream)

    return _real_rmm().mr.CallbackMemoryResource(allocate, deallocate)


def install() -> str:
    """Make cenote's RMM's current resource, on every device.

    Returns
    -------
    str
        What took effect.

    Raises
    ------
    ImportError
        RMM is not installed.
    """
    import rmm

    if _is_cenote(rmm):
        return "rmm means cenote in this process"
    for device in range(cenote.driver.device_count()):
        current = rmm.mr.get_per_device_resource(device)
        ours = memory_resource(device)
        if current is not ours:
            _replaced[device] = current
            rmm.mr.set_per_device_resource(device, ours)
    how = "in C++" if _extension() is not None else "by calls of Python; cenote build rmm makes that C++"
    return f"rmm {rmm.__version__}: its current resource draws from the current resource of the device, {how}"


def uninstall() -> str:
    """Give RMM the resources back that were current before `install`.

    Returns
    -------
    str
        What took effect.
    """
    import rmm

    for device, before in list(_replaced.items()):
        if rmm.mr.get_per_device_resource(device) is memory_resource(device):
            rmm.mr.set_per_device_resource(device, before)
        del _replaced[device]
    return f"rmm {rmm.__version__}: has the resources of before"
