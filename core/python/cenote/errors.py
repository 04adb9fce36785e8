"""What cenote raises. Each derives from the built-in exception that people catch already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["CudaError", "DriverUnavailableError", "Holder", "OutOfMemoryError", "ReliefStep"]


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


@dataclass(frozen=True)
class Holder:
    """Who holds memory of a device.

    Attributes
    ----------
    kind : str
        ``"client"``, ``"tag"`` or ``"site"``: a line of the program, where `cenote.sample_sites` samples them.
    name : str
        Of the client or tag, or the line; empty for what has no tag, or was not sampled.
    bytes : int
        As requested.
    blocks : int
        How many allocations they are.
    """

    kind: str
    name: str
    bytes: int
    blocks: int


@dataclass(frozen=True)
class ReliefStep:
    """What was tried before memory ran out.

    Attributes
    ----------
    name : str
        What was done: a step of the resource's own, such as ``"free pages brought together"``, or a pressure handler.
    freed_bytes : int or None
        What it freed, as far as that is known; None where it is not.
    why_not : str
        Why it was skipped, or how it failed; empty if it was done.
    """

    name: str
    freed_bytes: int | None
    why_not: str


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
    rounded : int or None
        What the resource takes for such a request at the least.
    device : int or None
        Whose memory was asked for.
    stream : int or None
        The handle of the stream that it was asked for on.
    resource : str
        The specification of the whole stack of resources; empty where it is not known.
    holders : tuple of Holder
        Who holds the device's memory: clients, then tags, then call sites, the largest first. Each block is a
        client's, and is counted for its tag and its call site as well.
    steps : tuple of ReliefStep
        What was tried.
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
        rounded: int | None = None,
        device: int | None = None,
        stream: int | None = None,
        resource: str = "",
        holders: Iterable[tuple[int, str, int, int]] = (),
        steps: Iterable[tuple[str, int | None, str]] = (),
    ) -> None:
        super().__init__(message)
        self.requested = requested
        self.in_use = in_use
        self.held = held
        self.limit = limit
        self.largest_free = largest_free
        self.device_free = device_free
        self.device_total = device_total
        self.rounded = rounded
        self.device = device
        self.stream = stream
        self.resource = resource
        self.holders = tuple(
            Holder(_KINDS_OF_HOLDERS[kind], name, nbytes, blocks) for kind, name, nbytes, blocks in holders
        )
        self.steps = tuple(ReliefStep(*step) for step in steps)

    def to_dict(self) -> dict[str, Any]:
        """Give all that the error knows, as numbers, texts, lists and dicts, for a log or a report.

        Returns
        -------
        dict
            ``message`` and the attributes by their names; ``holders`` and ``steps`` are lists of dicts.
        """
        return {
            "message": str(self),
            **{name: getattr(self, name) for name in _FIGURES},
            "holders": [asdict(holder) for holder in self.holders],
            "steps": [asdict(step) for step in self.steps],
        }


_KINDS_OF_HOLDERS = ("client", "tag", "site")

_FIGURES = (
    *("requested", "rounded", "device", "stream", "resource", "in_use", "held", "limit", "largest_free"),
    *("device_free", "device_total"),
)
