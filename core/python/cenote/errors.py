"""What cenote raises. Each derives from the built-in exception that people catch already."""

from __future__ import annotations

__all__ = ["CudaError", "DriverUnavailableError", "OutOfMemoryError"]


class CudaError(RuntimeError):
    """A call of the CUDA driver failed for another reason than lack of memory.

    Attributes
    ----------
    call : str
        The driver's function, such as ``"cuMemcpyAsync"``; empty if none was reached.
    code : int
        The driver's error number (``CUresult``); 0 if no call was reached.
    name : str
        The error's name, such as ``"CUDA_ERROR_INVALID_VALUE"``.
    """

    def __init__(self, message: str, call: str = "", code: int = 0, name: str = "") -> None:
        super().__init__(message)
        self.call = call
        self.code = code
        self.name = name

    @property
    def status(self) -> int:
        """The driver's error number, `code`, under the name that CUDA's Python libraries give it."""
        return self.code


class DriverUnavailableError(CudaError):
    """There is no driver to call: none installed, too old, no device, or a forked child. The text says what to do."""


class OutOfMemoryError(MemoryError):
    """A resource had no memory to give. All figures are in bytes; ``None`` where the resource does not know.

    Attributes
    ----------
    requested : int
        What was asked for.
    in_use : int or None
        Handed out by the resource and not yet freed.
    held : int or None
        Taken by the resource from its upstream.
    limit : int or None
        The most that the resource may hold.
    largest_free : int or None
        The largest block that it could hand out without growing.
    device_free, device_total : int or None
        What the device itself has left, and has in all.
    """

    def __init__(
        self,
        message: str,
        requested: int = 0,
        in_use: int | None = None,
        held: int | None = None,
        limit: int | None = None,
        largest_free: int | None = None,
        device_free: int | None = None,
        device_total: int | None = None,
    ) -> None:
        super().__init__(message)
        self.requested = requested
        self.in_use = in_use
        self.held = held
        self.limit = limit
        self.largest_free = largest_free
        self.device_free = device_free
        self.device_total = device_total
