"""Give the device's memory back for a while, and keep every address.

A pool over virtual memory can be paused: its pages go back to the device, and whoever comes next can have them. Its
addresses stay, so that tensors, arrays and captured graphs are valid again once it is resumed, with what they held.

`cenote.region` puts what a part of a program allocates onto pages of its own, which are paused by themselves.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING, SupportsIndex

from cenote import mr
from cenote._core import pauses
from cenote._core.arguments import whole_number
from cenote._core.pauses import keep_pinned, kept_pinned_nbytes
from cenote._core.public_names import publish
from cenote._core.registry import ResourceScope

if TYPE_CHECKING:
    from cenote._core.device_buffer import _Bytes

__all__ = ["keep_pinned", "kept_pinned_nbytes", "pause", "region", "regions", "resume"]


class region:
    """Put what a part of a program allocates onto pages of its own: ``with cenote.region("weights"):``.

    Inside, whatever allocates from the current resource on this thread takes the region's pool, as with `cenote.use`:
    PyTorch, CuPy and Numba that are on cenote, buffers, C++ and C. No page has blocks of two regions, so that pausing
    one gives back all of its memory, and nobody else's. Blocks go back to their region, also later and on other
    threads. Regions nest; the same object may be entered again. The same name is the same region.

    Parameters
    ----------
    name : str
        What the region is called.
    device : int, optional
        Where it is meant; the device that is current when the block begins if not given. A region has a pool on each
        device that it was used on, and is paused on all of them.
    resource : str, optional
        What its pools are: a pool over virtual memory, such as ``"pool:max=8GiB | virtual"``. ``"pool | virtual"`` if
        not given, or what the region has.

    Raises
    ------
    TypeError
        A name or specification of another type.
    ValueError
        An empty name; when it is entered, a specification that is wrong, or another one than the region has.
    IndexError
        A device that there is not: at the latest when it is entered.

    Notes
    -----
    A region holds for the thread, as `cenote.use`: not for threads that it starts, nor for PyTorch's own, which run
    ``backward()``. A tag (`cenote.tag`) is only a label, and follows tasks; a region is a place.
    """

    def __init__(self, name: str, device: int | None = None, *, resource: str | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name must be a str, not {type(name).__name__}")
        if resource is not None and not isinstance(resource, str):
            raise TypeError(f"resource must be a specification, not {type(resource).__name__}")
        if not name:
            raise ValueError("the name of a region cannot be empty")
        self.name = name
        self._device = -1 if device is None else whole_number("device", device, "a number of a device as int")
        if device is not None and not 0 <= self._device < 64:
            raise IndexError(f"there is no device {device}")
        self._specification = resource or ""
        self._open: list[ResourceScope] = []

    def __enter__(self) -> region:
        """Begin: makes the region's pool on that device if there is none."""
        self._open.append(ResourceScope(pauses.get_region(self.name, self._device, self._specification)))
        return self

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
        raise RuntimeError("a region ends on the thread where it began, after those that began within it")

    @property
    def pools(self) -> tuple[mr.DeviceMemoryResource, ...]:
        """Its pools, in order of device; none before it is first entered."""
        return tuple(pauses.region_resources(self.name))

    @property
    def is_paused(self) -> bool:
        """Whether it is paused."""
        return any(pauses.is_paused(pool) for pool in self.pools)

    @property
    def nbytes(self) -> int:
        """The bytes that it holds of its devices: 0 while it is paused."""
        return sum(pool.state().held or 0 for pool in self.pools)

    @property
    def paused_nbytes(self) -> int:
        """The bytes that resuming takes; 0 while it is not paused."""
        return sum(pauses.paused_nbytes(pool) for pool in self.pools)

    def read_paused(self, ptr: SupportsIndex, buffer: _Bytes) -> bool:
        """Copy what the paused memory held at an address to the host, and leave it paused.

        Parameters
        ----------
        ptr : int
            An address in device memory, such as that of a tensor in the region.
        buffer : writable buffer of unsigned bytes
            Where to; its length says how many bytes are copied.

        Returns
        -------
        bool
            False where the memory is not paused, is not the region's, or some of it is not kept, as with
            ``keep="nothing"``: then the buffer may hold a part. What was free at the pause may be kept or not. With
            ``fill``, the bytes are those after resuming.

        Raises
        ------
        TypeError
            An address or a buffer of another type.
        OverflowError
            An address outside of 64 bits.
        BufferError
            A buffer that cannot be written, or is not contiguous.
        RuntimeError
            If a file cannot be read, or, as `CudaError`, another device.
        """
        return pauses.read_paused(list(self.pools), ptr, buffer)

    def __repr__(self) -> str:
        """Show how it is made."""
        return f"cenote.region({self.name!r})"


def regions() -> dict[str, region]:
    """All regions of the process, by name, in the order in which they were made."""
    return {name: region(name) for name in pauses.region_names()}


def pause(
    region: str | region | mr.DeviceMemoryResource | None = None,
    keep: str = "host",
    *,
    fill: int | None = None,
) -> int:
    """Give the memory of a region, a pool or everything back to the device, and keep every address.

    All work that was queued before is waited for. Work that is queued later, and graphs that are launched, must not
    use the memory before `resume`: the device would have nothing there. Blocks may be freed meanwhile. To allocate
    from what is paused raises RuntimeError; other pools and regions work on.

    Parameters
    ----------
    region : str, cenote.region or DeviceMemoryResource, optional
        A region on all of its devices, or the pool over virtual memory in a resource. If not given, all regions and
        the current resources of all devices, as far as they are such pools and not paused already.
    keep : str, default "host"
        Where the contents go: ``"host"``, into pinned memory, which is kept for the next pause (`keep_pinned`);
        ``"peer:1"``, into free memory of that device; ``"file:FOLDER"``, into a file without a name in that folder,
        which is gone with the process; or ``"nothing"``, for what can be made again: after resuming, what the memory
        holds is not known.
    fill : int, optional
        With ``"nothing"``, the value that each byte has after resuming.

    Returns
    -------
    int
        The bytes that were given back.

    Raises
    ------
    RuntimeError
        If it is paused already; if blocks are exported, registered or lent (`PoolMemoryResource.pins`), which the error
        lists; while work is being captured into a graph; if the file cannot be made or written. Nothing has changed
        then.
    ValueError
        If there is no such region, no pool over virtual memory, one under a resource that keeps memory of it (another
        pool, an arena, fixed sizes, bins), or no such place to keep contents.
    IndexError
        If there is no such device to keep contents.
    MemoryError
        If the host, or the device that is to keep them, has no memory for the contents. Nothing has changed then.
    """
    if not isinstance(keep, str):
        raise TypeError(f"keep must be a str, not {type(keep).__name__}")
    if fill is not None:
        if keep != "nothing":
            raise ValueError(f"contents that are kept are not filled: fill={fill!r} goes with keep='nothing'")
        value = whole_number("fill", fill, "a byte as int")
        if not 0 <= value <= 255:
            raise ValueError(f"fill must be a byte, between 0 and 255, not {value}")
        keep = f"fill:{value}"
    if region is None:
        return pauses.pause_all(keep)
    if isinstance(region, mr.DeviceMemoryResource):
        return pauses.pause_resource(region, keep)
    return pauses.pause_region(_name_of(region), keep)


def resume(region: str | region | mr.DeviceMemoryResource | None = None) -> int:
    """Bring the memory back to the same addresses, with what it held.

    Parameters
    ----------
    region : str, cenote.region or DeviceMemoryResource, optional
        As for `pause`. If not given, all that is paused of the regions and the current resources.

    Returns
    -------
    int
        The bytes that were brought back: without pages on which all blocks were freed meanwhile.

    Raises
    ------
    RuntimeError
        If it is not paused.
    MemoryError
        If the device has not enough memory left: the text says how much is missing. It is paused as before, and can be
        resumed once there is room.
    ValueError
        If there is no such region, or no pool over virtual memory.
    """
    if region is None:
        return pauses.resume_all()
    if isinstance(region, mr.DeviceMemoryResource):
        return pauses.resume_resource(region)
    return pauses.resume_region(_name_of(region))


_region = region


def pause_together(plan: Iterable[tuple[_region, str]]) -> None:
    """Pause several regions as one, each with its `keep`. If one cannot be paused, all are as before, contents too.

    Those that nobody has entered are left out; where no other is left, nothing happens. Where the driver fails again
    while a region is put back, a note of the error says that it stays paused, with all that it had.
    """
    planned = [(each, keep) for each, keep in plan if each.pools and not each.is_paused]
    if not planned:
        return
    try:
        pauses.pause_regions([(each.name, keep) for each, keep in planned])
    except BaseException as error:
        for each, _ in planned:
            if each.is_paused:
                error.add_note(f"the region {each.name!r} stays paused, and keeps its memory until it is resumed")
        raise


def _name_of(named: object) -> str:
    if isinstance(named, _region):
        return named.name
    if isinstance(named, str):
        return named
    raise TypeError(f"region must be a name, a region or a memory resource, not {type(named).__name__}")


publish(globals())
