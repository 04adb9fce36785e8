"""A resource for a part of a program. Documented in `cenote`."""

from __future__ import annotations

from types import TracebackType

from cenote import mr
from cenote._core.registry import ResourceScope

__all__ = ["use"]


class use:
    """Put a part of a program onto a resource, for the calling thread: ``with cenote.use("pool:max=4GiB"):``.

    Inside, whatever allocates from the current resource of that device on this thread takes `resource`: PyTorch, CuPy
    and Numba that are on cenote (`cenote.install`), buffers, C++ and C. Memory goes back to the resource that made it,
    also later and on other threads. It nests; the same object may be entered again.

    Other threads stay as they are, also those that this one starts, and PyTorch's own, which run ``backward()``: what
    they allocate comes from the current resource of the process. Setting the current resource inside is for the rest of
    the scope, on this thread.

    Parameters
    ----------
    resource : DeviceMemoryResource or str
        A resource, or a specification, of which one is made here and lives as long as this object and its memory.
    device : int, optional
        Of the specification: the current device if not given.

    Raises
    ------
    TypeError
        What is neither a specification nor a resource.
    ValueError
        A specification that is wrong, or a resource of another device than `device`.
    """

    def __init__(self, resource: mr.DeviceMemoryResource | str, device: int | None = None) -> None:
        if isinstance(resource, str):
            resource = mr.from_spec(resource, device)
        elif not isinstance(resource, mr.DeviceMemoryResource):
            raise TypeError(f"resource must be a specification or a memory resource, not {type(resource).__name__}")
        elif device is not None and resource.device != device:
            raise ValueError(f"a resource of device {resource.device} cannot serve device {device}")
        self.resource = resource
        self._open: list[ResourceScope] = []

    def __enter__(self) -> mr.DeviceMemoryResource:
        """Begin; gives the resource."""
        self._open.append(ResourceScope(self.resource))
        return self.resource

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End.

        Raises
        ------
        RuntimeError
            Another thread than at the beginning, or not the last one that has begun there: then nothing has ended.
        """
        for scope in reversed(self._open):
            if scope.close():
                self._open.remove(scope)
                return
        raise RuntimeError("a scope of cenote.use ends on the thread where it began, after those that began within it")
